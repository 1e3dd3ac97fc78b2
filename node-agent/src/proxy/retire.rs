//! The end of a proxy: nothing new is accepted, what is carried goes on in a successor if there is one, and what is left
//! has its time to end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Agent;
use super::connections::OVER;
use super::handover::{HandoverError, Retirement, give};
use super::pod::Phase;
use super::worker::Job;
use crate::listeners::Listeners;
use crate::pods::FeedHandle;

/// Successors that may be there before this proxy has dealt with the first.
pub(crate) const SUCCESSORS: usize = 4;
/// How long names that were asked for may take to be answered.
const ANSWERED: Duration = Duration::from_secs(2);
/// How long connections that are cut may take over that.
const CUT: Duration = Duration::from_secs(1);
/// How often it is looked who is left.
const AGAIN: Duration = Duration::from_millis(50);
/// For how long new connections are taken after the redirecting role was killed: until then it has been started again, with
/// listeners of its own.
const UNTIL_ANOTHER: Duration = Duration::from_millis(500);

/// How long what is carried may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    /// When there is nobody to take it over.
    pub(crate) drain: Duration,
    /// When there is, but it cannot be handed over; unless somebody waits for the end.
    pub(crate) hand_over: Duration,
    /// A signal has told this process to end: `drain` is all that whoever sent it allows, and no other comes.
    pub(crate) told: bool,
}

/// After this process was told to end: goes on as before until another proxy is there, which the redirecting role is asked
/// for. Where that role ends as well, and waits for this proxy, goes on until no connection is left or time is over, as
/// nobody else would take new ones; where it was killed, it is back in a moment. Returns what is to be done first, and how
/// much of the time is left.
pub(crate) async fn until_replaced(
    agent: &Agent,
    feed: &mut FeedHandle,
    successors: &mut mpsc::Receiver<Retirement>,
    within: Duration,
    parent: nix::unistd::Pid,
) -> (Option<Retirement>, Duration) {
    let started = Instant::now();
    let left = || within.saturating_sub(started.elapsed());
    if let Ok(first) = successors.try_recv() {
        return (Some(first), left());
    }
    feed.leave();
    if !feed.is_ours() {
        return (None, left());
    }
    feed.ask_for_another().await;
    tokio::select! {
        first = successors.recv() => return (first, left()),
        () = sleep(left()) => {}
        () = feed.lost() => {
            if nix::unistd::getppid() == parent {
                let _ = timeout(left(), none_left(agent)).await;
            } else {
                sleep(UNTIL_ANOTHER.min(left())).await;
            }
        }
    }
    (None, left())
}

/// Comes to an end.
pub(crate) async fn retire(
    agent: &Arc<Agent>,
    first: Option<Retirement>,
    successors: mpsc::Receiver<Retirement>,
    grace: Grace,
) {
    let_go(agent, first, successors, grace).await;
    // Who has asked asks again after five seconds only.
    let _ = timeout(ANSWERED, until(async || agent.has_no_query())).await;
}

/// Lets go of everything that connections hang on.
async fn let_go(
    agent: &Arc<Agent>,
    first: Option<Retirement>,
    successors: mpsc::Receiver<Retirement>,
    grace: Grace,
) {
    // From the beginning, so that no signal is nobody's.
    let signal = Shutdown::default();
    let signalled = signal.signalled();
    stop_accepting(agent).await;
    let left = match first {
        Some(first) => {
            let stop = Shutdown::default();
            let mut handing_over = pin!(hand_over(agent, first, successors, &stop));
            // Kubernetes tells the old pod to end as soon as the new one is ready: in the middle of this.
            let time_is_over = async {
                if !grace.told {
                    tokio::select! {
                        _ = signalled => {}
                        () = sleep(grace.hand_over) => return,
                    }
                }
                sleep(grace.drain).await;
            };
            tokio::select! {
                () = &mut handing_over => return,
                () = time_is_over => {}
            }
            // What is on its way comes back.
            stop.begin();
            handing_over.await;
            Duration::ZERO
        }
        None => grace.drain,
    };
    drain(agent, left).await;
}

/// Nothing new is accepted, and those at the other ends of tunnels are told to go elsewhere. New connections wait with
/// whoever else holds the listeners (the redirecting role, a newer proxy); taken here, they would end with this process.
pub(crate) async fn stop_accepting(agent: &Agent) {
    let pods: Vec<_> = agent.pods().values().cloned().collect();
    for pod in pods {
        pod.set_phase(Phase::Draining);
        let home = pod.home;
        agent.workers[home].send(Job::Serve { pod, listeners: Listeners::default() }).await;
    }
}

/// Hands what is carried over to the proxy that has taken this one's place, and to the one after it if that fails, until
/// nothing is left here or it is told to stop.
async fn hand_over(
    agent: &Arc<Agent>,
    first: Retirement,
    mut successors: mpsc::Receiver<Retirement>,
    stop: &Shutdown,
) {
    let mut next = first;
    loop {
        if let Retirement::HandOver(successor) = &next {
            match give(agent, successor, stop).await {
                Ok(connections) => return tracing::info!(connections, "handed over"),
                Err(HandoverError::Stopped) => return,
                Err(error) => tracing::warn!(%error, "not everything could be handed over"),
            }
        }
        tokio::select! {
            () = none_left(agent) => return,
            () = stop.begun() => return,
            Some(newer) = successors.recv() => next = newer,
        }
    }
}

async fn none_left(agent: &Agent) {
    until(async || agent.has_no_connection()).await;
}

/// Looks again and again until it is so.
async fn until(so: impl AsyncFn() -> bool) {
    while !so().await {
        sleep(AGAIN).await;
    }
}

/// Lets what is under way end, and resets what has not within that time: an application must not take the end of an agent
/// for the end of what it was being sent.
async fn drain(agent: &Agent, within: Duration) {
    if timeout(within, none_left(agent)).await.is_ok() {
        return;
    }
    tracing::info!(?within, "connections are left after the grace period, ending them");
    agent.over.begin();
    // Each time: some are on their way from one place to another.
    let all_cut = until(async || {
        agent.parking.all().into_iter().for_each(|parked| parked.give_up(OVER));
        for worker in &agent.workers {
            worker.send(Job::CutAll(OVER)).await;
        }
        agent.has_no_connection()
    });
    let _ = timeout(CUT, all_cut).await;
}
