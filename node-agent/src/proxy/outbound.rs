//! An outgoing connection: who sends it, where it goes ([`model::plan`]), the way there, and the bytes.

mod search;

use std::rc::Rc;
use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use hbone::account::Full;
use hbone::connection::{Connection, ConnectionId};
use model::address::{NetworkAddress, NextHop};
use model::mesh::Mesh;
use model::plan::{Plain, Plan, Tunnel, may_come_back, plan};
use model::workload::Workload;
use proxy::random::draw;
use socket2::SockRef;

use self::search::Search;
use super::accept::{Accepted, MAILBOX_FULL};
use super::carry::Carried;
use super::dial;
use super::finish;
use super::limits::Limit;
use super::pod::Pod;
use super::record::{Ends, Failure, Record, flags, refused_early};
use super::worker::{Job, Worker};

/// Carries a captured connection to its end.
pub(crate) fn serve(worker: Rc<Worker>, pod: Arc<Pod>, accepted: Accepted) -> Carried {
    Carried::opening(open(worker, pod, accepted))
}

/// Carries a connection through a tunnel of this thread; another one decided that.
pub(crate) fn serve_planned(
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    accepted: Accepted,
    source: Arc<Workload>,
    tunnel: Tunnel,
) -> Carried {
    Carried::opening(through_tunnel(worker, pod, accepted, source, tunnel))
}

/// Decides where a connection goes and opens the way there.
async fn open(worker: Rc<Worker>, pod: Arc<Pod>, accepted: Accepted) -> Option<Carried> {
    match decide(&worker, &pod, &accepted).await {
        Ok((source, Plan::Tunnel(tunnel))) => match worker.less_busy() {
            Some((_, other)) => {
                let tunnel = Box::new(tunnel);
                let job = Job::Outbound { pod, accepted, source, tunnel };
                if let Err(Job::Outbound { accepted, source, .. }) = other.try_send(job) {
                    worker.agent.hits.hit(Limit::Mailbox);
                    let ends = ends(&accepted, source, None);
                    refuse(&worker, &accepted, ends, &Failure::new(flags::CONNECT, MAILBOX_FULL));
                }
            }
            None => return through_tunnel(worker, pod, accepted, source, tunnel).await,
        },
        Ok((source, Plan::Plain(plain))) => return in_plain(worker, pod, accepted, source, plain).await,
        Ok((source, Plan::Refuse(refusal))) => {
            let ends = ends(&accepted, source, None);
            refuse(&worker, &accepted, ends, &Failure::new(flags::CONNECT, refusal));
        }
        Ok((source, Plan::Wait(address))) => {
            let ends = ends(&accepted, source, None);
            let why = not_known(&worker.agent.state.read(), &address);
            refuse(&worker, &accepted, ends, &Failure::new(flags::CONNECT, why));
        }
        Err(error) => {
            let destination = accepted.destination.addr();
            finish::reset(&SockRef::from(&accepted.socket));
            refused_early(&worker.agent, &pod, "outbound", accepted.peer, destination, &error);
        }
    }
    None
}

fn not_known(mesh: &Mesh, address: &NetworkAddress) -> String {
    if !mesh.is_to_come(address) {
        return format!("the controller does not say what {} is; it is not passed in plain", address.ip);
    }
    format!(
        "{} is an address of the mesh's own, but the controller knows no such pod or service; it is not passed in plain",
        address.ip
    )
}

/// Who sends the connection and where it goes, waiting for what the controller has not told yet.
async fn decide(worker: &Worker, pod: &Pod, accepted: &Accepted) -> Result<(Arc<Workload>, Plan), String> {
    let mut last = None;
    let decided = worker
        .agent
        .state
        .wait_for(|mesh| {
            let source = pod.workload(mesh)?;
            let planned = plan(mesh, source, accepted.destination, &mut draw);
            let agent = &worker.agent;
            if agent.demand.lacks(mesh, &pod.uid, source, accepted.destination, &planned) {
                let network = source.profile.network.clone();
                let address = NetworkAddress::new(network, accepted.destination.ip());
                last = Some((source.clone(), Plan::Wait(address)));
                return None;
            }
            match planned {
                undecided @ Plan::Wait(_) => {
                    last = Some((source.clone(), undecided));
                    None
                }
                Plan::Refuse(refusal)
                    if worker.agent.state.is_provisional() || may_come_back(mesh, source, &refusal) =>
                {
                    last = Some((source.clone(), Plan::Refuse(refusal)));
                    None
                }
                plan => Some((source.clone(), plan)),
            }
        })
        .await;
    decided.or(last).ok_or_else(|| {
        format!(
            "the controller does not know pod {}/{} (account {})",
            pod.namespace, pod.name, pod.service_account
        )
    })
}

