//! The endpoints of one service: picked in constant time, inserted and removed in constant time.

use std::sync::Arc;

use super::index::Map;
use crate::address::Str;
use crate::workload::Workload;

/// Up to so many endpoints are looked through. Nearly all services have fewer, and then need no index.
const INDEXED_ABOVE: usize = 64;

/// The workloads behind a service.
#[derive(Debug, Default)]
pub struct Endpoints {
    list: Vec<Arc<Workload>>,
    /// Places in the list by uid, once it is long; empty before.
    places: Map<Str, u32>,
    /// Only grows: an estimate that is too large costs a few draws, never a wrong one.
    largest_capacity: u32,
}

impl Endpoints {
    /// Puts an endpoint in. The caller has taken out what the workload was before; only if it names a service twice
    /// is it there already.
    pub(super) fn insert(&mut self, workload: Arc<Workload>) {
        self.largest_capacity = self.largest_capacity.max(workload.profile.capacity);
        // Looking through the list for each endpoint put in would cost more than all the rest.
        if self.list.last().is_some_and(|last| last.uid == workload.uid) {
            return;
        }
        self.list.push(workload);
        if self.list.len() > INDEXED_ABOVE || !self.places.is_empty() {
            // All of them when the list has just become long, else the last.
            for place in self.places.len()..self.list.len() {
                self.note(place);
            }
        }
    }

    pub(super) fn remove(&mut self, uid: &str) {
        let Some(place) = self.place(uid) else { return };
        self.list.swap_remove(place);
        if self.places.remove(uid).is_some() && place < self.list.len() {
            self.note(place);
        }
        if self.list.len() < INDEXED_ABOVE / 2 {
            self.places = Map::default();
        }
    }

    fn place(&self, uid: &str) -> Option<usize> {
        if self.places.is_empty() {
            return self.list.iter().position(|workload| &*workload.uid == uid);
        }
        self.places.get(uid).map(|place| *place as usize)
    }

    fn note(&mut self, place: usize) {
        // More than four thousand million endpoints of one service are not to be had.
        self.places.insert(self.list[place].uid.clone(), u32::try_from(place).unwrap_or(u32::MAX));
    }

    /// All of them, in no order.
    pub fn all(&self) -> &[Arc<Workload>] {
        &self.list
    }

    /// No endpoint has more capacity than this; at least 1.
    pub fn largest_capacity(&self) -> u32 {
        self.largest_capacity.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Endpoints, INDEXED_ABOVE};
    use crate::fixtures::workload;
    use crate::workload::Workload;

    fn endpoint(number: usize) -> Arc<Workload> {
        Arc::new(workload(&format!("uid-{number}"), &[]))
    }

    /// Grows and shrinks across the length from which there is an index, and compares with a plain list.
    #[test]
    fn are_those_that_were_put_in_and_not_taken_out() {
        let mut endpoints = Endpoints::default();
        let mut expected: Vec<String> = Vec::new();
        let check = |endpoints: &Endpoints, expected: &mut Vec<String>| {
            let mut found: Vec<String> = endpoints.all().iter().map(|one| one.uid.to_string()).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, *expected);
        };
        let put = |endpoints: &mut Endpoints, expected: &mut Vec<String>, number: usize| {
            endpoints.insert(endpoint(number));
            endpoints.insert(endpoint(number));
            expected.push(format!("uid-{number}"));
        };
        for number in 0..3 * INDEXED_ABOVE {
            put(&mut endpoints, &mut expected, number);
            check(&endpoints, &mut expected);
        }
        for round in 0..3 {
            // Down into the range where the index is kept, up again, and down to where it is dropped.
            let down_to = if round == 2 { 0 } else { INDEXED_ABOVE / 2 + round };
            while expected.len() > down_to {
                let uid = expected.remove(expected.len() / 2);
                endpoints.remove(&uid);
                endpoints.remove(&uid);
                check(&endpoints, &mut expected);
            }
            for number in 1000 * (round + 1)..1000 * (round + 1) + INDEXED_ABOVE {
                put(&mut endpoints, &mut expected, number);
                check(&endpoints, &mut expected);
            }
        }
    }

    /// Looking through a long list for each change would take the square of its length; an index that is made anew at
    /// each change at its border would take as much.
    #[test]
    fn a_list_is_indexed_from_when_it_is_long_until_it_is_half_as_long() {
        let indexed = |endpoints: &Endpoints| {
            for (uid, place) in &endpoints.places {
                assert_eq!(endpoints.list[*place as usize].uid, *uid);
            }
            let noted = endpoints.places.len();
            assert!(noted == 0 || noted == endpoints.list.len(), "{noted} of {}", endpoints.list.len());
            noted > 0
        };
        let mut endpoints = Endpoints::default();
        for number in 0..2 * INDEXED_ABOVE {
            endpoints.insert(endpoint(number));
            assert_eq!(indexed(&endpoints), number + 1 > INDEXED_ABOVE, "up to {}", number + 1);
        }
        for number in (0..2 * INDEXED_ABOVE).rev() {
            endpoints.remove(&format!("uid-{number}"));
            assert_eq!(endpoints.all().len(), number);
            assert_eq!(indexed(&endpoints), number >= INDEXED_ABOVE / 2, "down to {number}");
        }
    }
}
