//! An incoming connection that did not come through a tunnel: judged like any other, with a client that proved
//! nothing, and delivered under the client's own address.

use std::rc::Rc;
use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use hbone::connection::{Connection, ConnectionId};
use model::address::{AppAddress, NetworkAddress, NextHop};
use model::ports;
use socket2::SockRef;

use super::accept::Accepted;
use super::authorize::{judge, judge_in_time};
use super::carry::Carried;
use super::connections::Registered;
use super::dial;
use super::finish;
use super::inbound::refusal;
use super::pod::Pod;
use super::record::{Ends, Failure, Record, flags, refused_early};
use super::worker::Worker;

/// Carries an incoming plaintext connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, pod: Arc<Pod>, accepted: Accepted) {
    let opened = Box::pin(open(worker, pod, accepted)).await;
    if let Some(carried) = opened {
        carried.to_its_end().await;
    }
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
        peer: accepted.peer,
        source,
        baggage: None,
        source_identity: None,
        next_hop: NextHop::new(delivered.addr()),
        authority: None,
        destination: Some(local),
        destination_identity: None,
        service: None,
    };
    let record = Rc::new(Record::open(ends, &worker.agent));
    let rules = worker.agent.state.rules_revision();
    let verdict = refusal(judge_in_time(&worker.agent.state, &pod, accepted.peer, None, delivered).await);
    if let Err(error) = verdict {
        finish::reset(&SockRef::from(&accepted.socket));
        finish::end(record, None, Some(&Failure::new(flags::DENY, error)));
        return None;
    }
    match deliver(worker, pod, &accepted, record.clone(), delivered, rules).await {
        Ok((connection, registered)) => match tokio::net::TcpStream::from_std(accepted.socket) {
            Ok(client) => Some(Carried::in_plain(connection, client, record, registered)),
            Err(error) => {
                drop(registered);
                connection.abort();
                finish::end(record, None, Some(&Failure::new(flags::CONNECT, error)));
                None
            }
        },
        Err(failure) => {
            finish::reset(&SockRef::from(&accepted.socket));
            finish::end(record, None, Some(&failure));
            None
        }
    }
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

/// Connects to the application as the client and puts the connection into the thread's table.
async fn deliver(
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    accepted: &Accepted,
    record: Rc<Record>,
    delivered: AppAddress,
    rules: u64,
) -> Result<(Connection, Registered), Failure> {
    let application = dial::application(&pod, delivered.addr(), Some(accepted.peer.ip())).await?;
    let connection = Connection::new(ConnectionId::random(), application.taken_over(), &pod.account)
        .map_err(|full| Failure::new(flags::CONNECT, full))?;
    let live = connection.live().clone();
    let registered = worker.connections.register(pod.clone(), record, live, Some(delivered));
    // A rule that changed between the verdict and the table's entry would otherwise be missed.
    if worker.agent.state.rules_revision() != rules {
        refusal(judge(&worker.agent.state, &pod, accepted.peer, None, delivered))
            .map_err(|error| Failure::new(flags::DENY, error))?;
    }
    Ok((connection, registered))
}
