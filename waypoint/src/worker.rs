//! The threads that carry requests: each has a runtime, tunnels, connections to endpoints and counters of its own and
//! shares only what the mesh looks like, so that no request waits for another thread.

use std::cell::Cell;
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::account::Account;
use hbone::fairness;
use hbone::pool::Pool;
use model::Identity;
use model::address::{NextHop, PeerAddress};
use model::traffic::TcpKeepalive;
use proxy::threads::{self, Count, Counted, Threads};
use proxy::trust::Tunnels;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use xds::state::Revision;

use crate::Waypoint;
use crate::balance::Clusters;
use crate::telemetry::Shard;
use crate::upstream::{DialError, Pools};
use crate::{health, listen};
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
    tunnels: Count,
    dialled: Count,
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
        self.tunnels.get()
    }

    /// Counts a tunnel that the thread has opened until the guard is dropped.
    pub(crate) fn dialled(&self) -> Counted {
        self.dialled.one()
    }

    /// Counts a tunnel until the guard is dropped.
    pub(crate) fn serving(&self) -> Counted {
        self.tunnels.one()
    }
}

/// A thread not yet started.
#[derive(Debug)]
pub(crate) struct Mailbox(mpsc::Receiver<Accepted>);

/// Makes a thread's mailbox.
pub(crate) fn mailbox() -> (Handle, Mailbox) {
    let (accepted, receiver) = mpsc::channel(MAILBOX);
    (Handle { accepted, tunnels: Count::default(), dialled: Count::default() }, Mailbox(receiver))
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

/// Starts all threads; they end with the process.
///
/// # Errors
/// One could not be made.
pub(crate) fn start_all(waypoint: &Arc<Waypoint>, mailboxes: Vec<Mailbox>) -> Result<Threads, StartError> {
    let waypoint = waypoint.clone();
    threads::start(mailboxes, move |index, mailbox| run(index, waypoint.clone(), mailbox))
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
    let mut lasting = JoinSet::new();
    // Without it a connection might go to whoever has an address after the pod that it was meant for.
    lasting.spawn_local(evict_on_change(worker.clone()));
    // Without it a tunnel to who is trusted no more would stay.
    lasting.spawn_local(follow_trust(worker.clone()));
    // Without it some would wait for their turn for ever.
    lasting.spawn_local(fairness::drive());
    // Without it who fails would be asked no more, and who was left out never let in.
    lasting.spawn_local(health::drive(worker.clone()));
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
            // One has ended: the thread does, and with it the process.
            _ = lasting.join_next() => break,
            _ = tick.tick() => {
                worker.tunnels.release_idle();
                worker.pools.release_idle(worker.waypoint.bounds.upstream_idle);
                hbone::transport::settle();
                fairness::settle();
            }
        }
    }
}

/// Judges the thread's tunnels again whenever other certificates count.
async fn follow_trust(worker: Rc<Worker>) {
    worker.trusted.follow().await;
}

/// Gives up what goes to addresses whose workload went away.
async fn evict_on_change(worker: Rc<Worker>) {
    let evict = |is_gone: &dyn Fn(IpAddr) -> bool| {
        worker.tunnels.evict(|key| is_gone(key.next_hop.ip()));
        worker.pools.evict(is_gone);
    };
    worker.waypoint.state.evict_replaced(evict).await;
}

/// Waits until no thread has a tunnel to an endpoint any more.
pub(crate) async fn hung_up(waypoint: &Waypoint) {
    const LOOK: Duration = Duration::from_millis(5);
    while waypoint.workers.iter().any(|worker| worker.dialled.get() > 0) {
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
