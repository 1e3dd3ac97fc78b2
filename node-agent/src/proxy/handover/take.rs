//! The successor's side.

use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use prost::Message;

use super::HandoverError;
use super::message::{GoneOn, Hello, LARGEST, OLDEST_VERSION, VERSION, read};
use super::waves::{Arrivals, Arriving};
use crate::proxy::Agent;
use crate::proxy::worker::Job;
use crate::seqpacket::SeqPacket;
use crate::socket::Packet;

/// Takes over what a predecessor hands over, until that has nothing left. Returns how many came.
///
/// # Errors
/// Why it ended before.
pub(crate) async fn take(agent: &Arc<Agent>, socket: &SeqPacket) -> Result<u64, HandoverError> {
    let hello = Hello { oldest: OLDEST_VERSION, newest: VERSION, counts: true };
    socket.send(&hello.encode_to_vec(), &[]).await?;
    let arrivals = Arc::new(Arrivals::default());
    let (mut count, mut counted) = (0, false);
    loop {
        tokio::select! {
            packet = socket.receive(LARGEST) => {
                let Some(packet) = packet? else { return Ok(count) };
                match place(agent, packet, &arrivals).await {
                    Ok(asked) => (count, counted) = (count + 1, asked),
                    Err(error) => tracing::error!(error, "a connection of the predecessor is lost"),
                }
            }
            connections = arrivals.more(), if counted => {
                // One that has gone does not wait; what it sent before is still to be received.
                let _ = socket.send(&GoneOn { connections }.encode_to_vec(), &[]).await;
            }
        }
    }
}

/// Brings a connection to where it goes on; whether the predecessor wants to hear when it has.
async fn place(agent: &Arc<Agent>, packet: Packet, arrivals: &Arc<Arrivals>) -> Result<bool, String> {
    let passed = read(&packet.bytes)?;
    let (counted, arriving) = (passed.counted, Arriving::new(arrivals));
    let pod = agent.pods().get(passed.pod.as_str()).cloned();
    // Its descriptors close with the packet, and the application learns of it as of any end of a pod.
    let pod = pod.ok_or_else(|| format!("its pod {} is not served here", passed.pod))?;
    let home = pod.home;
    let detached = passed.unpack(agent, pod, packet.fds, arriving)?;
    if detached.far.is_none() && detached.record.ends().reporter == Reporter::Destination {
        agent.parking.park(detached);
    } else {
        agent.workers[home].send(Job::Arrive(Box::new(detached))).await;
    }
    Ok(counted)
}
