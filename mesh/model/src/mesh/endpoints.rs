//! The endpoints of one service: picked in constant time, inserted and removed in constant time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::address::Str;
use crate::workload::Workload;

/// The workloads behind a service.
#[derive(Debug, Default)]
pub struct Endpoints {
    list: Vec<Arc<Workload>>,
    places: HashMap<Str, u32>,
    /// Only grows: an estimate that is too large costs a few draws, never a wrong one.
    largest_capacity: u32,
}

impl Endpoints {
    pub(super) fn insert(&mut self, workload: Arc<Workload>) {
        self.largest_capacity = self.largest_capacity.max(workload.profile.capacity);
        match self.places.get(&workload.uid) {
            Some(&place) => self.list[place as usize] = workload,
            None => {
                // More than four thousand million endpoints of one service are not to be had.
                let place = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
                self.places.insert(workload.uid.clone(), place);
                self.list.push(workload);
            }
        }
    }

    pub(super) fn remove(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        self.list.swap_remove(place as usize);
        if let Some(moved) = self.list.get(place as usize) {
            self.places.insert(moved.uid.clone(), place);
        }
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
