//! An incoming connection that did not come through a tunnel: judged like any other, with a client that proved
//! nothing, and delivered under the client's own address.

mod own;

use std::rc::Rc;
use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use hbone::connection::{Connection, ConnectionId};
use model::address::{AppAddress, NetworkAddress, NextHop, PeerAddress};
use model::ports;
use socket2::SockRef;

use super::accept::Accepted;
use super::authorize::{judge, judge_in_time};
use super::carry::Carried;
use super::dial;
use super::finish;
use super::inbound::refusal;
use super::pod::Pod;
use super::record::{Ends, Failure, Record, flags, refused_early};
use super::worker::Worker;

const NOT_OWN: &str = "the address is none of the pod's; one that passes others' connections on, as a gateway does, says so: ambient.istio.io/bypass-inbound-capture=true";

/// Carries an incoming plaintext connection to its end.
pub(crate) fn serve(worker: Rc<Worker>, pod: Arc<Pod>, accepted: Accepted) -> Carried {
    Carried::opening(open(worker, pod, accepted))
}

/// Judges a connection and opens the way to the application.
async fn open(worker: Rc<Worker>, pod: Arc<Pod>, accepted: Accepted) -> Option<Carried> {
    let delivered = AppAddress::new(accepted.destination.addr());
    if ports::is_own(delivered.port()) {
        return refuse_early(&worker, &pod, &accepted, delivered, "the port is the proxy's own");
    }
    let agent = &worker.agent;
    let Some(local) = agent.state.wait_for(|mesh| pod.workload(mesh).cloned()).await else {
        return refuse_early(&worker, &pod, &accepted, delivered, "the controller does not know this pod");
    };
    if !local.addresses.contains(&delivered.ip()) {
        match own::is_own(&pod, delivered.ip()) {
            Ok(true) => {}
            Ok(false) => return refuse_early(&worker, &pod, &accepted, delivered, NOT_OWN),
            Err(error) => {
                return refuse_early(&worker, &pod, &accepted, delivered, &error.to_string());
            }
        }
    }
    let address = NetworkAddress::new(local.profile.network.clone(), accepted.peer.ip());
    agent.demand.peer(&agent.state, &address).await;
    let source = agent.state.read().workload_at(&address).cloned();
    let ends = Ends {
        reporter: Reporter::Destination,
        source,
        baggage: None,
        source_identity: None,
        next_hop: NextHop::new(delivered.addr()),
        authority: None,
        destination: Some(local),
        destination_identity: None,
        service: None,
        delivered: Some(delivered),
    };
    let record = Record::open(accepted.peer, ends, &worker.agent);
    let rules = worker.agent.state.rules_revision();
    let verdict = refusal(judge_in_time(&worker.agent.state, &pod, accepted.peer, None, delivered).await);
    if let Err(error) = verdict {
        return fail(&accepted, record, &Failure::new(flags::DENY, error));
    }
    let connection = match deliver(&pod, accepted.peer, delivered).await {
        Ok(connection) => connection,
        Err(failure) => return fail(&accepted, record, &failure),
    };
    let registered = worker.connections.register(pod.clone(), record, connection.live().clone());
    // A rule that changed between the verdict and the table's entry would otherwise be missed.
    if worker.agent.state.rules_revision() != rules
        && let Err(error) = refusal(judge(&worker.agent.state, &pod, accepted.peer, None, delivered))
    {
        let (_, record) = registered.leave()?;
        return fail(&accepted, record, &Failure::new(flags::DENY, error));
    }
    match tokio::net::TcpStream::from_std(accepted.socket) {
        Ok(client) => Some(Carried::in_plain(connection, client, registered)),
        Err(error) => {
            let (_, record) = registered.leave()?;
            connection.abort();
            record.end(None, Some(&Failure::new(flags::CONNECT, error)));
            None
        }
    }
}

/// The client sees a reset.
fn fail(accepted: &Accepted, record: Record, failure: &Failure) -> Option<Carried> {
    finish::reset(&SockRef::from(&accepted.socket));
    record.end(None, Some(failure));
    None
}

