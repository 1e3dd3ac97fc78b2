//! The redirector's end of the private socket: holds each pod's namespace and listeners and the proxy's last
//! state, and hands all of it to whichever proxy connects.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    MAX_MESSAGE, OLDEST_VERSION, VERSION,
    saved::{Saved, SavedError, check_bounds},
    takeover::{Taken, TakenProxy},
    wire::{FromProxy, Hello, News, PodMessage, Said, ToProxy, Welcome},
};
use crate::{
    listeners::Listeners,
    seqpacket::{self, SeqListener, SeqPacket},
    zds::server::CapturedPod,
};

/// Messages that may wait for the proxy.
const QUEUE: usize = 64;
/// Successors that a superseded proxy may not have heard of yet.
const SUCCESSORS: usize = 4;
/// From this version on proxies hand connections over to one another.
const HANDS_OVER: u32 = 2;
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
    /// Another redirector that wants everything, until it is asked for.
    heir: Mutex<Option<SeqPacket>>,
    heir_came: Notify,
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

/// A connected proxy. Its socket is also here, so that another redirector can take it over.
#[derive(Clone, Debug)]
struct Connected {
    id: u64,
    pid: i32,
    version: u32,
    socket: Arc<SeqPacket>,
    /// The last sequence number it was sent.
    sequence: Arc<AtomicU64>,
    /// Takes the ends of sockets to successors.
    successors: mpsc::Sender<OwnedFd>,
}

/// The proxy that all news go to.
#[derive(Clone, Debug)]
struct Proxy {
    connected: Connected,
    letters: mpsc::Sender<Letter>,
}

/// What a new proxy begins with.
struct Beginning {
    connected: Connected,
    saved: Arc<[Saved]>,
    pods: Vec<Held>,
    predecessors: Vec<OwnedFd>,
    mail: Mail,
}

