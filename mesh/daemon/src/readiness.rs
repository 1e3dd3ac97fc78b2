//! Whether the process may be given work: ready once nothing is pending, as `GET /healthz/ready` says it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// What a process still waits for before it is ready. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<watch::Sender<BTreeSet<&'static str>>>);

impl Readiness {
    /// Something must be done before the process is ready.
    pub fn pending(&self, what: &'static str) {
        self.0.send_if_modified(|pending| pending.insert(what));
    }

    /// It is done.
    pub fn done(&self, what: &'static str) {
        self.0.send_if_modified(|pending| pending.remove(what));
    }

    /// What is pending, in the order of names; empty when ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }

    /// Waits until nothing is pending.
    pub async fn ready(&self) {
        // The sender lives as long as this does.
        let _ = self.0.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    /// The status and body of `GET /healthz/ready`, as ztunnel words them.
    pub fn answer(&self) -> (u16, String) {
        let waiting = self.waiting_for();
        if waiting.is_empty() {
            return (200, String::from("ready\n"));
        }
        (500, format!("not ready, pending: {}\n", waiting.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_ready_when_nothing_is_pending() {
        let readiness = Readiness::default();
        assert_eq!(readiness.answer(), (200, "ready\n".into()));
        readiness.pending("state");
        readiness.pending("pods");
        assert_eq!(readiness.answer(), (500, "not ready, pending: pods, state\n".into()));
        readiness.done("state");
        let ready = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!ready.is_finished());
        readiness.done("pods");
        ready.await.unwrap();
        assert_eq!(readiness.answer().0, 200);
    }
}
