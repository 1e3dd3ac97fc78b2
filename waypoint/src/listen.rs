//! Tunnels in: accepted, given to a thread, shaken hands with as this waypoint, and each CONNECT on them understood.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use daemon::metrics::end::End;
use daemon::ports;
use daemon::start::StartError;
use hbone::account::{Account, AccountLimits};
use hbone::fairness::{self, HANDSHAKE, OPENING};
use hbone::handshakes::{Surplus, Unfinished};
use hbone::headers::Headers;
use hbone::transport::{Tls, Transport};
use hbone::tunnel::{Gone, Request, Server};
use identity::tls::Credentials;
use model::Identity;
use model::accept::{Authority, InvalidAuthority};
use model::address::{NetworkAddress, PeerAddress};
use model::baggage::{self, Baggage};
use model::request;
use model::traffic::balance::Labels;
use model::workload::Workload;
use proxy::threads::Counted;
use proxy::tunnel::cause;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use crate::ending::Leaving;
use crate::filter::Asker;
use crate::limits::{Limit, Place};
use crate::protocol::{self, Spoken};
use crate::target::{self, Target};
use crate::trust::Ends;
use crate::worker::{Accepted, Worker};
use crate::{Waypoint, http, tcp, telemetry, trust};

/// How long accepting pauses when the system has run out of something.
const PAUSE: Duration = Duration::from_millis(50);
/// Clients whose accounts are known before those without a tunnel are forgotten.
const ACCOUNTS: usize = 1024;

/// The port of tunnels, taken and not open yet: who connects is refused at once, and asks another replica.
#[derive(Debug)]
pub(crate) struct Port(TcpSocket);

/// Tunnels that wait to be accepted.
const BACKLOG: u32 = 1024;

impl Port {
    /// Takes it.
    ///
    /// # Errors
    /// Somebody has it already.
    pub(crate) fn take(address: SocketAddr) -> Result<Self, StartError> {
        Ok(Self(ports::take(address)?))
    }

    /// Lets tunnels come.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn open(self) -> std::io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

/// Accepts tunnels until the last call, and gives each to the thread that serves fewest. A waypoint that leaves still
/// takes them: not every agent has heard of it.
pub(crate) async fn accept(waypoint: Arc<Waypoint>, listener: TcpListener) {
    let mut accounts = Accounts::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = waypoint.ending.last_call() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly a client that left again; if files have run out, those who are there end in time.
                tracing::debug!(%error, "accept failed");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !waypoint.ledger.has_descriptors() {
            waypoint.hits.hit(Limit::OpenFiles);
            continue;
        }
        let peer = PeerAddress::new(peer);
        let account = accounts.of(&waypoint, peer.ip());
        if let Ok(socket) = prepare(socket) {
            place(&waypoint, Accepted { socket, peer, account });
        }
    }
    drop(listener);
    // A lasting task: it may end with the process only.
    std::future::pending().await
}

fn prepare(socket: tokio::net::TcpStream) -> std::io::Result<std::net::TcpStream> {
    let socket = socket.into_std()?;
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(180));
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(socket)
}

fn place(waypoint: &Waypoint, accepted: Accepted) {
    let Some(least) = waypoint.workers.iter().min_by_key(|worker| worker.tunnels()) else { return };
    if least.try_send(accepted).is_err() {
        waypoint.hits.hit(Limit::Mailbox);
    }
}

/// Whom tunnels are charged to: one account an address, so that no client can take what others need.
#[derive(Debug, Default)]
struct Accounts(HashMap<IpAddr, Weak<Account>>);

impl Accounts {
    fn of(&mut self, waypoint: &Waypoint, peer: IpAddr) -> Arc<Account> {
        if let Some(account) = self.0.get(&peer).and_then(Weak::upgrade) {
            return account;
        }
        if self.0.len() >= ACCOUNTS {
            self.0.retain(|_, account| account.strong_count() > 0);
        }
        let account = Account::listed(AccountLimits::default(), &waypoint.ledger);
        self.0.insert(peer, Arc::downgrade(&account));
        account
    }
}

/// Who is at the other end of a tunnel, as far as it was proved.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its address: an agent connects from its pod's own.
    pub(crate) peer: PeerAddress,
    /// What it was shaken hands with.
    pub(crate) identity: Identity,
    /// The text of it, as headers and labels have it.
    pub(crate) principal: Arc<str>,
    /// What endpoints are told of it.
    pub(crate) asker: Asker,
}