/// What comes for a connected proxy.
struct Mail {
    letters: mpsc::Receiver<Letter>,
    successors: mpsc::Receiver<OwnedFd>,
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
        });
        let server = Self { shared };
        (server.clone(), Drained(server))
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
        for (connected, mail) in self.take_up() {
            connections.spawn(self.clone().go_on_with(connected, mail));
        }
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

    /// The proxies that are connected already, with new letter boxes: another redirector's, or this one's own after it
    /// could not hand them over.
    fn take_up(&self) -> Vec<(Connected, Mail)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        for connected in &mut state.superseded {
            // Without a sender there are no letters, and it is told of its successors only.
            let letters = mpsc::channel(1).1;
            let (sender, successors) = mpsc::channel(SUCCESSORS);
            connected.successors = sender;
            taken.push((connected.clone(), Mail { letters, successors }));
        }
        if let Some(proxy) = &mut state.proxy {
            let (letters_sender, letters) = mpsc::channel(QUEUE);
            let (sender, successors) = mpsc::channel(SUCCESSORS);
            (proxy.letters, proxy.connected.successors) = (letters_sender, sender);
            taken.push((proxy.connected.clone(), Mail { letters, successors }));
        }
        taken
    }

    /// Goes on with a proxy that is connected already. What it was being told when its conversation broke off, it is told
    /// again.
    async fn go_on_with(self, connected: Connected, mut mail: Mail) {
        let pods: Vec<_> = self.state().pods.values().cloned().collect();
        let outcome = async {
            if !mail.letters.is_closed() {
                for held in pods {
                    send(&connected.socket, 0, held.message(), &held.descriptors()).await?;
                }
            }
            self.converse(&connected, &mut mail).await
        };
        let reason = outcome.await.err().unwrap_or_default();
        self.disconnect(connected.id);
        info!(reason, "the proxy has left the private socket");
    }

    async fn serve_proxy(self, socket: SeqPacket) {
        let version = match expect_hello(&socket).await {
            Ok(Caller::Proxy(version)) => version,
            Ok(Caller::Heir) => {
                *self.shared.heir.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
                return self.shared.heir_came.notify_one();
            }
            Err(reason) => {
                warn!(reason, "a client of the private socket was turned away");
                let refusal = ToProxy { sequence: 0, news: Some(News::Refused(reason)) };
                let _ = socket.send(&refusal.encode_to_vec(), &[]).await;
                return;
            }
        };
        let Beginning { connected, saved, pods, predecessors, mut mail } = self.connect(socket, version);
        info!(pods = pods.len(), state = !saved.is_empty(), "handing everything over to a new proxy");
        let outcome = async {
            hand_over(&connected.socket, version, &saved, &pods, &predecessors).await?;
            drop(predecessors);
            self.converse(&connected, &mut mail).await
        };
        let reason = outcome.await.err().unwrap_or_default();
        self.disconnect(connected.id);
        info!(reason, "the proxy has left the private socket");
    }

    /// Becomes the current proxy and takes the snapshot in one step; the one before learns that it is superseded.
    fn connect(&self, socket: SeqPacket, version: u32) -> Beginning {
        let (sender, letters) = mpsc::channel(QUEUE);
        let (successor_sender, successors) = mpsc::channel(SUCCESSORS);
        let beginning = {
            let mut state = self.state();
            state.next_id += 1;
            let connected = Connected {
                id: state.next_id,
                pid: socket.peer_pid().unwrap_or_default(),
                version,
                socket: Arc::new(socket),
                sequence: Arc::default(),
                successors: successor_sender,
            };
            // With its sender gone the one before finds its letters at an end.
            let before = state.proxy.replace(Proxy { connected: connected.clone(), letters: sender });
            state.superseded.extend(before.map(|before| before.connected));
            let predecessors = if version >= HANDS_OVER { introduce(&state.superseded) } else { Vec::new() };
            // Before anybody reads it: what the one before writes from now on would be in no successor's state.
            if let Err(error) = seal(&state.saved) {
                warn!(%error, "the saved state is dropped; the proxy will ask the controller for all");
                state.saved = Arc::default();
            }
            let pods = state.pods.values().cloned().collect();
            let mail = Mail { letters, successors };
            Beginning { connected, saved: state.saved.clone(), pods, predecessors, mail }
        };
        self.shared.connected.send_replace(true);
        beginning
    }

    fn disconnect(&self, id: u64) {
        let mut state = self.state();
        state.superseded.retain(|other| other.id != id);
        if state.proxy.as_ref().is_some_and(|proxy| proxy.connected.id == id) {
            state.proxy = None;
            drop(state);
            self.shared.connected.send_replace(false);
        }
    }

    /// Passes letters on, each until it has been received, and listens to what the proxy says in between.
    async fn converse(&self, connected: &Connected, mail: &mut Mail) -> Result<(), String> {
        let Connected { id, socket, .. } = connected;
        let id = *id;
        let mut superseded = false;
        loop {
            tokio::select! {
                letter = mail.letters.recv(), if !superseded => {
                    let Some(letter) = letter else {
                        // A newer proxy has taken this one's place. Nothing more will be sent but the way to that and to
                        // those after it, but it may still speak.
                        superseded = true;
                        let successor = mail.successors.try_recv().ok();
                        send(socket, 0, News::Superseded(true), &fds(successor.as_ref())).await?;
                        continue;
                    };
                    let sequence = connected.sequence.fetch_add(1, Ordering::Relaxed) + 1;
                    let descriptors = letter.pod.as_ref().map(Held::descriptors).unwrap_or_default();
                    send(socket, sequence, letter.news, &descriptors).await?;
                    timeout(IO_TIME, self.hear_until(id, socket, sequence))
                        .await
                        .map_err(|_| "it did not take a message in")??;
                    let _ = letter.received.send(());
                }
                Some(successor) = mail.successors.recv(), if superseded => {
                    send(socket, 0, News::Superseded(true), &fds(Some(&successor))).await?;
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

    fn take_in(&self, id: u64, said: Said, fds: Vec<OwnedFd>) {
        match said {
            Said::Store(_) => self.keep(id, fds),
            Said::Drained(uid) => {
                let mut state = self.state();
                // Only of pods that are leaving, so that there are never more than pods; and only by the current proxy,
                // as what another has no more may have been handed over to it.
                let current = state.proxy.as_ref().is_some_and(|proxy| proxy.connected.id == id);
                if current && state.pods.get(&uid).is_some_and(|held| held.draining) {
                    state.drained.insert(uid);
                    self.shared.drained.notify_one();
                }
            }
            Said::Hello(_) | Said::Received(_) | Said::TakeOver(_) | Said::Taken(_) => {}
        }
    }

    /// Keeps what a proxy leaves to its successor; of the current proxy only, as the others have theirs already.
    fn keep(&self, id: u64, fds: Vec<OwnedFd>) {
        let accepted = fds.into_iter().map(Saved::accept_growing).collect::<Result<Arc<[Saved]>, _>>();
        let mut state = self.state();
        if state.proxy.as_ref().is_none_or(|proxy| proxy.connected.id != id) {
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

/// A socket from each superseded proxy to a new one; the ends for the new one.
fn introduce(superseded: &[Connected]) -> Vec<OwnedFd> {
    let capable = superseded.iter().filter(|before| before.version >= HANDS_OVER);
    let introduced = capable.filter_map(|before| {
        let (theirs, ours) = seqpacket::pair()
            .inspect_err(|error| warn!(%error, "connections cannot be handed over to the new proxy"))
            .ok()?;
        // One with so many successors unheard does not listen any more.
        before.successors.try_send(theirs).ok()?;
        Some(ours)
    });
    introduced.collect()
}

/// Who has come.
enum Caller {
    /// A proxy, and the version to speak with it.
    Proxy(u32),
    /// Another redirector.
    Heir,
}

async fn expect_hello(socket: &SeqPacket) -> Result<Caller, String> {
    let said = timeout(IO_TIME, hear(socket)).await.map_err(|_| "no hello in time")??;
    let (Hello { oldest, newest }, caller) = match said {
        Some((Said::Hello(hello), _)) => (hello, Caller::Proxy(hello.newest.min(VERSION))),
        Some((Said::TakeOver(hello), _)) => (hello, Caller::Heir),
        Some(_) => return Err("it did not begin with a hello".into()),
        None => return Err("closed before its hello".into()),
    };
    if oldest <= VERSION && newest >= OLDEST_VERSION {
        return Ok(caller);
    }
    Err(format!(
        "it speaks versions {oldest} to {newest} of the private socket, the redirector {OLDEST_VERSION} to {VERSION}: \
         install both from one release, or from two that follow each other"
    ))
}

/// Everything in one go; nothing is asked in between, so a hundred pods take about a millisecond.
async fn hand_over(
    socket: &SeqPacket,
    version: u32,
    saved: &[Saved],
    pods: &[Held],
    predecessors: &[OwnedFd],
) -> Result<(), String> {
    let welcome =
        ToProxy { sequence: 0, news: Some(News::Welcome(Welcome { version, state: !saved.is_empty() })) };
    let state: Vec<_> = saved.iter().map(AsFd::as_fd).collect();
    let all = async {
        socket.send(&welcome.encode_to_vec(), &state).await.map_err(|error| error.to_string())?;
        for held in pods {
            send(socket, 0, held.message(), &held.descriptors()).await?;
        }
        send(socket, 0, News::Complete(true), &[]).await?;
        for predecessor in predecessors {
            send(socket, 0, News::Predecessor(true), &[predecessor.as_fd()]).await?;
        }
        Ok(())
    };
    timeout(IO_TIME, all).await.map_err(|_| "it did not take the hand-over in")?
}

fn fds(one: Option<&OwnedFd>) -> Vec<BorrowedFd<'_>> {
    one.into_iter().map(AsFd::as_fd).collect()
}

pub(super) async fn send(
    socket: &SeqPacket,
    sequence: u64,
    news: News,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), String> {
    let bytes = ToProxy { sequence, news: Some(news) }.encode_to_vec();
    socket.send(&bytes, descriptors).await.map_err(|error| error.to_string())
}

/// The next thing the proxy says; `None` when it has left.
pub(super) async fn hear(socket: &SeqPacket) -> Result<Option<(Said, Vec<OwnedFd>)>, String> {
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
