//! Whether the process may be given work: ready once nothing is pending, as `GET /healthz/ready` says it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What a process still waits for before it is ready. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

impl Readiness {
    /// Something must be done before the process is ready.
    pub fn pending(&self, what: &'static str) {
        self.lock().insert(what);
    }

    /// It is done.
    pub fn done(&self, what: &'static str) {
        self.lock().remove(what);
    }

    /// What is pending, in the order of names; empty when ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    /// The status and body of `GET /healthz/ready`, as ztunnel words them.
    pub fn answer(&self) -> (u16, String) {
        let waiting = self.waiting_for();
        if waiting.is_empty() {
            return (200, String::from("ready\n"));
        }
        (500, format!("not ready, pending: {}\n", waiting.join(", ")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        // A panic while holding the lock leaves the set as good as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_nothing_is_pending() {
        let readiness = Readiness::default();
        assert_eq!(readiness.answer(), (200, "ready\n".into()));
        readiness.pending("state");
        readiness.pending("pods");
        assert_eq!(readiness.answer(), (500, "not ready, pending: pods, state\n".into()));
        readiness.done("state");
        readiness.done("pods");
        assert_eq!(readiness.answer().0, 200);
    }
}
