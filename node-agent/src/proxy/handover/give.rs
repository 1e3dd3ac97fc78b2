//! The predecessor's side.

use std::sync::Arc;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::HandoverError;
use super::message::{GoneOn, Hello, LARGEST, OLDEST_VERSION, Packed, Unpackable, VERSION};
use super::waves::Waves;
use crate::proxy::Agent;
use crate::proxy::moves::Detached;
use crate::proxy::worker::Job;
use crate::seqpacket::SeqPacket;

/// Connections that may wait to be sent.
const QUEUE: usize = 256;
/// How often what is carried by now is looked at: what was being opened, what its peer could not answer.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a connection that was asked to leave its tunnel is waited for before another has its place.
const WAITS: Duration = Duration::from_secs(1);
/// The pause before a connection that cannot be sent comes again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long tunnels without connections are waited for.
const TUNNELS: Duration = Duration::from_secs(3);

/// Where detached connections are sent while a successor takes them.
pub(crate) type Onward = mpsc::Sender<Detached>;

/// A proxy that has taken this one's place, and serves.
#[derive(Debug)]
pub(crate) struct Successor {
    socket: SeqPacket,
    hello: Hello,
}

/// How a proxy learns that it is not needed any more.
#[derive(Debug)]
pub(crate) enum Retirement {
    /// A newer one is there that takes nothing over.
    Drain,
    /// A newer one is there and takes over what it can.
    HandOver(Successor),
}

impl Successor {
    /// Waits until the newer proxy at the other end of the socket serves. Until then, this one does.
    ///
    /// # Errors
    /// That it has ended before.
    pub(crate) async fn meet(socket: SeqPacket) -> Result<Self, HandoverError> {
        let hello = socket.receive(LARGEST).await?.ok_or(HandoverError::Gone)?;
        let hello = Hello::decode(hello.bytes.as_slice())
            .map_err(|error| HandoverError::Garbled(error.to_string()))?;
        Ok(Self { socket, hello })
    }

    fn understands(&self) -> Result<(), HandoverError> {
        let Hello { oldest, newest, .. } = self.hello;
        if oldest > VERSION || newest < OLDEST_VERSION {
            return Err(HandoverError::Version { oldest, newest, ours: VERSION });
        }
        Ok(())
    }
}

/// Hands everything over that can be, until nothing is left here. Returns how many went.
///
/// # Errors
/// Why it ended before; what is left goes on here.
pub(crate) async fn give(
    agent: &Arc<Agent>,
    successor: &Successor,
    stop: &Shutdown,
) -> Result<u64, HandoverError> {
    successor.understands()?;
    let (onward, mut detached) = mpsc::channel(QUEUE);
    agent.set_onward(Some(onward));
    let outcome = pass_on(agent, successor, &mut detached, stop).await;
    agent.set_onward(None);
    detached.close();
    while let Some(left) = detached.recv().await {
        stays(agent, left).await;
    }
    outcome
}

async fn stays(agent: &Agent, detached: Detached) {
    agent.workers[detached.pod.home].send(Job::Arrive(Box::new(detached))).await;
}

async fn pass_on(
    agent: &Arc<Agent>,
    Successor { socket, hello }: &Successor,
    detached: &mut mpsc::Receiver<Detached>,
    stop: &Shutdown,
) -> Result<u64, HandoverError> {
    let to = To { agent, socket, stop };
    let mut count = 0;
    let mut waves = Waves::default();
    let mut waits = interval(WAITS);
    let mut idle_since = Instant::now();
    let mut again = interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.begun() => return Err(HandoverError::Stopped),
            Some(detached) = detached.recv() => count += to.send(detached).await?,
            _ = again.tick() => {
                count += to.send_parked().await?;
                let left = Left {
                    connections: !(agent.has_no_connection() && detached.is_empty()),
                    tunnels: agent.served_tunnels() > 0,
                };
                if left.connections {
                    idle_since = Instant::now();
                }
                if left.is_over(idle_since.elapsed()) {
                    return Ok(count);
                }
            }
            _ = waits.tick() => waves.time_has_passed(),
            said = socket.receive(LARGEST) => {
                let said = said?.ok_or(HandoverError::Gone)?;
                let said = GoneOn::decode(said.bytes.as_slice());
                waves.gone_on(said.map_err(|error| HandoverError::Garbled(error.to_string()))?.connections);
            }
        }
        if !hello.counts {
            // A successor of the version before: what it has taken is all that is known.
            waves.gone_on(count);
        }
        detach(agent, &mut waves).await;
    }
}

/// What is left to be handed over.
#[derive(Debug, Clone, Copy)]
struct Left {
    connections: bool,
    /// Tunnels that others have opened to here.
    tunnels: bool,
}

impl Left {
    /// Whether the hand-over is done, when there has been no connection for so long. What is on its way to us on a tunnel
    /// was sent before its client knew better; our own tunnels close once they are idle, others when they like.
    fn is_over(self, idle: Duration) -> bool {
        !self.connections && (!self.tunnels || idle >= TUNNELS)
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

/// Where connections go, and what ends that.
struct To<'a> {
    agent: &'a Agent,
    socket: &'a SeqPacket,
    stop: &'a Shutdown,
}

impl To<'_> {
    /// Sends a connection; one that cannot be sent stays. Returns how many went: one, or none.
    async fn send(&self, detached: Detached) -> Result<u64, HandoverError> {
        let packed = match Packed::new(detached) {
            Ok(packed) => packed,
            Err(Unpackable { detached, error }) => {
                tracing::warn!(%error, "a connection cannot be handed over now");
                if let Some(detached) = detached {
                    // It comes again at once.
                    sleep(PAUSE).await;
                    stays(self.agent, *detached).await;
                }
                return Ok(0);
            }
        };
        let descriptors = packed.descriptors();
        let sent = tokio::select! {
            sent = self.socket.send(packed.bytes(), &descriptors) => sent.map_err(HandoverError::from),
            () = self.stop.begun() => Err(HandoverError::Stopped),
        };
        drop(descriptors);
        match sent {
            Ok(()) => packed.gone(),
            Err(error) => {
                stays(self.agent, packed.unpack()).await;
                return Err(error);
            }
        }
        Ok(1)
    }

    /// Sends what is parked: from before, and what has just missed that there is a successor.
    async fn send_parked(&self) -> Result<u64, HandoverError> {
        let mut count = 0;
        let mut parked = self.agent.parking.all().into_iter();
        while let Some(next) = parked.next() {
            match self.send(next).await {
                Ok(sent) => count += sent,
                Err(error) => {
                    parked.for_each(|left| self.agent.parking.park(left));
                    return Err(error);
                }
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_nothing_can_come_any_more() {
        for (connections, tunnels, idle, over) in [
            (true, true, Duration::ZERO, false),
            (true, false, TUNNELS, false),
            (false, true, Duration::ZERO, false),
            (false, true, TUNNELS, true),
            (false, false, Duration::ZERO, true),
        ] {
            let left = Left { connections, tunnels };
            assert_eq!(left.is_over(idle), over, "{left:?} {idle:?}");
        }
    }
}
