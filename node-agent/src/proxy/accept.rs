//! The acceptors of a pod: one task for each of its listeners, on the pod's home thread. An accepted socket is not
//! registered with a reactor before it is on the thread that will carry it.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::address::{OriginalDestination, PeerAddress};
use socket2::SockRef;
use tokio::task::AbortHandle;

use super::places::Place;
use super::pod::Pod;
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
            if !other.try_send(Job::Tunnel { pod: pod.clone(), socket, peer, local, place }) {
                tracing::warn!(%peer, "a worker has too much to do, refusing a tunnel");
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
            match ready.try_io(|listener| accept(listener.get_ref(), &pod, slot)) {
                Ok(Ok(Some(accepted))) => handle(&worker, &pod, accepted),
                Ok(Ok(None)) => {
                    tracing::debug!(pod = %pod.name, ?slot, "too much is under way, closing a connection")
                }
                Ok(Err(error)) => {
                    // The client left again, or we are out of something; neither ends the listener.
                    tracing::debug!(%error, "accept failed");
                    if is_shortage(&error) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(_would_block) => break,
            }
        }
        tokio::task::yield_now().await;
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
fn accept(listener: &TcpListener, pod: &Pod, slot: Slot) -> io::Result<Option<Accepted>> {
    let (socket, peer) = accept_stream(listener.as_fd())?;
    let reference = SockRef::from(&socket);
    let peer = PeerAddress::new(peer);
    let (place, destination) = match slot {
        Slot::Outbound => (pod.places.outbound(), original_destination(&reference)),
        Slot::Inbound => (pod.places.plaintext(), original_destination(&reference)),
        _ => (pod.places.tunnel(peer.ip()), socket.local_addr().map(canonical)),
    };
    let Some(place) = place else {
        // Never an empty success.
        finish::reset(&reference);
        return Ok(None);
    };
    Ok(Some(Accepted { socket, peer, destination: OriginalDestination::new(destination?), place }))
}
