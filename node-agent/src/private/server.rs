//! The redirector's end of the private socket: holds each pod's namespace and listeners and the proxy's last
//! state, and hands all of it to whichever proxy connects.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering},
};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    saved::Saved,
    takeover::{Taken, TakenProxy},
    wire::{News, PodMessage},
};
use crate::{listeners::Listeners, seqpacket::SeqPacket, zds::server::CapturedPod};

mod proxies;
mod talk;

use proxies::{Connected, Letter, Proxy};
pub(super) use talk::{hear, send};

/// Handle to the server; clones share it.
#[derive(Clone, Debug)]
pub struct PrivateServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something in [`State::drained`].
    drained: Notify,
    connected: watch::Sender<bool>,
    /// Another redirector that wants everything, until it is asked for.
    heir: Mutex<Option<SeqPacket>>,
    heir_came: Notify,
    /// The current proxy was told to end.
    leaving: Notify,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, Held>,
    /// What the proxy leaves to its successor, in the order in which it is read.
    saved: Arc<[Saved]>,
    /// Leaving pods whose last connection has ended, until somebody takes them. A set and no queue: whoever takes them
    /// also sends letters, which are not passed on while the conversation waits for room in a queue.
    drained: BTreeSet<String>,
    proxy: Option<Proxy>,
    /// Those that it supersedes and that still have connections to hand over: each successor gets to know them all,
    /// should the one before it have crashed.
    superseded: Vec<Connected>,
    next_id: u64,
}

/// A pod and what is held of it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) pod: CapturedPod,
    pub(crate) listeners: Arc<Listeners>,
    pub(super) app_mark: u32,
    pub(crate) draining: bool,
}

/// Tells which leaving pods have ended their last captured connection.
#[derive(Debug)]
pub struct Drained(PrivateServer);

impl Drained {
    /// The uid of the next one. However often the proxy says it before it is taken here, it comes once.
    pub async fn next(&mut self) -> String {
        loop {
            if let Some(uid) = self.0.state().drained.pop_first() {
                return uid;
            }
            self.0.shared.drained.notified().await;
        }
    }
}

impl PrivateServer {
    /// A server that holds nothing yet, and the uids of pods whose last captured connection has ended.
    #[must_use]
    pub fn new() -> (Self, Drained) {
        Self::with(State::default())
    }

    /// The same, holding what another redirector held.
    pub(crate) fn holding(taken: &Taken) -> (Self, Drained) {
        let pods = taken.pods.iter().map(|pod| (pod.pod.uid.clone(), pod.clone())).collect();
        let mut state = State { pods, saved: taken.saved.clone(), ..State::default() };
        for proxy in &taken.proxies {
            state.next_id += 1;
            let connected = Connected {
                id: state.next_id,
                pid: proxy.socket.peer_pid().unwrap_or_default(),
                version: proxy.version,
                socket: proxy.socket.clone(),
                sequence: Arc::new(AtomicU64::new(proxy.sequence)),
                // Replaced as soon as it is conversed with.
                successors: mpsc::channel(1).0,
            };
            if proxy.superseded {
                state.superseded.push(connected);
            } else {
                state.proxy = Some(Proxy { connected, letters: mpsc::channel(1).0 });
            }
        }
        Self::with(state)
    }

