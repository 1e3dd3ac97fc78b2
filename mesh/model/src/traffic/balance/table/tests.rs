//! Where hashes lead, as in Envoy, and how many stay there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Share, Table};
use crate::traffic::HashAlgorithm;
use crate::traffic::hash::xxh64;

fn ring(minimum_size: u64) -> HashAlgorithm {
    HashAlgorithm::Ring { minimum_size }
}

fn maglev(table_size: u64) -> HashAlgorithm {
    HashAlgorithm::Maglev { table_size }
}

/// Endpoints at 127.0.0.1, at ports from 90.
fn local(weights: &[f64]) -> Vec<Share> {
    let share = |(port, weight): (u32, &f64)| Share { key: format!("127.0.0.1:{port}"), weight: *weight };
    (90..).zip(weights).map(share).collect()
}

fn pods(count: usize) -> Vec<Share> {
    (0..count)
        .map(|number| Share { key: format!("10.0.{}.{}:8080", number >> 8, number & 255), weight: 1.0 })
        .collect()
}

/// How many of many keys lead to each.
fn counts(table: &Table, keys: u32) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for key in 0..keys {
        let number = table.get(xxh64(&key.to_le_bytes(), 0), 0).unwrap();
        *counts.entry(number).or_default() += 1;
    }
    counts
}

/// The positions are those of Envoy's own ring of the same endpoints.
#[test]
fn a_ring_is_envoys() {
    let Table::Ring(places) = Table::new(ring(12), &local(&[1.0; 6])) else { panic!() };
    let expected = [
        (833_437_586_790_550_860, 4),
        (928_266_305_478_181_108, 2),
        (1_033_482_794_131_418_490, 0),
        (3_551_244_743_356_806_947, 5),
        (3_851_675_632_748_031_481, 3),
        (5_583_722_120_771_150_861, 1),
        (6_311_230_543_546_372_928, 1),
        (7_700_377_290_971_790_572, 3),
        (13_144_177_310_400_110_813, 5),
        (13_444_792_449_719_432_967, 2),
        (15_516_499_411_664_133_160, 4),
        (16_117_243_373_044_804_889, 0),
    ];
    assert_eq!(*places, expected);
    let table = Table::Ring(places);
    // Hash, attempt; who.
    #[rustfmt::skip]
    let table_of = [
        (0, 0, 4), (u64::MAX, 0, 4), (833_437_586_790_550_860, 0, 4), (833_437_586_790_550_861, 0, 2),
        (3_551_244_743_356_806_947, 0, 5), (3_551_244_743_356_806_948, 0, 3), (3_551_244_743_356_806_948, 1, 1),
        (3_551_244_743_356_806_948, 3, 3), (16_117_243_373_044_804_889, 0, 0), (16_117_243_373_044_804_889, 1, 4),
        (0, 12, 4), (0, u32::MAX, 5),
    ];
    for (hash, attempt, who) in table_of {
        assert_eq!(table.get(hash, attempt), Some(who), "{hash}, attempt {attempt}");
    }
}

/// The tables are Envoy's own of the same endpoints, weights and lengths.
#[test]
fn a_maglev_table_is_envoys() {
    let table: [(&[f64], u64, &[u32]); 4] = [
        (&[1.0; 6], 7, &[2, 4, 0, 1, 5, 0, 3]),
        (&[1.0, 2.0], 17, &[1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]),
        (&[1.0, 1.0], 17, &[1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]),
        (&[0.8, 0.2], 17, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]),
    ];
    for (weights, size, expected) in table {
        let found = Table::new(maglev(size), &local(weights));
        let Table::Maglev(places) = &found else { panic!() };
        assert_eq!(**places, *expected, "{weights:?}");
    }
    let table = Table::new(maglev(7), &local(&[1.0; 6]));
    assert_eq!([0, 1, 2].map(|attempt| table.get(10, attempt)), [Some(1), Some(0), Some(5)]);
}

