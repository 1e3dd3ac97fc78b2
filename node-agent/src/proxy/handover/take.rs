//! The successor's side.

use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use prost::Message;

use super::HandoverError;
use super::message::{Hello, LARGEST, OLDEST_VERSION, VERSION, read};
use crate::proxy::Agent;
use crate::proxy::worker::Job;
use crate::seqpacket::SeqPacket;
use crate::socket::Packet;

/// Takes over what a predecessor hands over, until that has nothing left. Returns how many came.
///
/// # Errors
/// Why it ended before.
pub(crate) async fn take(agent: &Arc<Agent>, socket: &SeqPacket) -> Result<u64, HandoverError> {
    let hello = Hello { oldest: OLDEST_VERSION, newest: VERSION };
    socket.send(&hello.encode_to_vec(), &[]).await?;
    let mut count = 0;
    while let Some(packet) = socket.receive(LARGEST).await? {
        match place(agent, packet).await {
            Ok(()) => count += 1,
            Err(error) => tracing::error!(error, "a connection of the predecessor is lost"),
        }
    }
    Ok(count)
}

/// Brings a connection to where it goes on.
async fn place(agent: &Arc<Agent>, packet: Packet) -> Result<(), String> {
    let passed = read(&packet.bytes)?;
    let pod = agent.pods().get(passed.pod.as_str()).cloned();
    // Its descriptors close with the packet, and the application learns of it as of any end of a pod.
    let pod = pod.ok_or_else(|| format!("its pod {} is not served here", passed.pod))?;
    let home = pod.home;
    let detached = passed.unpack(agent, pod, packet.fds)?;
    if detached.far.is_none() && detached.record.ends().reporter == Reporter::Destination {
        agent.parking.park(detached);
    } else {
        agent.workers[home].send(Job::Arrive(Box::new(detached))).await;
    }
    Ok(())
}