/// What is known of a connection before it is on its way.
fn ends(accepted: &Accepted, source: Arc<Workload>, destination: Option<Arc<Workload>>) -> Ends {
    Ends {
        reporter: Reporter::Source,
        source: Some(source),
        baggage: None,
        source_identity: None,
        next_hop: NextHop::new(accepted.destination.addr()),
        authority: None,
        destination,
        destination_identity: None,
        service: None,
        delivered: None,
    }
}

fn refuse(worker: &Worker, accepted: &Accepted, ends: Ends, failure: &Failure) {
    finish::reset(&SockRef::from(&accepted.socket));
    Record::open(accepted.peer, ends, &worker.agent).end(None, Some(failure));
}

/// Opens the way through a tunnel.
async fn through_tunnel(
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    accepted: Accepted,
    source: Arc<Workload>,
    tunnel: Tunnel,
) -> Option<Carried> {
    let host = tunnel.service.as_ref().map(|service| service.key.hostname());
    let headers = dial::request_headers(Some(&source), accepted.peer, host);
    let identity = source.identity().clone();
    let mut record = Record::open(accepted.peer, ends_by(&accepted, source.clone(), &tunnel), &worker.agent);
    let mut search = Search::default();
    let mut tunnel = tunnel;
    let opened = loop {
        let error = match dial::tunnel(&worker, &pod, &identity, &tunnel, &headers).await {
            Ok(opened) => break opened,
            Err(error) => error,
        };
        match search.next(&worker, &pod, &accepted, &tunnel, &error).await {
            Some(other) => {
                tunnel = other;
                record.rerouted(ends_by(&accepted, source.clone(), &tunnel), &worker.agent);
            }
            None => return fail(&accepted, record, &error.into()),
        }
    };
    let connection = match Connection::from_std(opened.id, accepted.socket, &pod.account) {
        Ok(connection) => connection,
        Err(full) => return full_account(record, full),
    };
    let registered = worker.connections.register(pod, record, connection.live().clone());
    Some(Carried::by_tunnel(opened.stream, connection, registered))
}

/// What is known of a connection that goes by a tunnel.
fn ends_by(accepted: &Accepted, source: Arc<Workload>, tunnel: &Tunnel) -> Ends {
    Ends {
        next_hop: tunnel.next_hop,
        authority: Some(tunnel.authority.to_string().into()),
        source_identity: Some(source.identity().clone()),
        destination_identity: tunnel.expect.first().cloned(),
        service: tunnel.service.clone(),
        ..ends(accepted, source, Some(tunnel.workload.clone()))
    }
}

/// Opens the way in plain.
async fn in_plain(
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    accepted: Accepted,
    source: Arc<Workload>,
    to: Plain,
) -> Option<Carried> {
    let ends = Ends {
        next_hop: to.next_hop,
        service: to.service.clone(),
        ..ends(&accepted, source, to.workload.clone())
    };
    let record = Record::open(accepted.peer, ends, &worker.agent);
    let far = match dial::plain(&pod, to.next_hop.addr()).await {
        Ok(far) => far,
        Err(error) => return fail(&accepted, record, &error.into()),
    };
    let connection = match Connection::from_std(ConnectionId::random(), accepted.socket, &pod.account) {
        Ok(connection) => connection,
        Err(full) => return full_account(record, full),
    };
    let registered = worker.connections.register(pod, record, connection.live().clone());
    Some(Carried::in_plain(connection, far.taken_over(), registered))
}

fn fail(accepted: &Accepted, record: Record, failure: &Failure) -> Option<Carried> {
    // The application sees a reset, as it would if nobody listened; never an empty success.
    finish::reset(&SockRef::from(&accepted.socket));
    record.end(None, Some(failure));
    None
}

fn full_account(record: Record, full: Full) -> Option<Carried> {
    record.end(None, Some(&Failure::new(flags::CONNECT, full)));
    None
}
