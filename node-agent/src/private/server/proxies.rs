//! The conversations with proxies: each gets everything at once when it connects, and from then on what changes. One
//! that another takes the place of learns the way to it.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::{
    Held, PrivateServer,
    talk::{Caller, IO_TIME, expect_hello, fds, hand_over, hear, send},
};
use crate::{
    private::{
        saved::{Saved, SavedError, check_bounds},
        wire::{News, Said, ToProxy},
    },
    seqpacket::{self, SeqListener, SeqPacket, in_time},
};

/// Messages that may wait for the proxy.
const QUEUE: usize = 64;
/// Successors that a superseded proxy may not have heard of yet.
const SUCCESSORS: usize = 4;
/// From this version on proxies hand connections over to one another.
const HANDS_OVER: u32 = 2;

/// A connected proxy. Its socket is also here, so that another redirector can take it over.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) id: u64,
    pub(super) pid: i32,
    pub(super) version: u32,
    pub(super) socket: Arc<SeqPacket>,
    /// The last sequence number it was sent.
    pub(super) sequence: Arc<AtomicU64>,
    /// Takes the ends of sockets to successors.
    pub(super) successors: mpsc::Sender<OwnedFd>,
}

/// The proxy that all news go to.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) connected: Connected,
    pub(super) letters: mpsc::Sender<Letter>,
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

/// A message on its way, and who waits until it has been received.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) news: News,
    pub(super) pod: Option<Held>,
    pub(super) received: oneshot::Sender<()>,
}

impl PrivateServer {
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
        let outcome = async {
            if !mail.letters.is_closed() {
                let pods: Vec<_> = self.state().pods.values().cloned().collect();
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
            // Not kept for the conversation: a listener of a pod that has left, held here, would go on getting its part of
            // the pod's connections once it has joined again, and nobody would accept them.
            drop((saved, pods, predecessors));
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
                    in_time(IO_TIME, self.hear_until(id, socket, sequence))
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
            Said::Leaving(_) => {
                if self.state().proxy.as_ref().is_some_and(|proxy| proxy.connected.id == id) {
                    self.shared.leaving.notify_one();
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
