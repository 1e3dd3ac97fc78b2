//! The threads that carry connections: each has a runtime, tunnels and connections of its own and shares only what
//! the mesh looks like, so that no connection waits for another thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hbone::fairness;
use hbone::pool::Pool;
use model::Identity;
use model::address::{NextHop, PeerAddress};
use model::plan::Tunnel;
use model::workload::Workload;
use proxy::threads::{Count, Counted};
use proxy::trust::Tunnels;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::accept::Accepted;
use super::balance::{self, Carries};
use super::carry::Carried;
use super::connections::{Connections, GONE, Listed};
use super::demand::Uses;
use super::limits::Limit;
use super::moves::Detached;
use super::places::Place;
use super::pod::Pod;
use super::{Agent, accept, inbound, moves, outbound};
use crate::listeners::Listeners;
use crate::{allocator, code};

/// Jobs that may wait for a thread.
const MAILBOX: usize = 4096;
/// How often byte counters are brought up to date and idle tunnels looked for.
const TICK: Duration = Duration::from_secs(1);

/// What a thread is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Accept for a pod.
    Serve { pod: Arc<Pod>, listeners: Listeners },
    /// A pod is gone: end all that it has here.
    Stop { uid: Arc<str> },
    /// Serve a tunnel that another thread accepted.
    Tunnel { pod: Arc<Pod>, socket: TcpStream, peer: PeerAddress, local: SocketAddr, place: Place },
    /// Carry a connection that another thread accepted and is too busy for.
    Outbound { pod: Arc<Pod>, accepted: Accepted, source: Arc<Workload>, tunnel: Box<Tunnel> },
    /// Carry on with a connection that has no tunnel.
    Arrive(Box<Detached>),
    /// Take so many of the connections off their tunnels, others than last time: a newer proxy takes them over. Says how
    /// many were asked.
    Detach { most: usize, answer: oneshot::Sender<usize> },
    /// List the connections.
    List(oneshot::Sender<Vec<Listed>>),
    /// Say what the connections here go to.
    Uses(oneshot::Sender<Uses>),
    /// Cut all connections, for this cause.
    CutAll(&'static str),
    /// Cut connections of a pod until about this much memory has come back.
    Shed { uid: Arc<str>, bytes: u64 },
}

/// Tunnels that may be shared: from one pod under one identity to one address that may prove to be one of some.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TunnelKey {
    pub(crate) pod: Arc<str>,
    pub(crate) source: Identity,
    pub(crate) expect: Arc<[Identity]>,
    pub(crate) next_hop: NextHop,
}

/// How others reach a thread.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    jobs: mpsc::Sender<Job>,
    load: Arc<Load>,
}

/// What a thread has to do, as the others see it.
#[derive(Debug, Default)]
struct Load {
    /// Tunnels that it serves.
    tunnels: Count,
    /// Bytes a second that it carried when it was last looked at.
    bytes: AtomicU64,
}

impl Handle {
    /// Gives the thread something to do.
    ///
    /// # Errors
    /// The job itself: the thread has ended or has far too much to do.
    #[expect(clippy::result_large_err, reason = "whoever cannot give a job away has to do with it himself")]
    pub(crate) fn try_send(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(TrySendError::into_inner)
    }

    /// Gives the thread something to do, waiting for its mailbox.
    pub(crate) async fn send(&self, job: Job) {
        // A thread ends only with the process.
        let _ = self.jobs.send(job).await;
    }

    /// Tunnels that the thread serves.
    pub(crate) fn tunnels(&self) -> usize {
        self.load.tunnels.get()
    }

    /// Bytes a second that the thread carried when it last looked.
    pub(crate) fn bytes(&self) -> u64 {
        self.load.bytes.load(Ordering::Relaxed)
    }
}

