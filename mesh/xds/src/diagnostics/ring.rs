//! What was decided lately: the newest records, of bounded number. What was refused has a place of its own, so that what
//! passes by the thousand does not push it out.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use proto::diagnostics::{Decision, DecisionQuery};

use super::most;

/// Records of decisions.
#[derive(Debug)]
pub struct Ring<T> {
    most: usize,
    kept: Mutex<[VecDeque<T>; 2]>,
}

impl<T> Ring<T> {
    /// None yet, and so many at most of what passed, and as many of what did not. 0 keeps none.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new([VecDeque::new(), VecDeque::new()]) }
    }

    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.most > 0
    }

    /// Keeps a record; the oldest of its kind goes for it.
    pub fn push(&self, record: T, passed: bool) {
        if self.most == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = &mut kept[usize::from(passed)];
        let gone = if of_kind.len() >= self.most { of_kind.pop_front() } else { None };
        of_kind.push_back(record);
        drop(kept);
        drop(gone);
    }

    /// What `pick` makes of the newest records, at most so many of each kind, in no order.
    pub fn newest<R>(&self, limit: usize, mut pick: impl FnMut(&T) -> Option<R>) -> Vec<R> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut picked = Vec::new();
        for of_kind in kept.iter() {
            picked.extend(of_kind.iter().rev().filter_map(&mut pick).take(limit));
        }
        picked
    }
}

/// The answer to a question, out of several rings: what is `told` of the newest records that are meant.
pub fn newest<'a, T: 'a>(
    rings: impl IntoIterator<Item = &'a Ring<T>>,
    query: &DecisionQuery,
    told: impl Fn(&T) -> Option<Decision>,
) -> Vec<Decision> {
    let limit = most(query);
    let mut all: Vec<Decision> = rings.into_iter().flat_map(|ring| ring.newest(limit, &told)).collect();
    all.sort_by_key(|record| std::cmp::Reverse(record.begun_micros));
    all.truncate(limit);
    all
}

/// A moment as records and questions have it: microseconds since 1970.
pub fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn what_passes_does_not_push_out_what_was_refused() {
        let ring = Ring::new(3);
        ring.push(-1, false);
        (0..10).for_each(|record| ring.push(record, true));
        assert_eq!(ring.newest(9, |record| Some(*record)), [-1, 9, 8, 7]);
        assert_eq!(ring.newest(2, |record| (record % 2 != 0).then_some(*record)), [-1, 9, 7]);
        let off = Ring::new(0);
        off.push(1, false);
        assert!(!off.is_on() && off.newest(9, |record| Some(*record)).is_empty());
    }
}
