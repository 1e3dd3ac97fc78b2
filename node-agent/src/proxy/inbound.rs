//! An incoming tunnel: the handshake as the pod that was asked, then for each CONNECT: what it asks for
//! ([`model::accept`]), whether it may ([`super::authorize`]), the way to the application, and the bytes.

use std::future::pending;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use hbone::connection::{Connection, ConnectionId};
use hbone::fairness::{self, HANDSHAKE, OPENING};
use hbone::headers::Headers;
use hbone::transport::Tls;
use hbone::tunnel::{Gone, Request, Resume, Server};
use identity::revocation::Side;
use identity::tls::Credentials;
use model::Identity;
use model::accept::{Authority, accept};
use model::address::{AppAddress, NetworkAddress, NextHop, PeerAddress};
use model::baggage::{self, Baggage};
use model::mesh::Mesh;
use model::service::Service;
use model::workload::Workload;
use proxy::tunnel::cause;

use super::accept::no_place;
use super::authorize::{Judgement, REFUSED, judge, judge_in_time};
use super::carry::Carried;
use super::dial;
use super::handshakes::{self, Unfinished};
use super::limits::Limit;
use super::moves::Detached;
use super::parking::Unclaimed;
use super::places::Place;
use super::pod::{Phase, Pod};
use super::record::{Ends, Failure, Record, flags, refused_early};
use super::trust;
use super::worker::Worker;

/// Serves a tunnel to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    socket: TcpStream,
    peer: PeerAddress,
    local: SocketAddr,
    mut place: Place,
) {
    let _served = worker.served();
    let unfinished = place.take_unfinished();
    let shaken = tokio::select! {
        biased;
        // Its state is ten times what a tunnel that stands needs.
        shaken = Box::pin(handshake(&worker, &pod, socket)) => shaken,
        error = too_many(&worker, unfinished) => Err(error),
    };
    match shaken {
        Ok((transport, identity, own)) => {
            let (server, driver) = hbone::tunnel::server(transport, worker.agent.limits.clone());
            server.charge(&pod.account);
            let driver = trust::drive(worker.clone(), driver, own, Side::Client);
            let driver = tokio::task::spawn_local(driver);
            let client = Rc::new(Peer { peer, identity, own: local.ip() });
            take_requests(&worker, &pod, server, &client).await;
            if let Ok(gone) = driver.await
                && gone != Gone::Closed
            {
                tracing::debug!(%peer, %gone, "tunnel ended");
                if matches!(gone, Gone::Excess(_)) {
                    pod.places.went_beyond(peer.ip());
                }
            }
        }
        Err(error) => refused_early(&worker.agent, &pod, "inbound", peer, local, &error),
    }
}

/// Who is at the other end of a tunnel.
#[derive(Debug)]
struct Peer {
    peer: PeerAddress,
    identity: Identity,
    /// The address of the pod that the tunnel was opened to.
    own: IpAddr,
}

/// Waits until a handshake has to end because others have begun since.
async fn too_many(worker: &Worker, unfinished: Option<Unfinished>) -> String {
    let Some(mut unfinished) = unfinished else { return pending().await };
    let surplus = unfinished.ended().await;
    let limit = handshakes::limit(surplus);
    if worker.agent.hits.hit_and_tell(limit) {
        tracing::warn!(
            ?limit,
            "too many tunnels are begun whose peers do not show who they are, ending the oldest"
        );
    }
    surplus.to_string()
}

async fn handshake(
    worker: &Worker,
    pod: &Pod,
    socket: TcpStream,
) -> Result<(Tls, Identity, Arc<Credentials>), String> {
    fairness::turn(&pod.account, HANDSHAKE).await;
    let agent = &worker.agent;
    let own =
        agent.state.wait_for(|mesh| pod.workload(mesh).map(|workload| workload.identity().clone())).await;
    let own =
        own.ok_or_else(|| format!("the controller does not know pod {}/{}", pod.namespace, pod.name))?;
    let credentials = agent.trust.certificates.get(&own).await.map_err(|error| error.to_string())?;
    let accepted = proxy::tunnel::accept(socket, &credentials, &agent.limits, &pod.account);
    let (transport, identity) = accepted.await?;
    Ok((transport, identity, credentials))
}

/// Takes requests until the tunnel ends or its pod does.
async fn take_requests(worker: &Rc<Worker>, pod: &Arc<Pod>, mut server: Server, client: &Rc<Peer>) {
    let mut phases = pod.phases();
    // It may have moved on during the handshake.
    phases.mark_changed();
    let mut too_late = false;
    loop {
        tokio::select! {
            biased;
            changed = phases.changed() => match changed.map(|()| *phases.borrow_and_update()) {
                Ok(Phase::Serving) => {}
                Ok(Phase::Draining) => {
                    // What a client that has not shown yet what it can opened here could not be handed over: it goes
                    // elsewhere at once. Where it is the pod that leaves, there is nowhere else.
                    too_late = worker.agent.is_retiring() && !server.capable();
                    if too_late { server.drain_now() } else { server.drain() }
                }
                Ok(Phase::Gone) | Err(_) => return server.close(),
            },
            request = server.accept() => match request {
                Some(request) if too_late => request.turn_away(),
                Some(request) => {
                    fairness::turn(&pod.account, OPENING).await;
                    let opening = open(worker.clone(), pod.clone(), client.clone(), request);
                    tokio::task::spawn_local(Carried::opening(opening));
                }
                None => return,
            },
        }
    }
}