/// A thread's own side.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) agent: Arc<Agent>,
    pub(crate) pool: Pool<TunnelKey, super::dial::DialError>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) tunnels: Tunnels,
    load: Arc<Load>,
    /// When the bytes of its connections were last counted.
    counted: Cell<Instant>,
    acceptors: RefCell<HashMap<Arc<str>, Vec<AbortHandle>>>,
}

/// A thread not yet started: its mailbox exists before it does, so that threads can know of each other.
#[derive(Debug)]
pub(crate) struct Mailbox {
    jobs: mpsc::Receiver<Job>,
    load: Arc<Load>,
}

/// Makes a thread's mailbox.
pub(crate) fn mailbox() -> (Handle, Mailbox) {
    let (sender, jobs) = mpsc::channel(MAILBOX);
    let load = Arc::<Load>::default();
    (Handle { jobs: sender, load: load.clone() }, Mailbox { jobs, load })
}

/// What a thread does; it ends when its mailbox is dropped.
pub(crate) async fn run(index: usize, agent: Arc<Agent>, mut mailbox: Mailbox) {
    let worker = Rc::new_cyclic(|own| Worker::new(index, agent, mailbox.load.clone(), own));
    // Without the first three, policies would be skipped unseen; without the last, some would wait for their turn for ever.
    let mut lasting = JoinSet::new();
    lasting.spawn_local(judge_on_change(worker.clone()));
    lasting.spawn_local(evict_on_change(worker.clone()));
    lasting.spawn_local(follow_trust(worker.clone()));
    lasting.spawn_local(fairness::drive());
    lasting.spawn_local(balance::drive(worker.clone()));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            job = mailbox.jobs.recv() => match job {
                Some(job) => worker.take(job),
                None => break,
            },
            // One has ended: the thread does, and with it the process.
            _ = lasting.join_next() => break,
            _ = tick.tick() => {
                if worker.counted().elapsed() >= balance::LOOK {
                    worker.count(|_| {});
                }
                worker.pool.release_idle();
                hbone::transport::settle();
                if worker.connections.settle() {
                    allocator::flush_thread();
                    code::forget();
                }
                fairness::settle();
            }
        }
    }
}

impl Worker {
    fn new(index: usize, agent: Arc<Agent>, load: Arc<Load>, own: &Weak<Self>) -> Self {
        Self {
            index,
            pool: Pool::new(&agent.limits),
            tunnels: Tunnels::new(&agent.trust),
            agent,
            connections: Rc::new(Connections::new(own.clone(), index)),
            load,
            counted: Cell::new(Instant::now()),
            acceptors: RefCell::default(),
        }
    }

    /// The side of a thread that does not run: its mailbox fills up.
    #[cfg(test)]
    pub(crate) fn idle(index: usize, agent: Arc<Agent>, mailbox: &Mailbox) -> Rc<Self> {
        Rc::new_cyclic(|own| Self::new(index, agent, mailbox.load.clone(), own))
    }

    /// The side of a thread that is a task of the test's own.
    #[cfg(test)]
    pub(crate) fn among_tasks(index: usize, agent: Arc<Agent>, mut mailbox: Mailbox) -> Rc<Self> {
        let worker = Self::idle(index, agent, &mailbox);
        let own = worker.clone();
        tokio::task::spawn_local(async move {
            while let Some(job) = mailbox.jobs.recv().await {
                own.take(job);
            }
        });
        worker
    }

