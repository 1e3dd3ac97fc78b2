//! The acceptors of a pod: one task for each of its listeners, on the pod's home thread. An accepted socket is not
//! registered with a reactor before it is on the thread that will carry it.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::fairness::{self, OPENING};
use model::address::{OriginalDestination, PeerAddress};
use socket2::SockRef;
use tokio::task::AbortHandle;

use super::limits::Limit;
use super::places::{NoPlace, Place};
use super::pod::Pod;
use super::record::refused_early;
use super::worker::{Job, Worker};
use super::{dns, finish, inbound, outbound, plaintext};
use crate::listeners::{Listeners, Slot};
use crate::socket::{
    accept_stream, canonical, original_destination, set_congestion_control, stays_on_host, tune_tcp,
    watch_listener,
};

/// Connections taken from a listener before others get their turn.
const BATCH: usize = 32;
/// Pause after a failed accept: out of descriptors does not get better by trying at once.
const PAUSE: Duration = Duration::from_millis(20);

/// What is said of a connection that a thread had no time for.
pub(crate) const MAILBOX_FULL: &str =
    "too many jobs wait for the thread that was to carry it; give the node agent more CPU or WORKER_THREADS";

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The socket, registered nowhere yet.
    pub(crate) socket: TcpStream,
    /// Who connected.
    pub(crate) peer: PeerAddress,
    /// Where it was going before the rules caught it; our end if they did not.
    pub(crate) destination: OriginalDestination,
    /// Its place among what is under way: given back when it is open, a tunnel's when it ends.
    pub(crate) place: Place,
}

/// Starts the acceptors of a pod and returns the means to end them.
pub(crate) fn start(worker: &Rc<Worker>, pod: &Arc<Pod>, mut listeners: Listeners) -> Vec<AbortHandle> {
    let mut tasks = Vec::new();
    for slot in [Slot::Outbound, Slot::Inbound, Slot::Hbone] {
        let Some(listener) = listeners.take(slot) else { continue };
        let task = tokio::task::spawn_local(accept_all(worker.clone(), pod.clone(), listener, slot));
        tasks.push(task.abort_handle());
    }
    tasks.extend(dns::start(worker, pod, &mut listeners));
    tasks
}

type Handler = fn(&Rc<Worker>, &Arc<Pod>, Accepted);

fn handler(slot: Slot) -> Handler {
    match slot {
        Slot::Outbound => |worker, pod, accepted| {
            tokio::task::spawn_local(outbound::serve(worker.clone(), pod.clone(), accepted));
        },
        Slot::Inbound => |worker, pod, accepted| {
            tokio::task::spawn_local(plaintext::serve(worker.clone(), pod.clone(), accepted));
        },
        _ => place_tunnel,
    }
}

/// Serves a tunnel on the thread that serves fewest, which is this one if they are equal.
fn place_tunnel(worker: &Rc<Worker>, pod: &Arc<Pod>, accepted: Accepted) {
    let Accepted { socket, peer, destination, place } = accepted;
    let local = destination.addr();
    let own = worker.agent.workers[worker.index].tunnels();
    let least = worker.agent.workers.iter().min_by_key(|other| other.tunnels());
    match least {
        Some(other) if other.tunnels() < own => {
            let job = Job::Tunnel { pod: pod.clone(), socket, peer, local, place };
            if let Err(Job::Tunnel { socket, peer, local, .. }) = other.try_send(job) {
                worker.agent.hits.hit(Limit::Mailbox);
                finish::reset(&SockRef::from(&socket));
                refused_early(&worker.agent, pod, "inbound", peer, local, MAILBOX_FULL);
            }
        }
        _ => {
            tokio::task::spawn_local(inbound::serve(worker.clone(), pod.clone(), socket, peer, local, place));
        }
    }
}