/// Serves a tunnel to its end.
pub(crate) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let _serving = worker.handle().serving();
    let account = accepted.account.clone();
    let _descriptor = match account.descriptors_for(1) {
        Ok(descriptor) => descriptor,
        Err(full) => {
            worker.waypoint.hits.hit(Limit::ClientShare);
            tracing::debug!(peer = %accepted.peer, %full, "refusing a tunnel");
            return;
        }
    };
    let peer = accepted.peer;
    let unfinished = worker.waypoint.handshakes.begin(&(), peer.ip());
    let shaken = tokio::select! {
        biased;
        shaken = Box::pin(handshake(&worker, accepted)) => shaken,
        error = too_many(&worker, unfinished) => Err(error),
    };
    match shaken {
        Ok((transport, client, credentials)) => {
            let (server, driver) = hbone::tunnel::server(transport, worker.waypoint.limits.clone());
            server.charge(&account);
            let leaving = Rc::new(Leaving::new(&worker.waypoint.ending));
            let ends = Ends::Server(leaving.clone());
            let driver = tokio::task::spawn_local(trust::drive(worker.clone(), driver, credentials, ends));
            take_requests(&worker, server, &account, &Rc::new(client), &leaving).await;
            if let Ok(gone) = driver.await
                && gone != Gone::Closed
            {
                tracing::debug!(%peer, %gone, "tunnel ended");
            }
        }
        Err(error) => tracing::warn!(target: "access", client = %peer, %error, "connection failed"),
    }
}

/// Waits until a handshake has to end because others have begun since.
async fn too_many(worker: &Worker, mut unfinished: Unfinished<()>) -> String {
    let surplus = unfinished.ended().await;
    let limit = match surplus {
        Surplus::OfSource => Limit::HandshakesOfPeer,
        Surplus::All | Surplus::OfOwner | Surplus::Memory => Limit::Handshakes,
    };
    if worker.waypoint.hits.hit_and_tell(limit) {
        tracing::warn!(
            ?limit,
            "too many tunnels are begun whose peers do not show who they are, ending the oldest; the access log says where they come from"
        );
    }
    surplus.to_string()
}

async fn handshake(worker: &Worker, accepted: Accepted) -> Result<(Tls, Client, Arc<Credentials>), String> {
    let waypoint = &worker.waypoint;
    let Accepted { socket, peer, account } = accepted;
    fairness::turn(&account, HANDSHAKE).await;
    let credentials =
        waypoint.trust.certificates.get(&waypoint.own.identity).await.map_err(|error| error.to_string())?;
    let accepted = proxy::tunnel::accept(socket, &credentials, &waypoint.limits, &account);
    let (transport, identity) = accepted.await?;
    let fingerprint = transport.peer_certificates().first().map(fingerprint).unwrap_or_default();
    let principal: Arc<str> = identity.to_string().into();
    let asker = Asker::new(peer.ip(), &principal, &fingerprint, &waypoint.own.principal);
    Ok((transport, Client { peer, identity, principal, asker }, credentials))
}

fn fingerprint(certificate: &rustls::pki_types::CertificateDer<'_>) -> String {
    use std::fmt::Write as _;

    use sha2::Digest as _;
    let mut text = String::with_capacity(64);
    for byte in sha2::Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Takes requests until the tunnel ends; once it leaves, the client is told to go elsewhere.
async fn take_requests(
    worker: &Rc<Worker>,
    mut server: Server,
    account: &Arc<Account>,
    client: &Rc<Client>,
    leaving: &Rc<Leaving>,
) {
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = leaving.begun(), if !told => {
                told = true;
                server.drain();
            }
            request = server.accept() => match request {
                Some(request) => {
                    fairness::turn(account, OPENING).await;
                    let waypoint = &worker.waypoint;
                    match waypoint.connections.take(account, waypoint.bounds.connections) {
                        Some(place) => {
                            let (client, leaving) = (client.clone(), leaving.clone());
                            tokio::task::spawn_local(open(worker.clone(), client, leaving, request, place));
                        }
                        None => too_many_connections(worker, client, request),
                    }
                }
                None => return,
            },
        }
    }
}