/// What is known of a request once it has been understood.
struct Understood {
    delivered: AppAddress,
    local: Arc<Workload>,
    source: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
}

/// Answers one CONNECT: what it asks for, whether it may, the way to the application.
async fn open(worker: Rc<Worker>, pod: Arc<Pod>, client: Rc<Peer>, request: Request) -> Option<Carried> {
    if let Some(resume) = request.resume() {
        return go_on(worker, &client, &pod, request, resume).await;
    }
    // As long as it is being opened, and that is as long as the application takes to answer.
    let _opening = match pod.places.request() {
        Ok(opening) => opening,
        Err(full) => {
            no_place(&worker, &pod, &"requests", full);
            request.refuse(503, &cause(&full.to_string()));
            return None;
        }
    };
    let understood = match understand(&worker, &pod, &client, &request).await {
        Ok(understood) => understood,
        Err((status, error)) => {
            refused_early(
                &worker.agent,
                &pod,
                "inbound",
                client.peer,
                SocketAddr::new(client.own, model::ports::HBONE),
                &error,
            );
            request.refuse(status, &cause(&error));
            return None;
        }
    };
    let delivered = understood.delivered;
    let ends = ends(&client, &request, &understood);
    let record = Record::open(client.peer, ends, &worker.agent);
    let rules = worker.agent.state.rules_revision();
    if let Err(error) = authorize(&worker, &pod, &client, delivered).await {
        return refuse(request, 401, record, &Failure::new(flags::DENY, error));
    }
    let application = match dial::application(&pod, delivered.addr(), Some(client.peer.ip())).await {
        Ok(application) => application,
        Err(error) => return refuse(request, 503, record, &error.into()),
    };
    let id = request.connection().unwrap_or_else(ConnectionId::random);
    let connection = match Connection::new(id, application.taken_over(), &pod.account) {
        Ok(connection) => connection,
        Err(full) => return refuse(request, 503, record, &Failure::new(flags::CONNECT, full)),
    };
    let registered = worker.connections.register(pod.clone(), record, connection.live().clone());
    // A rule that changed between the verdict and the table's entry would otherwise be missed.
    if worker.agent.state.rules_revision() != rules
        && let Err(error) = still_allowed(&worker, &pod, &client, delivered)
    {
        let (_, record) = registered.leave()?;
        return refuse(request, 401, record, &Failure::new(flags::DENY, error));
    }
    let headers = Headers::new().with("baggage", baggage::encode(&understood.local));
    Some(Carried::by_tunnel(request.accept(&headers), connection, registered))
}

/// Goes on with a connection that its client has taken off another tunnel: the same client's, to the same pod, and both
/// ends agree on every byte. It is judged like a new one.
async fn go_on(
    worker: Rc<Worker>,
    client: &Peer,
    pod: &Arc<Pod>,
    request: Request,
    resume: Resume,
) -> Option<Carried> {
    let agent = &worker.agent;
    let rightful = |detached: &Detached| is_rightful(detached, pod, client, &resume);
    let coming = || !agent.predecessors.none();
    let detached = match agent.parking.claim(&pod.uid, resume.id, rightful, coming).await {
        Ok(detached) => detached,
        Err(Unclaimed::TooMany) => {
            agent.hits.hit(Limit::Claims);
            request.turn_away();
            return None;
        }
        // What was parked here is the newer proxy's, which a new tunnel leads to.
        Err(Unclaimed::NotHere) if agent.is_retiring() => {
            request.turn_away();
            return None;
        }
        Err(error @ Unclaimed::NotHere) => {
            request.refuse(409, &cause(&error.to_string()));
            return None;
        }
    };
    let peer = detached.record.peer();
    let identity = Some(&client.identity);
    let verdict = match detached.record.ends().delivered {
        Some(delivered) => refusal(judge_in_time(&agent.state, pod, peer, identity, delivered).await),
        None => Ok(()),
    };
    if let Err(error) = verdict {
        request.refuse(401, &cause(&error));
        detached.give_up(error);
        return None;
    }
    if request.is_gone() {
        // The client will ask again, on a tunnel that is there.
        agent.parking.park(*detached);
        return None;
    }
    let headers = match detached.record.ends().destination.as_deref() {
        Some(local) => Headers::new().with("baggage", baggage::encode(local)),
        None => Headers::new(),
    };
    let Detached { pod, record, connection, .. } = *detached;
    let registered = worker.connections.register(pod, record, connection.live().clone());
    // As in `open`: a rule may have changed between the verdict and the table's entry.
    registered.judge(&agent.state);
    Some(Carried::by_tunnel(request.accept(&headers), connection, registered))
}

