//! The threads that carry requests: each has a runtime, tunnels, connections to endpoints and counters of its own and
//! shares only what the mesh looks like, so that no request waits for another thread.

use std::cell::Cell;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hbone::account::Account;
use hbone::fairness;
use hbone::pool::Pool;
use model::Identity;
use model::address::{NextHop, PeerAddress};
use model::traffic::TcpKeepalive;
use proxy::trust::Tunnels;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use xds::state::Revision;

use crate::Waypoint;
use crate::balance::Clusters;
use crate::listen;
use crate::telemetry::Shard;
use crate::upstream::{DialError, Pools};
use daemon::start::StartError;

/// Tunnels that may wait for a thread.
const MAILBOX: usize = 1024;
/// How often idle tunnels and connections are looked for.
const TICK: Duration = Duration::from_secs(1);

/// A tunnel that was accepted, on its way to its thread.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) peer: PeerAddress,
    /// Whom it is charged to.
    pub(crate) account: Arc<Account>,
}

/// Tunnels that may be shared: to one address that may prove to be one of some, with the same probes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TunnelKey {
    pub(crate) expect: Arc<[Identity]>,
    pub(crate) next_hop: NextHop,
    /// Probes on its socket.
    pub(crate) keepalive: Option<TcpKeepalive>,
}

/// How others reach a thread.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    accepted: mpsc::Sender<Accepted>,
    tunnels: Arc<AtomicUsize>,
    dialled: Arc<AtomicUsize>,
}

impl Handle {
    /// Gives the thread a tunnel to serve.
    ///
    /// # Errors
    /// The tunnel itself: the thread has ended or has far too much to do.
    pub(crate) fn try_send(&self, accepted: Accepted) -> Result<(), Box<Accepted>> {
        self.accepted.try_send(accepted).map_err(|error| match error {
            TrySendError::Full(accepted) | TrySendError::Closed(accepted) => Box::new(accepted),
        })
    }

    /// Tunnels that the thread serves, or is about to.
    pub(crate) fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// Counts a tunnel that the thread has opened until the guard is dropped.
    pub(crate) fn dialled(&self) -> Serving {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        Serving(self.dialled.clone())
    }

    /// Counts a tunnel until the guard is dropped.
    pub(crate) fn serving(&self) -> Serving {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
        Serving(self.tunnels.clone())
    }
}

/// Counts a tunnel while it lasts.
#[derive(Debug)]
pub(crate) struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A thread not yet started.
#[derive(Debug)]
pub(crate) struct Mailbox(mpsc::Receiver<Accepted>);

/// Makes a thread's mailbox.
pub(crate) fn mailbox() -> (Handle, Mailbox) {
    let (accepted, receiver) = mpsc::channel(MAILBOX);
    (Handle { accepted, tunnels: Arc::default(), dialled: Arc::default() }, Mailbox(receiver))
}

/// A thread's own side.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) waypoint: Arc<Waypoint>,
    /// Tunnels to endpoints and other waypoints.
    pub(crate) tunnels: Pool<TunnelKey, DialError>,
    /// HTTP connections to endpoints.
    pub(crate) pools: Pools,
    /// Whose turn it is among the endpoints of services.
    pub(crate) clusters: Clusters,
    /// Copies of requests under way.
    pub(crate) copies: Cell<usize>,
    /// How often what is known has changed.
    pub(crate) revision: watch::Receiver<Revision>,
    /// What the tunnels that this waypoint opens are charged to.
    pub(crate) account: Arc<Account>,
    /// Its tunnels, by the certificates at their ends.
    pub(crate) trusted: Tunnels,
    /// This thread's counters.
    pub(crate) shard: Arc<Shard>,
    pub(crate) index: usize,
}

impl Worker {
    /// The thread's handle, as the others see it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.waypoint.workers[self.index]
    }
}

/// The threads.
pub(crate) type Threads = Vec<std::thread::JoinHandle<()>>;