/// One CONNECT, as far as it is understood: who wants what.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) client: Rc<Client>,
    /// Whether what is asked for on it is to be asked for elsewhere soon.
    pub(crate) leaving: Rc<Leaving>,
    /// The client as the mesh knows it, if its identity is the one proved.
    pub(crate) source: Option<Arc<Workload>>,
    /// Whether that is a waypoint, which asks for others.
    pub(crate) by_waypoint: bool,
    /// What labels say of the client.
    pub(crate) source_end: End,
    /// The labels of its workload, if they are known.
    pub(crate) source_labels: Option<Labels>,
    pub(crate) target: Target,
    /// This waypoint's own workload: what it connects as.
    pub(crate) own: Arc<Workload>,
    /// Counts as a tunnel while it lasts, also where it outlives the tunnel.
    pub(crate) _serving: Counted,
}

impl Inbound {
    /// Its client as rules see it.
    pub(crate) fn asking(&self) -> request::Client<'_> {
        request::Client {
            address: self.client.peer.addr(),
            identity: Some(&self.client.identity),
            labels: self.source_labels.as_deref(),
        }
    }
}

/// Refuses a client that has its share.
fn too_many_connections(worker: &Worker, client: &Client, request: Request) {
    worker.waypoint.hits.hit(Limit::ClientConnections);
    let error = "this client has its share of the connections that the waypoint serves; find what does not close them";
    tracing::warn!(
        target: "access", client = %client.peer, identity = %client.identity,
        authority = request.authority(), error, "connection failed"
    );
    request.refuse(503, &cause(error));
}

/// Serves one CONNECT to its end; it is on the client's account as long.
async fn open(worker: Rc<Worker>, client: Rc<Client>, leaving: Rc<Leaving>, request: Request, _place: Place) {
    if request.resume().is_some() {
        // Nothing is ever detached here.
        return request.refuse(409, &cause("this waypoint holds no detached connections"));
    }
    let inbound = match understand(&worker, &client, leaving, &request).await {
        Ok(inbound) => Rc::new(inbound),
        Err((status, error)) => {
            tracing::warn!(
                target: "access", client = %client.peer, identity = %client.identity,
                authority = request.authority(), %error, "connection failed"
            );
            return request.refuse(status, &cause(&error));
        }
    };
    let headers = Headers::new().with("baggage", baggage::encode(&inbound.own));
    match protocol::spoken(inbound.target.protocol) {
        Spoken::Http => http::serve(worker, inbound, request.accept(&headers)).await,
        Spoken::Tcp => tcp::serve(worker, inbound, request, &headers).await,
        Spoken::Tls => tcp::sniff(worker, inbound, request.accept(&headers), tcp::May::BeTls).await,
        Spoken::NotSaid => tcp::sniff(worker, inbound, request.accept(&headers), tcp::May::BeHttp).await,
    }
}

async fn understand(
    worker: &Worker,
    client: &Rc<Client>,
    leaving: Rc<Leaving>,
    request: &Request,
) -> Result<Inbound, (u16, String)> {
    let authority: Authority =
        request.authority().parse().map_err(|error: InvalidAuthority| (400, error.to_string()))?;
    let waypoint = &worker.waypoint;
    let own =
        waypoint.state.wait_for(|mesh| waypoint.own.workload(mesh).cloned()).await.ok_or_else(|| {
            (503, String::from("the controller does not tell of this waypoint's own workload"))
        })?;
    let mesh = waypoint.state.read();
    let target = target::resolve(&mesh, &own, &authority)
        .map_err(|misdirected| (misdirected.status(), misdirected.to_string()))?;
    let address = NetworkAddress::new(own.profile.network.clone(), client.peer.ip());
    let source = mesh.proven_workload(&address, &client.identity).cloned();
    let baggage = source.is_none().then(|| Baggage::read(request.headers().all("baggage")));
    let source_end = telemetry::source(client, source.as_deref(), baggage.as_ref());
    let source_labels = source.as_ref().and_then(|source| waypoint.labels.of(&source.uid));
    let by_waypoint = source.as_ref().is_some_and(|source| mesh.is_of_waypoint(source));
    Ok(Inbound {
        client: client.clone(),
        leaving,
        source,
        by_waypoint,
        source_end,
        source_labels,
        target,
        own,
        _serving: worker.handle().serving(),
    })
}