    fn with(state: State) -> (Self, Drained) {
        let connected = watch::Sender::new(state.proxy.is_some());
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            drained: Notify::new(),
            connected,
            heir: Mutex::default(),
            heir_came: Notify::new(),
            leaving: Notify::new(),
        });
        let server = Self { shared };
        (server.clone(), Drained(server))
    }

    /// Waits until a proxy has been told to end by somebody else.
    pub(crate) async fn proxy_leaves(&self) {
        self.shared.leaving.notified().await;
    }

    /// Waits for another redirector that is to take this one's place, and returns the way to it.
    pub(crate) async fn heir(&self) -> SeqPacket {
        loop {
            let came = self.shared.heir_came.notified();
            if let Some(heir) = self.shared.heir.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return heir;
            }
            came.await;
        }
    }

    /// Lets go of everything: another redirector has it. A listener that stayed open here would go on getting its part
    /// of a pod's connections after the pod has left and joined again, and nobody would accept them.
    pub(crate) fn let_go(&self) {
        *self.state() = State::default();
    }

    /// Everything that is held, for another redirector.
    pub(crate) fn estate(&self) -> Taken {
        let state = self.state();
        let proxy = |connected: &Connected, superseded| TakenProxy {
            version: connected.version,
            sequence: connected.sequence.load(Ordering::Relaxed),
            superseded,
            socket: connected.socket.clone(),
        };
        let superseded = state.superseded.iter().map(|connected| proxy(connected, true));
        let current = state.proxy.iter().map(|current| proxy(&current.connected, false));
        Taken {
            pods: state.pods.values().cloned().collect(),
            saved: state.saved.clone(),
            proxies: superseded.chain(current).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of our own proxies is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.shared.connected.borrow()
    }

    /// Tells when a proxy connects or goes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// Whether this process is one of our own proxies.
    #[must_use]
    pub fn has_peer(&self, pid: i32) -> bool {
        let (current, superseded) = self.processes();
        current == Some(pid) || superseded.contains(&pid)
    }

    /// The processes of our own proxies: the current one, and those that it supersedes and that still run.
    #[must_use]
    pub fn processes(&self) -> (Option<i32>, Vec<i32>) {
        let state = self.state();
        let current = state.proxy.as_ref().map(|proxy| proxy.connected.pid);
        (current, state.superseded.iter().map(|proxy| proxy.pid).collect())
    }

    /// Whether this pod's listeners are held here.
    #[must_use]
    pub fn holds(&self, uid: &str) -> bool {
        self.state().pods.contains_key(uid)
    }

    /// Keeps a pod's listeners and the mark that its rules want on what is opened to its application, and hands them
    /// to the proxy, if there is one; a later proxy gets them at once.
    pub async fn hold(&self, pod: CapturedPod, listeners: Listeners, app_mark: u32) {
        let held = Held { pod, listeners: Arc::new(listeners), app_mark, draining: false };
        let uid = held.pod.uid.clone();
        self.state().pods.insert(uid, held.clone());
        self.tell(held.message(), Some(held)).await;
    }

    /// Hands a held pod's listeners to the proxy again, after it failed to start serving the pod.
    pub async fn hand_again(&self, uid: &str) {
        let held = self.state().pods.get(uid).cloned();
        if let Some(held) = held {
            self.tell(held.message(), Some(held)).await;
        }
    }

    /// Tells the proxy that nothing new of this pod will be captured (or, taken back, that it is again).
    pub async fn set_draining(&self, uid: &str, draining: bool) {
        {
            let mut state = self.state();
            let Some(held) = state.pods.get_mut(uid) else { return };
            held.draining = draining;
            // What was said of an earlier leaving is not said of this one.
            state.drained.remove(uid);
        }
        let uid = uid.to_owned();
        self.tell(if draining { News::Draining(uid) } else { News::Resumed(uid) }, None).await;
    }

    /// Closes a pod's listeners on this side and tells the proxy to.
    pub async fn release(&self, uid: &str) {
        let held = {
            let mut state = self.state();
            state.drained.remove(uid);
            state.pods.remove(uid)
        };
        if held.is_some() {
            self.tell(News::Removed(uid.to_owned()), None).await;
        }
    }

    /// Sends to the proxy and waits until it has been received; a proxy that goes away meanwhile gets the same
    /// from the hand-over when it is back.
    async fn tell(&self, news: News, pod: Option<Held>) {
        let proxy = self.state().proxy.clone();
        let Some(proxy) = proxy else { return };
        let (received, waiting) = oneshot::channel();
        if proxy.letters.send(Letter { news, pod, received }).await.is_ok() {
            let _ = waiting.await;
        }
    }
}

impl Held {
    pub(super) fn message(&self) -> News {
        News::Pod(PodMessage {
            uid: self.pod.uid.clone(),
            name: self.pod.info.name.clone(),
            namespace: self.pod.info.namespace.clone(),
            service_account: self.pod.info.service_account.clone(),
            slots: self.listeners.iter().map(|(slot, _)| slot as i32).collect(),
            draining: self.draining,
            app_mark: self.app_mark,
        })
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.pod.netns.as_fd()).chain(self.listeners.iter().map(|(_, fd)| fd)).collect()
    }
}

#[cfg(test)]
mod tests;