    fn take(self: &Rc<Self>, job: Job) {
        match job {
            Job::Serve { pod, listeners } => self.serve(&pod, listeners),
            Job::Stop { uid } => self.stop(&uid),
            Job::Tunnel { pod, socket, peer, local, place } => {
                tokio::task::spawn_local(inbound::serve(self.clone(), pod, socket, peer, local, place));
            }
            Job::Outbound { pod, accepted, source, tunnel } => {
                let carried = outbound::serve_planned(self.clone(), pod, accepted, source, *tunnel);
                tokio::task::spawn_local(carried);
            }
            Job::Arrive(detached) => {
                tokio::task::spawn_local(Carried::opening(moves::arrive(self.clone(), *detached)));
            }
            Job::Detach { most, answer } => {
                let _ = answer.send(self.connections.detach(most));
            }
            Job::List(answer) => {
                let _ = answer.send(self.connections.list());
            }
            Job::Uses(answer) => {
                let _ = answer.send(self.connections.uses());
            }
            Job::CutAll(cause) => self.connections.cut_all(cause),
            Job::Shed { uid, bytes } => {
                let (cut, freed) = self.connections.shed(&uid, bytes);
                (0..cut).for_each(|_| self.agent.hits.hit(Limit::Memory));
                tracing::info!(pod = %uid, cut, freed, "connections were cut to give memory back");
            }
        }
    }

    /// Accepts for a pod; listeners that it had before are replaced, connections stay.
    fn serve(self: &Rc<Self>, pod: &Arc<Pod>, listeners: Listeners) {
        let tasks = accept::start(self, pod, listeners);
        let old = self.acceptors.borrow_mut().insert(pod.uid.clone(), tasks);
        old.into_iter().flatten().for_each(|task| task.abort());
    }

    fn stop(&self, uid: &Arc<str>) {
        let tasks = self.acceptors.borrow_mut().remove(uid);
        tasks.into_iter().flatten().for_each(|task| task.abort());
        self.pool.evict(|key| key.pod == *uid);
        self.connections.cut_pod(uid, GONE);
    }

    /// Counts a tunnel served until the guard is dropped.
    pub(crate) fn served(&self) -> Counted {
        self.load.tunnels.one()
    }

    /// Brings all byte counters up to date, and what others see of this thread's load. `each` is told of the connections
    /// that may go on on another thread. Returns the time since it was last done.
    pub(crate) fn count(&self, each: impl FnMut(Carries)) -> Duration {
        let elapsed = self.counted.replace(Instant::now()).elapsed();
        let rate = balance::rate(self.connections.count(each), elapsed);
        self.load.bytes.store(rate, Ordering::Relaxed);
        elapsed
    }

    /// When that was last done.
    pub(crate) fn counted(&self) -> Instant {
        self.counted.get()
    }

    /// Bytes a second that it carried when it was last looked at.
    pub(crate) fn bytes(&self) -> u64 {
        self.load.bytes.load(Ordering::Relaxed)
    }

    /// The thread that should have some of what this one carries, and its number: this one is busy and that one is not.
    pub(crate) fn less_busy(&self) -> Option<(usize, &Handle)> {
        let own = self.bytes();
        if own < self.agent.thread_busy {
            return None;
        }
        let least = self.agent.workers.iter().enumerate().min_by_key(|(_, other)| other.bytes());
        least.filter(|(_, other)| balance::is_uneven(own, other.bytes()))
    }
}

/// Judges the thread's tunnels again whenever other certificates count.
async fn follow_trust(worker: Rc<Worker>) {
    worker.tunnels.follow().await;
}

/// Judges the thread's connections again whenever a rule changes.
async fn judge_on_change(worker: Rc<Worker>) {
    let mut changes = worker.agent.state.changes();
    let mut judged = changes.borrow().rules;
    let mut again = None;
    loop {
        let rules = changes.borrow_and_update().rules;
        if rules != judged || again.is_some_and(|again| again <= Instant::now()) {
            judged = rules;
            again = worker.connections.judge(&worker.agent.state);
        }
        let time = async {
            match again {
                Some(again) => sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
            () = worker.connections.not_judged() => again = Some(Instant::now()),
            () = time => {}
        }
    }
}

/// Gives up tunnels to addresses whose workload went away.
async fn evict_on_change(worker: Rc<Worker>) {
    let evict = |is_gone: &dyn Fn(IpAddr) -> bool| {
        worker.pool.evict(|key| is_gone(key.next_hop.ip()));
    };
    worker.agent.state.evict_replaced(evict).await;
}
