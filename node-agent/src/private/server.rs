//! The redirector's end of the private socket: holds each pod's namespace and listeners and the proxy's last
//! state, and hands all of it to whichever proxy connects.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    MAX_MESSAGE, VERSION,
    saved::{Saved, SavedError, check_bounds},
    wire::{FromProxy, Hello, News, PodMessage, Said, ToProxy, Welcome},
};
use crate::{
    listeners::Listeners,
    seqpacket::{SeqListener, SeqPacket},
    zds::server::CapturedPod,
};

/// Messages that may wait for the proxy.
const QUEUE: usize = 64;
/// How long the proxy may take over one message.
const IO_TIME: Duration = Duration::from_secs(5);

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
    /// Processes of all proxies connected, also of those that a newer one has superseded.
    pids: Vec<i32>,
    next_id: u64,
}

#[derive(Clone, Debug)]
struct Held {
    pod: CapturedPod,
    listeners: Arc<Listeners>,
    app_mark: u32,
    draining: bool,
}

#[derive(Clone, Debug)]
struct Proxy {
    id: u64,
    letters: mpsc::Sender<Letter>,
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

/// A message on its way, and who waits until it has been received.
#[derive(Debug)]
struct Letter {
    news: News,
    pod: Option<Held>,
    received: oneshot::Sender<()>,
}

impl PrivateServer {
    /// A server that holds nothing yet, and the uids of pods whose last captured connection has ended.
    #[must_use]
    pub fn new() -> (Self, Drained) {
        let (state, drained) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { state, drained, connected: watch::Sender::new(false) });
        let server = Self { shared };
        (server.clone(), Drained(server))
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
        self.state().pids.contains(&pid)
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
        self.send(held.message(), Some(held)).await;
    }

    /// Hands a held pod's listeners to the proxy again, after it failed to start serving the pod.
    pub async fn hand_again(&self, uid: &str) {
        let held = self.state().pods.get(uid).cloned();
        if let Some(held) = held {
            self.send(held.message(), Some(held)).await;
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
        self.send(if draining { News::Draining(uid) } else { News::Resumed(uid) }, None).await;
    }

    /// Closes a pod's listeners on this side and tells the proxy to.
    pub async fn release(&self, uid: &str) {
        let held = {
            let mut state = self.state();
            state.drained.remove(uid);
            state.pods.remove(uid)
        };
        if held.is_some() {
            self.send(News::Removed(uid.to_owned()), None).await;
        }
    }

    /// Sends to the proxy and waits until it has been received; a proxy that goes away meanwhile gets the same
    /// from the hand-over when it is back.
    async fn send(&self, news: News, pod: Option<Held>) {
        let proxy = self.state().proxy.clone();
        let Some(proxy) = proxy else { return };
        let (received, waiting) = oneshot::channel();
        if proxy.letters.send(Letter { news, pod, received }).await.is_ok() {
            let _ = waiting.await;
        }
    }

    /// Accepts proxies at `path` until dropped.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub fn serve(&self, path: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
        let listener = SeqListener::bind(path)?;
        Ok(self.clone().accept_all(listener))
    }