/// Refuses what is not known well enough for a record.
fn refuse_early(
    worker: &Worker,
    pod: &Pod,
    accepted: &Accepted,
    delivered: AppAddress,
    why: &str,
) -> Option<Carried> {
    finish::reset(&SockRef::from(&accepted.socket));
    refused_early(&worker.agent, pod, "inbound", accepted.peer, delivered.addr(), why);
    None
}

/// Connects to the application as the client.
async fn deliver(pod: &Pod, client: PeerAddress, delivered: AppAddress) -> Result<Connection, Failure> {
    let application = dial::application(pod, delivered.addr(), Some(client.ip())).await?;
    Connection::new(ConnectionId::random(), application.taken_over(), &pod.account)
        .map_err(|full| Failure::new(flags::CONNECT, full))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use model::address::OriginalDestination;
    use testkit::netns::Netns;
    use tokio::task::LocalSet;

    use super::*;
    use crate::netns::NetnsFd;
    use crate::proxy::app::tests::{tell_of_the_pod, threads_that_stand_still};
    use crate::redirect::apply;
    use crate::redirect::rules::{RuleSet, WayBack};
    use crate::socket::RETURN_MARK;

    /// What a client hears whose packets to `destination` have come to the pod, where an application answers at every
    /// address.
    async fn heard(worker: &Rc<Worker>, pod: &Arc<Pod>, destination: SocketAddr) -> std::io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let peer = if destination.is_ipv4() { "10.200.3.4:4711" } else { "[fd20::34]:4711" };
        let accepted = Accepted {
            socket,
            peer: PeerAddress::new(peer.parse().unwrap()),
            destination: OriginalDestination::new(destination),
            place: pod.places.plaintext(&pod.account).unwrap(),
        };
        let carried = tokio::task::spawn_local(serve(worker.clone(), pod.clone(), accepted));
        let heard = tokio::task::spawn_blocking(move || {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut words = Vec::new();
            client.read_to_end(&mut words).map(|_| words)
        });
        let heard = heard.await.unwrap();
        carried.await.unwrap();
        heard
    }

    #[tokio::test]
    async fn only_what_is_sent_to_the_pod_is_delivered() {
        let namespace = Netns::new("pod").unwrap();
        for command in [
            "addr add 10.77.0.2/32 dev lo",
            "addr add 10.96.0.7/32 dev lo",
            "addr add fd77::2/128 dev lo nodad",
            "route add local 10.97.0.0/24 dev lo",
            "-6 route add local fd97::/64 dev lo",
        ] {
            namespace.ip(command).unwrap();
        }
        let netns = NetnsFd::from_fd(namespace.fd().try_clone_to_owned().unwrap()).unwrap();
        apply::install(&netns, "nft", &RuleSet::default(), WayBack::Marked).await.unwrap();
        let (agent, mailboxes) = threads_that_stand_still("1");
        let worker = Worker::idle(0, agent.clone(), &mailboxes[0]);
        tell_of_the_pod(&agent);
        agent.state.told_all();
        let info =
            proto::zds::WorkloadInfo { name: "p".into(), namespace: "n".into(), service_account: "a".into() };
        let pod = Arc::new(Pod::new("uid", info, netns, agent.account(), 0, RETURN_MARK));
        let application = namespace.run(|| TcpListener::bind("[::]:8080").unwrap()).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = application.accept() {
                let _ = socket.write_all(b"here");
            }
        });
        let all = async {
            for (destination, delivered) in [
                ("10.77.0.2:8080", true),
                ("[fd77::2]:8080", true),
                // Addresses of a load balancer that leaves them in the packets.
                ("10.96.0.7:8080", true),
                ("10.97.0.9:8080", true),
                ("[fd97::9]:8080", true),
                ("[fd77::3]:8080", false),
                ("10.77.0.3:8080", false),
                // From outside nobody gets to what an application offers to itself.
                ("127.0.0.2:8080", false),
            ] {
                let heard = heard(&worker, &pod, destination.parse().unwrap()).await;
                let heard = heard.map_err(|error| error.kind());
                let reset = Err(std::io::ErrorKind::ConnectionReset);
                let expected = if delivered { Ok(b"here".to_vec()) } else { reset };
                assert_eq!(heard, expected, "{destination}");
            }
        };
        LocalSet::new().run_until(all).await;
    }
}
