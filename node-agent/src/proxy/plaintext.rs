//! An incoming connection that did not come through a tunnel: judged like any other, with a client that proved
//! nothing, and delivered under the client's own address.

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