    async fn accept_all(self, listener: SeqListener) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(socket) => { connections.spawn(self.clone().serve_proxy(socket)); }
                    Err(error) => {
                        warn!(%error, "cannot accept a proxy on the private socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve_proxy(self, socket: SeqPacket) {
        if let Err(reason) = expect_hello(&socket).await {
            warn!(reason, "a client of the private socket was turned away");
            let refusal = ToProxy { sequence: 0, news: Some(News::Refused(reason)) };
            let _ = socket.send(&refusal.encode_to_vec(), &[]).await;
            return;
        }
        let pid = socket.peer_pid().unwrap_or_default();
        self.state().pids.push(pid);
        let (id, saved, pods, mut letters) = self.connect();
        info!(pods = pods.len(), state = !saved.is_empty(), "handing everything over to a new proxy");
        let outcome = async {
            hand_over(&socket, &saved, &pods).await?;
            self.converse(id, &socket, &mut letters).await
        };
        let reason = outcome.await.err().unwrap_or_default();
        self.disconnect(id, pid);
        info!(reason, "the proxy has left the private socket");
    }

    /// Becomes the current proxy and takes the snapshot in one step; the one before learns that it is superseded.
    fn connect(&self) -> (u64, Arc<[Saved]>, Vec<Held>, mpsc::Receiver<Letter>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (id, saved, pods) = {
            let mut state = self.state();
            state.next_id += 1;
            let id = state.next_id;
            // With its sender gone the one before finds its letters at an end.
            state.proxy = Some(Proxy { id, letters: sender });
            // Before anybody reads it: what the one before writes from now on would be in no successor's state.
            if let Err(error) = seal(&state.saved) {
                warn!(%error, "the saved state is dropped; the proxy will ask the controller for all");
                state.saved = Arc::default();
            }
            (id, state.saved.clone(), state.pods.values().cloned().collect())
        };
        self.shared.connected.send_replace(true);
        (id, saved, pods, receiver)
    }

    fn disconnect(&self, id: u64, pid: i32) {
        let mut state = self.state();
        if let Some(index) = state.pids.iter().position(|known| *known == pid) {
            state.pids.swap_remove(index);
        }
        if state.proxy.as_ref().is_some_and(|proxy| proxy.id == id) {
            state.proxy = None;
            drop(state);
            self.shared.connected.send_replace(false);
        }
    }

    /// Passes letters on, each until it has been received, and listens to what the proxy says in between.
    async fn converse(
        &self,
        id: u64,
        socket: &SeqPacket,
        letters: &mut mpsc::Receiver<Letter>,
    ) -> Result<(), String> {
        let mut sequence = 0;
        let mut closed = false;
        loop {
            tokio::select! {
                letter = letters.recv(), if !closed => {
                    let Some(letter) = letter else {
                        // A newer proxy has taken this one's place. Nothing more will be sent, but it may still speak.
                        closed = true;
                        send(socket, 0, News::Superseded(true), None).await?;
                        continue;
                    };
                    sequence += 1;
                    send(socket, sequence, letter.news, letter.pod.as_ref()).await?;
                    timeout(IO_TIME, self.hear_until(id, socket, sequence))
                        .await
                        .map_err(|_| "it did not take a message in")??;
                    let _ = letter.received.send(());
                }
                said = hear(socket) => match said? {
                    Some((said, fds)) => self.take_in(id, said, fds),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn hear_until(&self, id: u64, socket: &SeqPacket, sequence: u64) -> Result<(), String> {
        while let Some((said, fds)) = hear(socket).await? {
            if said == Said::Received(sequence) {
                return Ok(());
            }
            self.take_in(id, said, fds);
        }
        Err("closed before taking a message in".into())
    }

    fn take_in(&self, id: u64, said: Said, fds: Vec<std::os::fd::OwnedFd>) {
        match said {
            Said::Store(_) => self.keep(id, fds),
            Said::Drained(uid) => {
                let mut state = self.state();
                // Only of pods that are leaving, so that there are never more than pods.
                if state.pods.get(&uid).is_some_and(|held| held.draining) {
                    state.drained.insert(uid);
                    self.shared.drained.notify_one();
                }
            }
            Said::Hello(_) | Said::Received(_) => {}
        }
    }
    /// Keeps what a proxy leaves to its successor; of the current proxy only, as the others have theirs already.
    fn keep(&self, id: u64, fds: Vec<std::os::fd::OwnedFd>) {
        let accepted = fds.into_iter().map(Saved::accept_growing).collect::<Result<Arc<[Saved]>, _>>();
        let mut state = self.state();
        if state.proxy.as_ref().is_none_or(|proxy| proxy.id != id) {
            return;
        }
        // None rather than the one before: what it lacks may be a policy.
        state.saved = accepted
            .and_then(|saved| check_bounds(&saved).map(|()| saved))
            .inspect_err(|error| warn!(%error, "a saved state was not kept"))
            .unwrap_or_default();
    }
}

/// Makes what is kept fit to be handed over.
fn seal(saved: &[Saved]) -> Result<(), SavedError> {
    saved.iter().try_for_each(Saved::seal)?;
    check_bounds(saved)
}

impl Held {
    fn message(&self) -> News {
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

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.pod.netns.as_fd()).chain(self.listeners.iter().map(|(_, fd)| fd)).collect()
    }
}

async fn expect_hello(socket: &SeqPacket) -> Result<(), String> {
    let said = timeout(IO_TIME, hear(socket)).await.map_err(|_| "no hello in time")??;
    match said {
        Some((Said::Hello(Hello { oldest, newest }), _)) if (oldest..=newest).contains(&VERSION) => Ok(()),
        Some((Said::Hello(Hello { oldest, newest }), _)) => Err(format!(
            "the proxy speaks versions {oldest} to {newest} of the private socket, the redirector {VERSION}: \
             install both from one release"
        )),
        Some(_) => Err("it did not begin with a hello".into()),
        None => Err("closed before its hello".into()),
    }
}

/// Everything in one go; nothing is asked in between, so a hundred pods take about a millisecond.
async fn hand_over(socket: &SeqPacket, saved: &[Saved], pods: &[Held]) -> Result<(), String> {
    let welcome = ToProxy {
        sequence: 0,
        news: Some(News::Welcome(Welcome { version: VERSION, state: !saved.is_empty() })),
    };
    let state: Vec<_> = saved.iter().map(AsFd::as_fd).collect();
    let all = async {
        socket.send(&welcome.encode_to_vec(), &state).await.map_err(|error| error.to_string())?;
        for held in pods {
            send(socket, 0, held.message(), Some(held)).await?;
        }
        send(socket, 0, News::Complete(true), None).await
    };
    timeout(IO_TIME, all).await.map_err(|_| "it did not take the hand-over in")?
}

async fn send(socket: &SeqPacket, sequence: u64, news: News, pod: Option<&Held>) -> Result<(), String> {
    let bytes = ToProxy { sequence, news: Some(news) }.encode_to_vec();
    let fds = pod.map(Held::descriptors).unwrap_or_default();
    socket.send(&bytes, &fds).await.map_err(|error| error.to_string())
}

/// The next thing the proxy says; `None` when it has left.
async fn hear(socket: &SeqPacket) -> Result<Option<(Said, Vec<std::os::fd::OwnedFd>)>, String> {
    let Some(packet) = socket.receive(MAX_MESSAGE).await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let message = FromProxy::decode(packet.bytes.as_slice())
        .map_err(|error| format!("not one of our messages: {error}"))?;
    let said = message.said.ok_or("a message that this version does not know")?;
    Ok(Some((said, packet.fds)))
}

#[cfg(test)]
mod tests;
