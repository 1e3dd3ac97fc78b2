//! Turns by weight: earliest deadline first, as in Envoy's `EdfScheduler`.
//!
//! Who has weight w has a turn every 1/w of a virtual time. Turns of the same time come in the order in which they were
//! asked for, so that equal weights give a plain round. Weights may be others at each turn.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Whose turn it is, of many numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Edf {
    now: f64,
    asked: u64,
    waiting: BinaryHeap<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    deadline: f64,
    order: u64,
    number: u32,
}

impl Edf {
    /// A schedule of numbers, each of which waits for so much of the virtual time at first.
    pub(super) fn new(waits: impl Iterator<Item = f64>) -> Self {
        let waiting: Vec<Waiting> = (0u32..)
            .zip(waits)
            .map(|(number, deadline)| Waiting { deadline, order: u64::from(number), number })
            .collect();
        Self { now: 0.0, asked: waiting.len() as u64, waiting: waiting.into() }
    }

    /// Whose turn it is now. It asks for its next turn at once, by its weight, which must be more than 0.
    pub(super) fn next(&mut self, weight: impl FnOnce(u32) -> f64) -> Option<u32> {
        let mut first = self.waiting.peek_mut()?;
        self.now = first.deadline;
        first.deadline += wait(weight(first.number));
        first.order = self.asked;
        self.asked += 1;
        let number = first.number;
        // Moves it to its new place.
        drop::<PeekMut<'_, Waiting>>(first);
        Some(number)
    }

    /// How long each of them has still to wait.
    pub(super) fn waits(&self) -> impl Iterator<Item = (u32, f64)> {
        self.waiting.iter().map(|waiting| (waiting.number, waiting.deadline - self.now))
    }
}

/// How long a weight waits from one turn to the next.
pub(super) fn wait(weight: f64) -> f64 {
    1.0 / weight
}

/// The heap has the greatest first: that is the earliest here.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Edf, wait};

    fn turns(weights: &[f64], count: usize) -> Vec<u32> {
        let mut edf = Edf::new(weights.iter().map(|weight| wait(*weight)));
        (0..count).map(|_| edf.next(|number| weights[number as usize]).unwrap()).collect()
    }

    #[test]
    fn turns_come_by_weight_and_evenly_spread() {
        let table: [(&[f64], &[u32]); 5] = [
            (&[1.0], &[0, 0, 0]),
            (&[1.0, 1.0, 1.0], &[0, 1, 2, 0, 1, 2, 0]),
            (&[2.0, 1.0], &[0, 1, 0, 0, 1, 0, 0, 1, 0]),
            (&[1.0, 3.0], &[1, 1, 0, 1, 1, 1, 0, 1]),
            (&[4.0, 2.0, 1.0], &[0, 1, 0, 0, 2, 1, 0, 0, 1, 0, 0, 2]),
        ];
        for (weights, expected) in table {
            // Which of those due at the very same time is first is not the point: counts are.
            let found = turns(weights, expected.len());
            for number in 0..u32::try_from(weights.len()).unwrap() {
                let count = |turns: &[u32]| turns.iter().filter(|turn| **turn == number).count();
                let (is, should) = (count(&found), count(expected));
                assert!(is.abs_diff(should) <= 1, "{number} of {weights:?}: {found:?}");
            }
        }
        assert_eq!(turns(&[1.0, 1.0, 1.0], 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(Edf::default().next(|_| 1.0), None);
    }

    #[test]
    fn shares_are_exact_over_a_round() {
        let weights = [5.0, 3.0, 1.0, 1.0];
        let found = turns(&weights, 1000);
        for (number, weight) in weights.iter().enumerate() {
            let share = found.iter().filter(|turn| **turn as usize == number).count();
            assert!((share as f64 - 100.0 * weight).abs() <= 1.0, "{number}: {share}");
        }
    }

    #[test]
    fn a_weight_that_changes_counts_from_the_next_turn() {
        let mut edf = Edf::new([1.0, 1.0].into_iter());
        let mut weight = 1.0;
        let mut counts = [0; 2];
        for turn in 0..1100 {
            if turn == 100 {
                weight = 4.0;
                counts = [0; 2];
            }
            let of = |number: u32| if number == 1 { weight } else { 1.0 };
            counts[edf.next(of).unwrap() as usize] += 1;
        }
        assert!(counts[0] >= 199 && counts[0] <= 201, "{counts:?}");
        let mut waits: Vec<(u32, f64)> = edf.waits().collect();
        waits.sort_by_key(|(number, _)| *number);
        assert!(
            waits[0].1 >= 0.0 && waits[0].1 <= 1.0 && waits[1].1 >= 0.0 && waits[1].1 <= 0.25,
            "{waits:?}"
        );
    }

    /// Looks through all who wait, each time.
    struct Naive {
        now: f64,
        asked: u64,
        waiting: Vec<(f64, u64, u32)>,
    }

    impl Naive {
        fn next(&mut self, weight: impl Fn(u32) -> f64) -> u32 {
            self.waiting.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            let (deadline, _, number) = self.waiting.remove(0);
            self.now = deadline;
            self.waiting.push((deadline + wait(weight(number)), self.asked, number));
            self.asked += 1;
            number
        }
    }

    proptest! {
        #[test]
        fn turns_are_those_of_the_earliest_of_all(
            waits in prop::collection::vec(0.0f64..3.0, 1..12),
            weights in prop::collection::vec(prop::collection::vec(1u32..9, 12), 1..6),
        ) {
            let mut edf = Edf::new(waits.iter().copied());
            let waiting = (0u32..).zip(&waits).map(|(number, wait)| (*wait, u64::from(number), number));
            let mut naive = Naive { now: 0.0, asked: waits.len() as u64, waiting: waiting.collect() };
            for turn in 0..200 {
                // Weights change now and then.
                let of = |number: u32| f64::from(weights[turn / 50 % weights.len()][number as usize]);
                prop_assert_eq!(edf.next(of), Some(naive.next(of)));
                let mut left: Vec<(u32, f64)> = edf.waits().collect();
                left.sort_by_key(|(number, _)| *number);
                prop_assert_eq!(left.len(), waits.len());
                for (number, wait) in left {
                    let (deadline, ..) = naive.waiting.iter().find(|waiting| waiting.2 == number).unwrap();
                    prop_assert!(wait == deadline - naive.now && wait >= 0.0);
                }
            }
        }
    }
}