async fn accept_all(worker: Rc<Worker>, pod: Arc<Pod>, listener: OwnedFd, slot: Slot) {
    let handle = handler(slot);
    if let Err(error) = tune(&SockRef::from(&listener), slot, &worker.agent.tunnel_congestion_control) {
        tracing::debug!(%error, pod = %pod.name, "a listener could not be tuned");
    }
    let listener = match watch_listener(listener.into()) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, pod = %pod.name, "a listener cannot be watched; check the limit of open files");
            return;
        }
    };
    loop {
        let Ok(mut ready) = listener.readable().await else { return };
        for _ in 0..BATCH {
            if !worker.agent.ledger.has_descriptors() {
                // What is left belongs to those who are there.
                out_of_files(&worker, None);
                tokio::time::sleep(PAUSE).await;
                break;
            }
            match ready.try_io(|listener| accept(&worker, listener.get_ref(), &pod, slot)) {
                Ok(Ok(Ok(accepted))) => {
                    // Before any await: this task may be replaced in the middle, and what it has accepted would be reset.
                    handle(&worker, &pod, accepted);
                    fairness::turn(&pod.account, OPENING).await;
                }
                Ok(Ok(Err(full))) => no_place(&worker, &pod, &slot, full),
                Ok(Err(error)) if is_shortage(&error) => {
                    out_of_files(&worker, Some(&error));
                    tokio::time::sleep(PAUSE).await;
                }
                // The client left again, which does not end the listener.
                Ok(Err(error)) => tracing::debug!(%error, "accept failed"),
                Err(_would_block) => break,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Tells of what was refused for want of a place.
pub(crate) fn no_place(worker: &Worker, pod: &Pod, of: &dyn std::fmt::Debug, full: NoPlace) {
    let hits = &worker.agent.hits;
    if full.limit().is_some_and(|limit| hits.hit_and_tell(limit)) {
        tracing::warn!(pod = %pod.name, namespace = %pod.namespace, ?of, cause = %full, "refusing connections");
    } else {
        tracing::debug!(pod = %pod.name, namespace = %pod.namespace, ?of, cause = %full, "refusing a connection");
    }
}

/// Tells that the process has no file left to open.
fn out_of_files(worker: &Worker, error: Option<&io::Error>) {
    if worker.agent.hits.hit_and_tell(Limit::OpenFiles) {
        tracing::warn!(
            limit = worker.agent.open_files,
            held_by_pods = worker.agent.ledger.descriptors(),
            error = error.map(tracing::field::display),
            "out of file descriptors, new connections wait: raise the node agent's limit of open files (ulimit -n); `lateen top pods --sort-by descriptors` says who holds them"
        );
    }
}

/// Takes one connection as the acceptor does.
#[cfg(test)]
pub(crate) fn take_one(worker: &Rc<Worker>, pod: &Arc<Pod>, listener: &TcpListener, slot: Slot) {
    if let Ok(accepted) = accept(worker, listener, pod, slot).expect("somebody has connected") {
        handler(slot)(worker, pod, accepted);
    }
}

/// What a listener has, its connections have.
fn tune(listener: &SockRef<'_>, slot: Slot, tunnel_congestion_control: &str) -> io::Result<()> {
    tune_tcp(listener)?;
    match slot {
        Slot::Outbound => stays_on_host(listener),
        Slot::Hbone => set_congestion_control(listener, tunnel_congestion_control),
        _ => Ok(()),
    }
}

/// Whether the system has run out of something. Anything else is about one connection, mostly that its client has
/// left already, and no reason to let those behind it wait.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Takes one connection, non-blocking from the start and tuned as its listener is; none if there is no place for it.
/// Tunnels are never redirected.
fn accept(
    worker: &Worker,
    listener: &TcpListener,
    pod: &Pod,
    slot: Slot,
) -> io::Result<Result<Accepted, NoPlace>> {
    let (socket, peer) = accept_stream(listener.as_fd())?;
    let reference = SockRef::from(&socket);
    let peer = PeerAddress::new(peer);
    let (place, destination) = match slot {
        Slot::Outbound => (pod.places.outbound(&pod.account), original_destination(&reference)),
        Slot::Inbound => (pod.places.plaintext(&pod.account), original_destination(&reference)),
        _ => {
            let place = pod.places.tunnel(peer.ip(), &pod.account);
            let begin = |place: Place| place.unfinished(worker.agent.handshakes.begin(&pod.uid, peer.ip()));
            (place.map(begin), socket.local_addr().map(canonical))
        }
    };
    let place = match place {
        Ok(place) => place,
        Err(full) => {
            // Never an empty success.
            finish::reset(&reference);
            return Ok(Err(full));
        }
    };
    Ok(Ok(Accepted { socket, peer, destination: OriginalDestination::new(destination?), place }))
}