/// The same, as Envoy goes about it: every endpoint is asked in every round whether it takes a place.
fn round_by_round(size: u64, shares: &[Share]) -> Vec<u32> {
    let sum: f64 = shares.iter().map(|share| share.weight).sum();
    let heaviest = shares.iter().map(|share| share.weight / sum).fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|who| &shares[*who].key);
    let (mut targets, mut steps) = (vec![0.0; shares.len()], vec![0; shares.len()]);
    let mut places = vec![None; usize::try_from(size).unwrap()];
    for round in 1u32.. {
        for who in &order {
            if f64::from(round) * (shares[*who].weight / sum) < targets[*who] {
                continue;
            }
            targets[*who] += heaviest;
            let key = shares[*who].key.as_bytes();
            let (first, skip) = (xxh64(key, 0) % size, xxh64(key, 1) % (size - 1) + 1);
            let place =
                (steps[*who]..).find(|step| places[((first + step * skip) % size) as usize].is_none());
            let step = place.unwrap();
            places[((first + step * skip) % size) as usize] = Some(u32::try_from(*who).unwrap());
            steps[*who] = step + 1;
            if places.iter().all(Option::is_some) {
                return places.into_iter().flatten().collect();
            }
        }
    }
    Vec::new()
}

/// A third of something is no number that a machine has: rounds must not come too early for that.
#[test]
fn a_maglev_table_is_filled_as_if_round_by_round() {
    for weights in [&[1.0, 2.0][..], &[1.0, 3.0, 7.0], &[0.1, 0.3, 0.9, 0.9], &[1.0, 1.0, 12.0]] {
        let shares = local(weights);
        let Table::Maglev(places) = Table::new(maglev(211), &shares) else { panic!() };
        assert_eq!(*places, *round_by_round(211, &shares), "{weights:?}");
    }
}

/// One that weighs a great deal and many that weigh little: each of these has one place, and it does not take for ever.
#[test]
fn many_light_endpoints_beside_a_heavy_one_have_a_place_each() {
    let mut shares = pods(1024);
    for share in &mut shares[1..] {
        share.weight = 1.0 / (127.0 * 1023.0);
    }
    let Table::Maglev(places) = Table::new(maglev(65_537), &shares) else { panic!() };
    let mut counts = vec![0; 1024];
    for number in &places {
        counts[*number as usize] += 1;
    }
    assert_eq!(counts[0], 65_537 - 1023);
    assert!(counts[1..].iter().all(|count| *count == 1));
    // However light they are.
    for share in &mut shares[1..] {
        share.weight = f64::MIN_POSITIVE;
    }
    let Table::Maglev(places) = Table::new(maglev(2003), &shares) else { panic!() };
    assert_eq!(places.iter().filter(|number| **number == 0).count(), 2003 - 1023);
}

#[test]
fn rings_are_as_large_as_their_lightest_needs() {
    // Weights, least size; places of each.
    #[rustfmt::skip]
    let table: [(&[f64], u64, &[usize]); 7] = [
        (&[1.0; 3], 1024, &[342; 3]),
        (&[1.0; 1], 1024, &[1024]),
        (&[1.0; 3], 0, &[0; 3]),
        (&[1.0; 3], 1, &[1; 3]),
        (&[1.0, 2.0], 12, &[4, 8]),
        (&[1.0, 3.0], 2, &[1, 3]),
        (&[2.0, 2.0, 4.0], 4, &[1, 1, 2]),
    ];
    for (weights, size, expected) in table {
        let Table::Ring(places) = Table::new(ring(size), &local(weights)) else { panic!() };
        let count = |who: usize| places.iter().filter(|(_, number)| *number as usize == who).count();
        let found: Vec<usize> = (0..weights.len()).map(count).collect();
        assert_eq!(found, expected, "{weights:?} at least {size}");
    }
    // More endpoints than places: each has one.
    let Table::Ring(places) = Table::new(ring(1024), &pods(5000)) else { panic!() };
    assert_eq!(places.len(), 5000);
}