/// Whether a client may go on with a connection: the same identity, from the same address to the same pod's, by which it
/// was judged and will be, and both ends agree on every byte.
fn is_rightful(detached: &Detached, pod: &Pod, client: &Peer, resume: &Resume) -> bool {
    let ends = detached.record.ends();
    detached.pod.uid == pod.uid
        && ends.source_identity.as_ref() == Some(&client.identity)
        && detached.record.peer().ip() == client.peer.ip()
        && ends.next_hop.ip() == client.own
        && resume.matches(&detached.connection)
}

/// Refuses a CONNECT, and tells of it.
fn refuse(request: Request, status: u16, record: Record, failure: &Failure) -> Option<Carried> {
    request.refuse(status, &cause(&failure.error));
    record.end(None, Some(failure));
    None
}
/// Reads what is asked for, as soon as the controller has told of the pod.
async fn understand(
    worker: &Worker,
    pod: &Pod,
    client: &Peer,
    request: &Request,
) -> Result<Understood, (u16, String)> {
    let authority: Authority = request
        .authority()
        .parse()
        .map_err(|error: model::accept::InvalidAuthority| (400, error.to_string()))?;
    let known = worker.agent.state.wait_for(|mesh| pod.workload(mesh).cloned()).await;
    let local = known
        .ok_or_else(|| (503, format!("the controller does not know pod {}/{}", pod.namespace, pod.name)))?;
    if local.profile.application_tunnel.is_some_and(|tunnel| tunnel.proxy_protocol) {
        let refused = "application tunnels with PROXY protocol are not supported yet";
        return Err((503, String::from(refused)));
    }
    if let Authority::Host { host, .. } = &authority {
        let own = local.profile.services.iter().filter(|(key, _)| key.hostname() == *host);
        let names = own.map(|(key, _)| key.text().clone()).collect();
        worker.agent.demand.names(&worker.agent.state, &pod.uid, names).await;
    }
    let mesh = worker.agent.state.read();
    let delivered = accept(&mesh, &local, client.own, &authority)
        .map_err(|misdirected| (misdirected.status(), misdirected.to_string()))?;
    let address = NetworkAddress::new(local.profile.network.clone(), client.peer.ip());
    let source = mesh.proven_workload(&address, &client.identity).cloned();
    if source.is_none() && request.headers().first("baggage").is_none() {
        worker.agent.demand.ask_for_peer(&mesh, address);
    }
    let service = asked_service(&mesh, &local, &authority, request, worker.agent.demand.is_on());
    Ok(Understood { delivered, local, source, service })
}

/// The service that the client asked for, if this pod is really one of its endpoints.
fn asked_service(
    mesh: &Mesh,
    local: &Workload,
    authority: &Authority,
    request: &Request,
    on_demand: bool,
) -> Option<Arc<Service>> {
    let named = match authority {
        Authority::Host { host, .. } => Some(host.as_str()),
        Authority::Address(_) => request.headers().first("forwarded").and_then(baggage::forwarded_host),
    }?;
    let (key, _) = local.profile.services.iter().find(|(key, _)| key.hostname() == named)?;
    // Where only what is asked for is known, its name is enough for labels.
    mesh.service(key).cloned().or_else(|| on_demand.then(|| Arc::new(Service::named(key.clone()))))
}

fn ends(client: &Peer, request: &Request, understood: &Understood) -> Ends {
    let said = || Box::new(Baggage::read(request.headers().all("baggage")));
    Ends {
        reporter: Reporter::Destination,
        baggage: understood.source.is_none().then(said),
        source: understood.source.clone(),
        source_identity: Some(client.identity.clone()),
        next_hop: NextHop::new(SocketAddr::new(client.own, model::ports::HBONE)),
        authority: Some(request.authority().into()),
        destination_identity: Some(understood.local.identity().clone()),
        destination: Some(understood.local.clone()),
        service: understood.service.clone(),
        delivered: Some(understood.delivered),
    }
}

async fn authorize(worker: &Worker, pod: &Pod, client: &Peer, delivered: AppAddress) -> Result<(), String> {
    let identity = Some(&client.identity);
    refusal(judge_in_time(&worker.agent.state, pod, client.peer, identity, delivered).await)
}

fn still_allowed(worker: &Worker, pod: &Pod, client: &Peer, delivered: AppAddress) -> Result<(), String> {
    refusal(judge(&worker.agent.state, pod, client.peer, Some(&client.identity), delivered))
}

/// The text of a refusal.
pub(crate) fn refusal(judgement: Judgement) -> Result<(), String> {
    match judgement {
        Judgement::Decided(decision) => {
            for rule in &decision.dry_run {
                tracing::info!(target: "rbac", %rule, action = %rule.action, "dry run: the rule matches");
            }
            if decision.allows() {
                return Ok(());
            }
            Err(format!("{REFUSED}{}", decision.cause))
        }
        Judgement::NotKnown(why) => Err(format!("{REFUSED}{why}")),
    }
}
