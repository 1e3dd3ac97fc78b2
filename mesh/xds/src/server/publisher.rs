//! What is published, and who is told.

use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

use crate::delta::store::{Edit, Revision, Store};

/// A [`Store`] that tells its readers of changes. Some clients may be shown one, others another.
#[derive(Debug)]
pub struct Publisher {
    store: RwLock<Store>,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) closed: bool,
}

impl Publisher {
    /// Publishes nothing yet, of these types in the order in which they depend on one another (what is named before
    /// what names it).
    pub fn new<'a>(types: impl IntoIterator<Item = &'a str>) -> Self {
        let (state, _) = watch::channel(State { revision: 0, closed: false });
        Self { store: RwLock::new(Store::new(types)), state }
    }

    /// Publishes changes, and says the new revision if anything is different now.
    pub fn apply(&self, edit: Edit) -> Option<Revision> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let revision = store.apply(edit)?;
        // Under the lock, so that revisions are told in order.
        self.state.send_modify(|state| state.revision = revision);
        Some(revision)
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.state.borrow().revision
    }

    /// Looks at what is published. Publishing waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the streams of all clients, as the server is going away or what they are shown is no more. A server that
    /// goes away begins its shutdown first: on a connection that has not said goodbye a client opens its next stream.
    pub fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}