/// Starts all threads; they end with the process.
///
/// # Errors
/// One could not be made.
pub(crate) fn start_all(waypoint: &Arc<Waypoint>, mailboxes: Vec<Mailbox>) -> Result<Threads, StartError> {
    let start = |(index, mailbox)| start(index, waypoint.clone(), mailbox);
    let started = mailboxes.into_iter().enumerate().map(start).collect::<Result<_, _>>();
    started.map_err(|error| StartError::System("a worker thread could not be started", error))
}

fn start(
    index: usize,
    waypoint: Arc<Waypoint>,
    mailbox: Mailbox,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run(index, waypoint, mailbox)),
            Err(error) => {
                tracing::error!(%error, "a worker's runtime could not be made; check the limit of open files");
            }
        }
    })
}

async fn run(index: usize, waypoint: Arc<Waypoint>, Mailbox(mut accepted): Mailbox) {
    let worker = Rc::new(Worker {
        tunnels: Pool::new(&waypoint.limits),
        pools: Pools::default(),
        clusters: Clusters::default(),
        copies: Cell::default(),
        revision: waypoint.state.changes(),
        account: Account::listed(hbone::account::AccountLimits::default(), &waypoint.ledger),
        trusted: Tunnels::new(&waypoint.trust),
        shard: waypoint.telemetry.shard(index),
        waypoint,
        index,
    });
    let mut follow_replaced = tokio::task::spawn_local(evict_on_change(worker.clone()));
    let mut follow_trust = tokio::task::spawn_local(follow_trust(worker.clone()));
    let mut turns = tokio::task::spawn_local(fairness::drive());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ending = false;
    loop {
        tokio::select! {
            // Endpoints are told that nothing more comes, rather than find out.
            () = worker.waypoint.ending.last_call(), if !ending => {
                ending = true;
                worker.pools.evict(|_| true);
                worker.tunnels.evict(|_| true);
            }
            accepted = accepted.recv() => match accepted {
                Some(accepted) => { tokio::task::spawn_local(listen::serve(worker.clone(), accepted)); }
                None => break,
            },
            // Without it a connection might go to whoever has an address after the pod that it was meant for.
            _ = &mut follow_replaced => break,
            // Without it a tunnel to who is trusted no more would stay.
            _ = &mut follow_trust => break,
            // Without it some would wait for their turn for ever.
            _ = &mut turns => break,
            _ = tick.tick() => {
                worker.tunnels.release_idle();
                worker.pools.release_idle(worker.waypoint.bounds.upstream_idle);
                hbone::transport::settle();
                fairness::settle();
            }
        }
    }
    follow_replaced.abort();
    follow_trust.abort();
    turns.abort();
}

/// Judges the thread's tunnels again whenever other certificates count.
async fn follow_trust(worker: Rc<Worker>) {
    worker.trusted.follow().await;
}

/// Gives up what goes to addresses whose workload went away: the address may be another pod's soon.
async fn evict_on_change(worker: Rc<Worker>) {
    let mut replaced = worker.waypoint.state.replaced();
    loop {
        match replaced.recv().await {
            Ok(gone) => {
                let is_gone = |ip| gone.iter().any(|workload| workload.addresses.contains(&ip));
                worker.tunnels.evict(|key| is_gone(key.next_hop.ip()));
                worker.pools.evict(is_gone);
            }
            // Which of them went is not known any more: one too many is opened rather than one kept.
            Err(RecvError::Lagged(_)) => {
                worker.tunnels.evict(|_| true);
                worker.pools.evict(|_| true);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Waits until no thread has a tunnel to an endpoint any more.
pub(crate) async fn hung_up(waypoint: &Waypoint) {
    const LOOK: Duration = Duration::from_millis(5);
    while waypoint.workers.iter().any(|worker| worker.dialled.load(Ordering::Relaxed) > 0) {
        sleep(LOOK).await;
    }
}

/// Waits until no thread serves a tunnel any more.
pub(crate) async fn drained(waypoint: &Waypoint) {
    const LOOK: Duration = Duration::from_millis(20);
    while waypoint.workers.iter().any(|worker| worker.tunnels() > 0) {
        sleep(LOOK).await;
    }
}
