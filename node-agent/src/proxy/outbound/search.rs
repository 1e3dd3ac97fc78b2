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

/// After so long no other replica is asked, however many there are: one that does not answer at all takes ten seconds, and the
/// application has long taken the connection for open.
const LONGEST: Duration = Duration::from_secs(15);

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
        if self.begun.elapsed() >= LONGEST {
            return None;
        }
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
    use model::address::{NamespacedHostname, NetworkAddress, OriginalDestination, PeerAddress};
    use model::mesh::Update;
    use model::plan::plan;
    use model::service::{AppProtocol, Port, Ports, Service};
    use model::workload::{GatewayAddress, GatewayDestination};
    use tokio::time::advance;

    use super::*;
    use crate::proxy::app::tests::{a_pod, tell_of_the_pod, threads_that_stand_still};

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

    /// A service behind a waypoint of so many replicas, for the pod that the controller has told of.
    fn behind_a_waypoint(mesh: &Mesh, pod: &Pod, replicas: u8) -> Vec<Update> {
        let key = |name: &str| NamespacedHostname::new("n", name);
        let own = pod.workload(mesh).unwrap();
        let replica = |number: u8| {
            let mut replica = (**own).clone();
            (replica.uid, replica.name) = (format!("{number}").into(), format!("gate-{number}").into());
            replica.addresses = [IpAddr::from([10, 0, 0, number])].into_iter().collect();
            Arc::make_mut(&mut replica.profile).services = [(key("gate"), Ports::default())].into();
            Update::Workload(replica)
        };
        let service = |name, port, vip: [u8; 4]| Service {
            vips: [NetworkAddress::new("".into(), vip.into())].into_iter().collect(),
            ports: Ports(
                [Port { service: port, target: port, protocol: AppProtocol::Unknown }].into_iter().collect(),
            ),
            ..Service::named(key(name))
        };
        let gate =
            GatewayAddress { destination: GatewayDestination::Hostname(key("gate")), hbone_port: 15008 };
        let web = Service { waypoint: Some(Arc::new(gate)), ..service("web", 80, [10, 96, 0, 1]) };
        let services = [web, service("gate", 15008, [10, 96, 0, 2])].map(Update::Service);
        (1..=replicas).map(replica).chain(services).collect()
    }

    /// Each of many replicas may take all the time that a connection may take.
    #[tokio::test(start_paused = true)]
    async fn an_application_does_not_wait_for_all_replicas() {
        let (agent, mailboxes) = threads_that_stand_still("1");
        let worker = Worker::idle(0, agent.clone(), &mailboxes[0]);
        let pod = a_pod(&agent);
        tell_of_the_pod(&agent);
        let more = behind_a_waypoint(&agent.state.read(), &pod, 20);
        agent.take(more);
        agent.state.told_all();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = Accepted {
            peer: PeerAddress::new(client.local_addr().unwrap()),
            socket: client,
            destination: OriginalDestination::new("10.96.0.1:80".parse().unwrap()),
            place: pod.places.outbound(&pod.account).unwrap(),
        };
        let planned = {
            let mesh = agent.state.read();
            plan(&mesh, pod.workload(&mesh).unwrap(), accepted.destination, &mut draw)
        };
        let Plan::Tunnel(mut tunnel) = planned else { panic!("{planned:?}") };
        let (begun, mut search, mut asked) = (Instant::now(), Search::default(), 1);
        loop {
            advance(Duration::from_secs(10)).await;
            match search.next(&worker, &pod, &accepted, &tunnel, &DialError::TunnelTimeout).await {
                Some(other) => tunnel = other,
                None => break,
            }
            asked += 1;
        }
        assert_eq!((asked, begun.elapsed().as_secs()), (2, 20));
    }
}
