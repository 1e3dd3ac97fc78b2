//! Tables that lead the same hash to the same endpoint, and most hashes still there when others come or go.
//!
//! Built as in Envoy, so that both lead a hash to the same endpoint: the ring of `ring_hash_lb.cc` (Ketama), the table of
//! `maglev_lb.cc` (the paper's listing 1, with weights).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use crate::traffic::HashAlgorithm;
use crate::traffic::hash::xxh64;

/// Leads a hash to an endpoint, by its number.
#[derive(Debug)]
pub(super) enum Table {
    /// Places, in the order of their hashes.
    Ring(Box<[(u64, u32)]>),
    /// Who has which place.
    Maglev(Box<[u32]>),
}

/// An endpoint to be put into a table: its key, and its share of all.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) key: String,
    pub(super) weight: f64,
}

impl Table {
    /// A table of endpoints, whose numbers are their places in the list. Their weights are more than 0.
    pub(super) fn new(algorithm: HashAlgorithm, shares: &[Share]) -> Self {
        match algorithm {
            HashAlgorithm::Ring { minimum_size } => {
                Self::Ring(ring(minimum_size, HashAlgorithm::LARGEST_RING, shares))
            }
            HashAlgorithm::Maglev { table_size } => Self::Maglev(maglev(table_size, shares)),
        }
    }

    /// The endpoint of a hash. Further attempts, numbered from 0, lead to others where there are any, but may also come
    /// back to the same.
    pub(super) fn get(&self, hash: u64, attempt: u32) -> Option<u32> {
        match self {
            Self::Ring(places) => {
                // The first place that is not before the hash; after the last comes the first.
                let first = places.partition_point(|(place, _)| *place < hash);
                let place = (first + attempt as usize) % places.len().max(1);
                places.get(place).map(|(_, number)| *number)
            }
            Self::Maglev(places) => {
                // Nearly all bits are turned over, so that the endpoint of the first attempt has no one successor.
                let hash = if attempt > 0 { hash ^ (!0 - u64::from(attempt) + 1) } else { hash };
                let place = hash.checked_rem(places.len() as u64)?;
                usize::try_from(place).ok().and_then(|place| places.get(place)).copied()
            }
        }
    }
}

/// Each endpoint has places by its weight, and the lightest a whole number of them, unless the ring would be larger than
/// the largest.
fn ring(minimum_size: u64, largest: u64, shares: &[Share]) -> Box<[(u64, u32)]> {
    if shares.is_empty() {
        return Box::default();
    }
    let sum: f64 = shares.iter().map(|share| share.weight).sum();
    let lightest = shares.iter().map(|share| share.weight / sum).fold(1.0, f64::min);
    let scale = ((lightest * minimum_size as f64).ceil() / lightest).min(largest as f64);
    let mut places = Vec::with_capacity(scale.ceil() as usize);
    // Numbers of places need not be whole: what an endpoint has too much, the next ones have less.
    let mut target = 0.0;
    let mut name = String::new();
    for (number, share) in (0u32..).zip(shares) {
        target += scale * (share.weight / sum);
        name.clear();
        name.push_str(&share.key);
        name.push('_');
        let key = name.len();
        for place in 0u32.. {
            if places.len() as f64 >= target {
                break;
            }
            name.truncate(key);
            // Writing to a string does not fail.
            let _ = write!(name, "{place}");
            places.push((xxh64(name.as_bytes(), 0), number));
        }
    }
    places.sort_unstable();
    places.into()
}

/// Who takes part in filling a table.
struct Filling {
    number: u32,
    weight: f64,
    /// What the weight, times the round, must have reached for the next place.
    target: f64,
    place: u64,
    skip: u64,
}

impl Filling {
    fn new(size: u64, number: u32, share: &Share, sum: f64) -> Self {
        let (place, skip) = (xxh64(share.key.as_bytes(), 0), xxh64(share.key.as_bytes(), 1));
        let (place, skip) = (place % size, skip % (size - 1) + 1);
        Self { number, weight: share.weight / sum, target: 0.0, place, skip }
    }

    /// Takes the next place of its order.
    fn step(&mut self, size: u64) {
        self.place += self.skip;
        if self.place >= size {
            self.place -= size;
        }
    }

    /// The round of its next place, after one: the first in which its weight has reached what it must.
    fn next_round(&mut self, round: u64, heaviest: f64) -> u64 {
        self.target += heaviest;
        let reached = |round: u64| round as f64 * self.weight >= self.target;
        if reached(round.saturating_add(1)) {
            return round.saturating_add(1);
        }
        // The division may have been rounded either way.
        let mut next = (self.target / self.weight).floor() as u64;
        while !reached(next) && next < u64::MAX {
            next += 1;
        }
        next
    }
}

/// Round by round each endpoint takes the next free place of its own order of places; a lighter one sits out as many
/// rounds as it is lighter. To go through all of them each round would take as long as all weigh more than one of them.
fn maglev(table_size: u64, shares: &[Share]) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    if shares.is_empty() {
        return Box::default();
    }
    let size = usable_size(table_size);
    let sum: f64 = shares.iter().map(|share| share.weight).sum();
    // In the order of their keys: who is there first does not matter.
    let mut numbered: Vec<(u32, &Share)> = (0u32..).zip(shares).collect();
    numbered.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
    let mut filling: Vec<Filling> =
        numbered.into_iter().map(|(number, share)| Filling::new(size, number, share, sum)).collect();
    let heaviest = filling.iter().map(|one| one.weight).fold(0.0, f64::max);
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
        (0..filling.len()).map(|who| Reverse((1, who))).collect();
    let mut places = vec![FREE; usize::try_from(size).unwrap_or(0)];
    for _ in 0..places.len() {
        let Some(mut turn) = turns.peek_mut() else { break };
        let Reverse((round, who)) = *turn;
        let one = &mut filling[who];
        while places[one.place as usize] != FREE {
            one.step(size);
        }
        places[one.place as usize] = one.number;
        *turn = Reverse((one.next_round(round, heaviest), who));
    }
    places.into()
}

/// The table must be a prime number long, or an endpoint's order of places leaves some out for ever. Another length is
/// refused where the rule is read; the default stands for it here.
fn usable_size(table_size: u64) -> u64 {
    let algorithm = HashAlgorithm::Maglev { table_size };
    if algorithm.is_valid() { table_size } else { HashAlgorithm::DEFAULT_TABLE_SIZE }
}

#[cfg(test)]
mod tests;