#[test]
fn what_cannot_be_had_does_no_harm() {
    for algorithm in [ring(1024), maglev(65_537)] {
        assert_eq!(Table::new(algorithm, &[]).get(7, 0), None);
        assert_eq!(Table::new(algorithm, &[]).get(7, 3), None);
    }
    // Lengths that are not prime, or too large, are the default.
    for size in [0, 1, 4, 8, 65_536, 5_000_013, u64::MAX] {
        assert!(!maglev(size).is_valid());
        let Table::Maglev(places) = Table::new(maglev(size), &pods(3)) else { panic!() };
        assert_eq!(places.len(), 65_537, "{size}");
    }
    for size in [3, 5, 7, 65_537, 5_000_011] {
        assert!(maglev(size).is_valid(), "{size}");
    }
    assert!(ring(8_388_608).is_valid() && !ring(8_388_609).is_valid());
    // A ring has a largest size, whatever its lightest endpoint would need.
    let lopsided = [1.0, f64::from(u32::MAX)];
    for (minimum_size, largest) in [(1024, 5000), (5001, 5000), (u64::MAX, 5000)] {
        let places = super::ring(minimum_size, largest, &local(&lopsided));
        assert!((5000..=5001).contains(&places.len()), "{minimum_size}: {}", places.len());
    }
}

#[test]
fn keys_are_spread_by_weight() {
    let keys = 200_000;
    for algorithm in [ring(65_536), maglev(65_537)] {
        let shares = local(&[1.0, 2.0, 5.0]);
        let counts = counts(&Table::new(algorithm, &shares), keys);
        for (number, share) in (0..).zip(&shares) {
            let (is, should) = (f64::from(counts[&number]), f64::from(keys) * share.weight / 8.0);
            assert!((is / should - 1.0).abs() < 0.05, "{algorithm:?} {number}: {is} of {should}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A table moves the keys of the one that is gone, and hardly any others. A ring keeps its size, so that those that stay
    /// have more places: these take about as many keys from one another.
    #[test]
    fn a_removed_endpoint_moves_its_own_keys(count in 2usize..40, which: prop::sample::Index, is_ring: bool) {
        let algorithm = if is_ring { ring(1024) } else { maglev(65_537) };
        let before = pods(count);
        let gone = which.index(count);
        let mut after = before.clone();
        after.remove(gone);
        let tables = (Table::new(algorithm, &before), Table::new(algorithm, &after));
        let keys = 4000;
        let (mut own, mut moved) = (0, 0);
        for key in 0u32..keys {
            let hash = xxh64(&key.to_le_bytes(), 0);
            let was = &before[tables.0.get(hash, 0).unwrap() as usize].key;
            let is = &after[tables.1.get(hash, 0).unwrap() as usize].key;
            if *was == before[gone].key {
                own += 1;
            } else if was != is {
                moved += 1;
            }
        }
        let share = f64::from(keys) / count as f64;
        prop_assert!(f64::from(own) < 1.5 * share + 60.0, "{own} of {share}");
        let others = if is_ring { 1.2 * share + 40.0 } else { 0.05 * f64::from(keys) };
        prop_assert!(f64::from(moved) <= others, "{moved} others moved of {share}");
    }

    /// A ring with a place for each, as of more endpoints than its least size, moves no others at all.
    #[test]
    fn a_ring_of_many_moves_nobody_elses_keys(which: prop::sample::Index) {
        let before = pods(1500);
        let gone = which.index(before.len());
        let mut after = before.clone();
        after.remove(gone);
        let tables = (Table::new(ring(1024), &before), Table::new(ring(1024), &after));
        for key in 0u32..2000 {
            let hash = xxh64(&key.to_le_bytes(), 0);
            let was = &before[tables.0.get(hash, 0).unwrap() as usize].key;
            let is = &after[tables.1.get(hash, 0).unwrap() as usize].key;
            prop_assert!(was == is || *was == before[gone].key);
        }
    }
}
