//! The predecessor's side.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::HandoverError;
use super::message::{GoneOn, Hello, LARGEST, OLDEST_VERSION, VERSION, pack};
use super::waves::Waves;
use crate::proxy::Agent;
use crate::proxy::moves::Detached;
use crate::proxy::worker::Job;
use crate::seqpacket::SeqPacket;

/// Connections that may wait to be sent.
const QUEUE: usize = 256;
/// How long the successor may take until it serves.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what is carried by now is looked at: what was being opened, what its peer could not answer.
const AGAIN: Duration = Duration::from_millis(100);

/// How long tunnels without connections are waited for.
const TUNNELS: Duration = Duration::from_secs(3);

/// Where detached connections are sent while a successor takes them.
pub(crate) type Successor = mpsc::Sender<Detached>;

/// Hands everything over that can be, until nothing is left here. Returns how many went.
///
/// # Errors
/// Why it ended before; what is left goes on here.
pub(crate) async fn give(agent: &Arc<Agent>, socket: &SeqPacket) -> Result<u64, HandoverError> {
    let hello =
        timeout(PATIENCE, socket.receive(LARGEST)).await.map_err(|_| HandoverError::Silent(PATIENCE))??;
    let hello = hello.ok_or(HandoverError::Gone)?;
    let Hello { oldest, newest, counts } =
        Hello::decode(hello.bytes.as_slice()).map_err(|error| HandoverError::Garbled(error.to_string()))?;
    if oldest > VERSION || newest < OLDEST_VERSION {
        return Err(HandoverError::Version { oldest, newest, ours: VERSION });
    }
    let (sender, mut detached) = mpsc::channel(QUEUE);
    let standing = Standing::new(agent, sender);
    let outcome = pass_on(agent, socket, &mut detached, counts).await;
    drop(standing);
    detached.close();
    while let Some(left) = detached.recv().await {
        agent.workers[left.pod.home].send(Job::Arrive(Box::new(left))).await;
    }
    outcome
}

async fn pass_on(
    agent: &Arc<Agent>,
    socket: &SeqPacket,
    detached: &mut mpsc::Receiver<Detached>,
    counts: bool,
) -> Result<u64, HandoverError> {
    let mut count = 0;
    let mut waves = Waves::new();
    let mut idle_since = None;
    let mut again = interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            Some(detached) = detached.recv() => {
                send(socket, detached).await?;
                count += 1;
            }
            _ = again.tick() => {
                count += give_parked(agent, socket).await?;
                if agent.has_no_connection().await && detached.is_empty() {
                    let since = *idle_since.get_or_insert_with(Instant::now);
                    // What is on its way to us on a tunnel was sent before its client knew better. Those of ours close once they
                    // are idle, others when they like.
                    if agent.served_tunnels() == 0 || since.elapsed() >= TUNNELS {
                        return Ok(count);
                    }
                    continue;
                }
                idle_since = None;
                waves.time_has_passed();
            }
            said = socket.receive(LARGEST) => {
                let said = said?.ok_or(HandoverError::Gone)?;
                let said = GoneOn::decode(said.bytes.as_slice());
                waves.gone_on(said.map_err(|error| HandoverError::Garbled(error.to_string()))?.connections);
            }
        }
        if !counts {
            // A successor of the version before: what it has taken is all that is known.
            waves.gone_on(count);
        }
        detach(agent, &mut waves).await;
    }
}

/// Has as many connections leave their tunnels as there is room for on the way.
async fn detach(agent: &Agent, waves: &mut Waves) {
    let mut threads = agent.workers.len();
    for worker in &agent.workers {
        let share = waves.room().div_ceil(threads as u64);
        threads -= 1;
        if share > 0 {
            let (answer, asked) = oneshot::channel();
            worker.send(Job::Detach { most: share as usize, answer }).await;
            waves.asked(asked.await.unwrap_or(0) as u64);
        }
    }
}

/// Gives what is parked: from before, and what has just missed that there is a successor.
async fn give_parked(agent: &Agent, socket: &SeqPacket) -> Result<u64, HandoverError> {
    let mut count = 0;
    let mut parked = agent.parking.all().into_iter();
    while let Some(next) = parked.next() {
        if let Err(error) = send(socket, next).await {
            parked.for_each(|left| agent.parking.park(left));
            return Err(error);
        }
        count += 1;
    }
    Ok(count)
}

async fn send(socket: &SeqPacket, detached: Detached) -> Result<(), HandoverError> {
    let packed = pack(detached)?;
    Ok(socket.send(&packed.bytes, &packed.descriptors()).await?)
}

/// The successor, known to all threads as long as it takes connections.
struct Standing<'a>(&'a Agent);

impl<'a> Standing<'a> {
    fn new(agent: &'a Agent, successor: Successor) -> Self {
        agent.set_successor(Some(successor));
        Self(agent)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.set_successor(None);
    }
}
