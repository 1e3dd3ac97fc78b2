//! Which pods a proxy serves, by what ZDS said: a pure state machine between the wire and the proxy's tasks.

use std::collections::{BTreeMap, BTreeSet};

use crate::netns::NetnsId;

/// The pods of this proxy and how far the snapshot has come.
#[derive(Debug, Default)]
pub struct Members {
    known: BTreeMap<String, NetnsId>,
    /// Names of the running snapshot; `None` once it is complete.
    snapshot: Option<BTreeSet<String>>,
}

/// What to do about an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addition {
    /// Start serving it.
    Start,
    /// The pod was started again in a new namespace: drain what serves the old one, start anew.
    Restart,
    /// It is being served already.
    Known,
}

/// The redirector broke the order of the protocol: refuse, and begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// `Keep` is a word of the snapshot.
    #[error("Keep after the snapshot's end")]
    LateKeep,
    /// The snapshot ends once.
    #[error("a second end of the snapshot")]
    SecondEnd,
}

impl Members {
    /// A new connection: the snapshot begins. Pods known from before go on being served meanwhile.
    pub fn begin(&mut self) {
        self.snapshot = Some(BTreeSet::new());
    }

    /// `Add`. Idempotent by uid and namespace.
    pub fn add(&mut self, uid: &str, netns: NetnsId) -> Addition {
        if let Some(names) = &mut self.snapshot {
            names.insert(uid.to_owned());
        }
        match self.known.insert(uid.to_owned(), netns) {
            None => Addition::Start,
            Some(before) if before == netns => Addition::Known,
            Some(_) => Addition::Restart,
        }
    }

    /// A pod could not be started: the next `Add` starts it.
    pub fn failed(&mut self, uid: &str) {
        self.known.remove(uid);
    }

    /// `Keep`: whether the pod is known at all.
    ///
    /// # Errors
    /// After the snapshot.
    pub fn keep(&mut self, uid: &str) -> Result<bool, OrderError> {
        let names = self.snapshot.as_mut().ok_or(OrderError::LateKeep)?;
        names.insert(uid.to_owned());
        Ok(self.known.contains_key(uid))
    }

    /// `Del`: whether to stop serving now. During the snapshot only the name is forgotten; its end stops the pod.
    pub fn del(&mut self, uid: &str) -> bool {
        match &mut self.snapshot {
            Some(names) => {
                names.remove(uid);
                false
            }
            None => self.known.remove(uid).is_some(),
        }
    }

    /// `SnapshotSent`: the pods to stop, which went away while nobody told us.
    ///
    /// # Errors
    /// When the snapshot had ended before.
    pub fn end(&mut self) -> Result<Vec<String>, OrderError> {
        let names = self.snapshot.take().ok_or(OrderError::SecondEnd)?;
        let gone: Vec<_> = self.known.keys().filter(|uid| !names.contains(*uid)).cloned().collect();
        for uid in &gone {
            self.known.remove(uid);
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::{Addition, Members, OrderError};
    use crate::netns::NetnsId;

    const ONE: NetnsId = NetnsId { device: 4, inode: 1 };
    const TWO: NetnsId = NetnsId { device: 4, inode: 2 };

    #[test]
    fn a_pod_is_identified_by_uid_and_namespace() {
        let mut members = Members::default();
        members.begin();
        assert_eq!(members.add("a", ONE), Addition::Start);
        assert_eq!(members.add("a", ONE), Addition::Known);
        assert_eq!(members.add("a", TWO), Addition::Restart);
        members.failed("a");
        assert_eq!(members.add("a", TWO), Addition::Start);
    }

    #[test]
    fn the_end_of_a_snapshot_drops_what_it_did_not_name() {
        let mut members = Members::default();
        members.begin();
        for uid in ["a", "b", "c"] {
            members.add(uid, ONE);
        }
        assert_eq!(members.end(), Ok(vec![]));

        members.begin();
        assert_eq!(members.keep("a"), Ok(true));
        assert_eq!(members.keep("unknown"), Ok(false));
        assert_eq!(members.add("b", ONE), Addition::Known);
        assert_eq!(members.end(), Ok(vec!["c".to_owned()]));
        assert_eq!(members.add("c", ONE), Addition::Start);
    }

    #[test]
    fn a_removal_within_the_snapshot_takes_effect_at_its_end() {
        let mut members = Members::default();
        members.begin();
        members.add("a", ONE);
        assert!(!members.del("a"));
        assert_eq!(members.end(), Ok(vec!["a".to_owned()]));
        members.add("b", ONE);
        assert!(members.del("b"));
        assert!(!members.del("b"));
    }

    #[test]
    fn the_order_is_kept() {
        let mut members = Members::default();
        assert_eq!(members.keep("a"), Err(OrderError::LateKeep));
        members.begin();
        assert_eq!(members.end(), Ok(vec![]));
        assert_eq!(members.end(), Err(OrderError::SecondEnd));
    }
}
