//! A replica of a waypoint that cannot be reached: another is asked, and where there is none, it is waited for a little.
//! The application's bytes are still with the application, so that nothing is done twice that it could notice.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::transport::HandshakeError;
use model::mesh::Mesh;
use model::plan::{Plan, Tunnel, other_replica};
use proxy::random::draw;
use proxy::tunnel::TunnelError;
use tokio::time::{Instant, sleep};

use super::super::accept::Accepted;
use super::super::dial::DialError;
use super::super::pod::Pod;
use super::super::state::PATIENCE;
use super::super::worker::Worker;
use super::decide;

/// Between two times that all replicas are asked.
const PAUSE: Duration = Duration::from_millis(100);

/// What was tried for one connection.
#[derive(Debug)]
pub(super) struct Search {
    begun: Instant,
    unreachable: Vec<IpAddr>,
}

impl Default for Search {
    fn default() -> Self {
        Self { begun: Instant::now(), unreachable: Vec::new() }
    }
}

impl Search {
    /// The way to ask next for a connection whose last failed so; nothing where that is the last word.
    pub(super) async fn next(
        &mut self,
        worker: &Rc<Worker>,
        pod: &Pod,
        accepted: &Accepted,
        failed: &Tunnel,
        error: &DialError,
    ) -> Option<Tunnel> {
        if !failed.waypoint || !is_nobodys_word(error) {
            return None;
        }
        tracing::debug!(next_hop = %failed.next_hop, %error, "a replica of a waypoint cannot be reached");
        self.unreachable.push(failed.next_hop.ip());
        if let Some(other) = self.other(pod, accepted, &worker.agent.state.read()) {
            return Some(other);
        }
        // Whatever the controller says of them, none of the replicas is there. One that has crashed is soon back.
        if self.begun.elapsed() >= PATIENCE {
            return None;
        }
        self.unreachable.clear();
        sleep(PAUSE).await;
        match decide(worker, pod, accepted).await {
            Ok((_, Plan::Tunnel(tunnel))) if tunnel.waypoint => Some(tunnel),
            _ => None,
        }
    }

    fn other(&self, pod: &Pod, accepted: &Accepted, mesh: &Mesh) -> Option<Tunnel> {
        let source: &Arc<_> = pod.workload(mesh)?;
        other_replica(mesh, source, accepted.destination, &self.unreachable, &mut draw)
    }
}

/// Whether a failure is no answer: nobody was there, or went before there was one.
fn is_nobodys_word(error: &DialError) -> bool {
    match error {
        DialError::Connect(_) | DialError::Timeout | DialError::TunnelTimeout => true,
        DialError::Tunnel(error) => match error {
            TunnelError::Failed(_) => true,
            TunnelError::Tls(error) => matches!(**error, HandshakeError::Io(_) | HandshakeError::Timeout(_)),
            TunnelError::Identity(_) | TunnelError::Refused { .. } => false,
        },
        DialError::NotResumed | DialError::Full(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use hbone::account::Full;

    use super::*;

    #[test]
    fn an_answer_is_an_answer_and_silence_is_asked_about_elsewhere() {
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        for (error, elsewhere) in [
            (DialError::Connect(Arc::new(broken())), true),
            (DialError::TunnelTimeout, true),
            (TunnelError::Tls(Arc::new(HandshakeError::Io(broken()))).into(), true),
            (TunnelError::Failed(String::from("gone")).into(), true),
            (TunnelError::Tls(Arc::new(HandshakeError::Tls(rustls::Error::DecryptError))).into(), false),
            (TunnelError::Refused { status: 401, cause: None }.into(), false),
            (TunnelError::Refused { status: 503, cause: None }.into(), false),
            (DialError::Full(Full::ShareOfDescriptors(1)), false),
            (DialError::NotResumed, false),
        ] {
            assert_eq!(is_nobodys_word(&error), elsewhere, "{error}");
        }
    }
}
