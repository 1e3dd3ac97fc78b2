//! The end of a proxy: nothing new is accepted, what is carried goes on in a successor if there is one, and what is left
//! has its time to end.

use std::sync::Arc;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::pod::Phase;
use super::worker::Job;
use super::{Agent, handover};
use crate::listeners::Listeners;
use crate::seqpacket::SeqPacket;

/// Successors that may be there before this proxy has dealt with the first.
pub(crate) const SUCCESSORS: usize = 4;

/// How long what is carried may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    /// When there is nobody to take it over.
    pub(crate) drain: Duration,
    /// When there is, but it cannot be handed over.
    pub(crate) hand_over: Duration,
}

/// Comes to an end.
pub(crate) async fn retire(agent: &Arc<Agent>, successors: mpsc::Receiver<Option<SeqPacket>>, grace: Grace) {
    stop_accepting(agent).await;
    if !hand_over(agent, successors, grace.hand_over).await {
        drain(agent, grace.drain).await;
    }
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

/// Hands what is carried over to the proxy that has taken this one's place, if there is one, and to the one after it if
/// that fails; what cannot be handed over goes on here for `grace` at most. Whether all of that was done: a signal ends
/// it, and then there is the usual time to drain.
async fn hand_over(
    agent: &Arc<Agent>,
    mut successors: mpsc::Receiver<Option<SeqPacket>>,
    grace: Duration,
) -> bool {
    let Ok(mut successor) = successors.try_recv() else { return false };
    let handing_over = async {
        loop {
            if let Some(socket) = &successor {
                match handover::give(agent, socket).await {
                    Ok(connections) => return tracing::info!(connections, "handed over"),
                    Err(error) => tracing::warn!(%error, "not everything could be handed over"),
                }
            }
            tokio::select! {
                () = none_left(agent) => return,
                Some(next) = successors.recv() => successor = next,
            }
        }
    };
    let again = Shutdown::default();
    tokio::select! {
        handed_over = timeout(grace, handing_over) => {
            if handed_over.is_err() {
                tracing::info!(?grace, "connections are left that cannot be handed over, ending them");
            }
            true
        }
        _ = again.signalled() => false,
    }
}

async fn none_left(agent: &Agent) {
    while !agent.has_no_connection().await {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Lets what is under way end.
async fn drain(agent: &Agent, within: Duration) {
    if timeout(within, none_left(agent)).await.is_err() {
        tracing::info!(?within, "connections are left after the grace period, ending them");
    }
}
