//! The successor's side.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::readiness::Readiness;
use prost::Message;
use socket2::SockRef;

use super::HandoverError;
use super::message::{GoneOn, Hello, LARGEST, OLDEST_VERSION, VERSION, read};
use super::waves::{Arrivals, Arriving};
use crate::proxy::moves::Detached;
use crate::proxy::worker::Job;
use crate::proxy::{Agent, finish};
use crate::seqpacket::SeqPacket;
use crate::socket::Packet;

/// Counts the proxies that are handing over to this one.
#[derive(Debug, Default)]
pub(crate) struct Predecessors(AtomicUsize);

/// One of them, until dropped.
#[derive(Debug)]
pub(crate) struct Predecessor {
    agent: Arc<Agent>,
    socket: SeqPacket,
}

impl Predecessors {
    /// Whether there is none.
    pub(crate) fn none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Predecessor {
    /// Counts one, at the other end of this socket.
    pub(crate) fn new(agent: &Arc<Agent>, socket: SeqPacket) -> Self {
        agent.predecessors.0.fetch_add(1, Ordering::AcqRel);
        Self { agent: agent.clone(), socket }
    }
}

impl Drop for Predecessor {
    fn drop(&mut self) {
        self.agent.predecessors.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes over what a predecessor hands over, as soon as this proxy can serve, until that has nothing left. Returns how many
/// came.
///
/// # Errors
/// Why it ended before.
pub(crate) async fn take(predecessor: Predecessor, readiness: &Readiness) -> Result<u64, HandoverError> {
    let Predecessor { agent, socket } = &predecessor;
    // It serves, and accepts, until it hears from us.
    readiness.ready().await;
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
                // Never waited for, or both ends would wait for each other: it is a sum, and the next one says it too. And
                // one that has gone has sent before what is still to be received.
                let _ = socket.try_send(&GoneOn { connections }.encode_to_vec());
            }
        }
    }
}

/// Brings a connection to where it goes on; whether the predecessor wants to hear when it has.
async fn place(agent: &Arc<Agent>, packet: Packet, arrivals: &Arc<Arrivals>) -> Result<bool, String> {
    let Packet { bytes, mut fds, .. } = packet;
    match understand(agent, &bytes, &mut fds, arrivals) {
        Ok((detached, counted)) => {
            agent.workers[detached.pod.home].send(Job::Arrive(Box::new(detached))).await;
            Ok(counted)
        }
        Err(error) => {
            // What cannot go on is broken off; closed in order, it would look whole to the application.
            fds.iter().for_each(|fd| finish::reset(&SockRef::from(&fd.as_fd())));
            Err(error)
        }
    }
}

/// The connection of a message, and whether the predecessor wants to hear when it has gone on. Sockets of what makes no
/// sense stay where they are.
fn understand(
    agent: &Arc<Agent>,
    bytes: &[u8],
    fds: &mut Vec<OwnedFd>,
    arrivals: &Arc<Arrivals>,
) -> Result<(Detached, bool), String> {
    let passed = read(bytes)?;
    let (counted, arriving) = (passed.counted, Arriving::new(arrivals));
    let pod = agent.pods().get(passed.pod.as_str()).cloned();
    let pod = pod.ok_or_else(|| format!("its pod {} is not served here", passed.pod))?;
    Ok((passed.unpack(agent, pod, fds, arriving)?, counted))
}
