//! A waypoint with its threads, the agent of a pod and the application behind it, and clients of the mesh.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use daemon::log::{Format, Log};
use daemon::metrics::Metrics;
use hbone::account::{Account, AccountLimits};
use hbone::connection::{Connection as Carried, ConnectionId};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::transport::Transport as _;
use hbone::tunnel::{Client, Stream};
use identity::authority::{AuthorityError, CertificateAuthority};
use identity::bundle::CertificateBundle;
use identity::tls::{Credentials, Tls, TlsSettings, no_server_name};
use model::Identity;
use model::mesh::Update;
use model::service::{AppProtocol, Ports, Service};
use testkit::certificates::TestAuthority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

use super::fixtures::{edit, identity, key, pod, ports, service, waypoint};
use crate::limits::Bounds;
use crate::{Waypoint, app, listen, worker};

pub(super) const VIP: &str = "10.96.0.1";
pub(super) const HTTP: u16 = 80;
pub(super) const GRPC: u16 = 81;
pub(super) const TCP: u16 = 82;
pub(super) const UNDECLARED: u16 = 83;

/// The authority that all of them have their certificates of.
#[derive(Clone)]
struct Shared(Arc<TestAuthority>);

impl CertificateAuthority for Shared {
    async fn issue(&self, identity: &Identity) -> Result<CertificateBundle, AuthorityError> {
        self.0.issue(identity).await
    }
}

/// What a pod's agent was asked.
#[derive(Debug, Clone)]
pub(super) struct Connect {
    pub(super) identity: Identity,
    pub(super) authority: String,
    pub(super) forwarded: String,
}

thread_local! {
    /// Whether pods' agents refuse what is asked of them, as by a policy.
    pub(super) static REFUSES: Cell<bool> = const { Cell::new(false) };
    /// Whether they say nothing to what is asked of them.
    pub(super) static SILENT: Cell<bool> = const { Cell::new(false) };
}

pub(super) struct World {
    pub(super) waypoint: Arc<Waypoint>,
    pub(super) metrics: Metrics,
    /// What the pod's agent was asked, in order.
    pub(super) connects: Rc<RefCell<Vec<Connect>>>,
    addresses: Addresses,
    authority: Arc<TestAuthority>,
    pub(super) pod: model::workload::Workload,
    pub(super) service: Service,
}

/// Addresses of loopback that no other world has.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    middle: [u8; 2],
}

impl Addresses {
    fn fresh() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let own =
            u16::try_from(std::process::id() % 250).unwrap() * 256 + NEXT.fetch_add(1, Ordering::Relaxed);
        // 127.0.x.y is everybody's.
        Self { middle: [own.to_be_bytes()[0] + 3, own.to_be_bytes()[1]] }
    }

    fn ip(self, last: u8) -> IpAddr {
        let [a, b] = self.middle;
        Ipv4Addr::new(127, a, b, last).into()
    }
}

fn tls() -> Tls {
    Tls::new(TlsSettings { secret_extraction: true, ..TlsSettings::default() })
}

fn account() -> Arc<Account> {
    Account::new(AccountLimits::default())
}

impl World {
    /// A world whose application listens on the pod's four ports, `application` for each connection there.
    pub(super) async fn new<F: Future<Output = ()> + 'static>(application: fn(TcpStream, u16) -> F) -> Self {
        Self::bounded(application, Bounds::default()).await
    }

    /// The same with a waypoint of these bounds.
    pub(super) async fn bounded<F: Future<Output = ()> + 'static>(
        application: fn(TcpStream, u16) -> F,
        bounds: Bounds,
    ) -> Self {
        let addresses = Addresses::fresh();
        let metrics = Metrics::default();
        let instance = addresses.ip(1).to_string();
        let args = [
            "--service-account=waypoint",
            "--pod-namespace=shop",
            "--worker-threads=2",
            &format!("--instance-ip={instance}"),
        ];
        let settings = crate::config::read(args.map(str::to_owned), |_| None).unwrap();
        let log = Log::start("info", Format::Plain).unwrap();
        let (waypoint, mailboxes) = app::waypoint(&settings, log, &metrics, bounds).unwrap();
        let _threads = worker::start_all(&waypoint, mailboxes).unwrap();
        let authority = Arc::new(TestAuthority::default());
        spawn_local(waypoint.trust.certificates.drive(Shared(authority.clone())));
        let listener = TcpListener::bind(SocketAddr::new(addresses.ip(1), 15008)).await.unwrap();
        spawn_local(listen::accept(waypoint.clone(), listener));

        let all = || {
            ports(&[
                (HTTP, 8080, AppProtocol::Http11),
                (GRPC, 8081, AppProtocol::Grpc),
                (TCP, 8082, AppProtocol::Tcp),
                (UNDECLARED, 8083, AppProtocol::Unknown),
            ])
        };
        let own = edit(pod("waypoint", addresses.ip(1)), |own| {
            own.services = [(key("waypoint"), Ports::default())].into();
            own.native_tunnel = true;
        });
        let server = edit(pod("server", addresses.ip(2)), |server| {
            server.services = [(key("reviews"), all())].into();
            server.waypoint = Some(super::fixtures::waypoint("waypoint"));
        });
        let reviews =
            Service { waypoint: Some(self::waypoint("waypoint").into()), ..service("reviews", VIP, all()) };
        waypoint.take(vec![
            Update::Service(service("waypoint", "10.96.0.9", Ports::default())),
            Update::Service(reviews.clone()),
            Update::Workload(own),
            Update::Workload(server.clone()),
            Update::Workload(pod("client", Ipv4Addr::LOCALHOST.into())),
        ]);
        waypoint.state.told_all();
        let connects = Rc::default();
        let world = Self { waypoint, metrics, connects, addresses, authority, pod: server, service: reviews };
        world.serve_pod(world.pod_ip(), "server", application).await;
        world
    }

    /// A second pod behind the service, of another version.
    pub(super) async fn second<F: Future<Output = ()> + 'static>(
        &self,
        application: fn(TcpStream, u16) -> F,
    ) {
        let ip = self.addresses.ip(3);
        self.serve_pod(ip, "second", application).await;
        let second = edit(pod("second", ip), |second| second.services = self.pod.profile.services.clone());
        for (uid, version) in [(&self.pod.uid, "v1"), (&second.uid, "v2")] {
            let labels = [("version".into(), version.into())].into();
            self.waypoint.labels.set(uid, Some(Arc::new(labels)));
        }
        self.waypoint.take(vec![Update::Workload(second)]);
    }

    /// Whom the last connection through a pod's agent was for: the last byte of its address.
    pub(super) fn last_pod(&self) -> u8 {
        let connects = self.connects.borrow();
        let last = connects.last().expect("there was one").authority.parse::<SocketAddr>().unwrap();
        match last.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => panic!("{ip}"),
        }
    }

    /// The address of the pod behind the service.
    pub(super) fn pod_ip(&self) -> IpAddr {
        self.addresses.ip(2)
    }

    fn credentials(&self, account: &str) -> Credentials {
        let tls = tls();
        let bundle = self.authority.bundle(&identity(account));
        let trust = tls.trust(self.authority.roots()).unwrap();
        tls.credentials(bundle, &trust).unwrap()
    }

    /// The pod's agent and application.
    async fn serve_pod<F: Future<Output = ()> + 'static>(
        &self,
        ip: IpAddr,
        account: &str,
        application: fn(TcpStream, u16) -> F,
    ) {
        for port in 8080..=8083 {
            let listener = TcpListener::bind(SocketAddr::new(ip, port)).await.unwrap();
            spawn_local(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    spawn_local(application(socket, port));
                }
            });
        }
        let listener = TcpListener::bind(SocketAddr::new(ip, 15008)).await.unwrap();
        let credentials = Rc::new(self.credentials(account));
        let connects = self.connects.clone();
        spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                spawn_local(agent(socket, credentials.clone(), connects.clone()));
            }
        });
    }

    /// A connection to the waypoint's tunnels from this address, on which nothing is said.
    pub(super) async fn silent(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(self.addresses.ip(last), 0)).unwrap();
        socket.connect(SocketAddr::new(self.addresses.ip(1), 15008)).await.unwrap()
    }

    /// A client's tunnel to the waypoint, under an account.
    pub(super) async fn tunnel(&self, account_name: &str) -> Client {
        let socket = TcpStream::connect(SocketAddr::new(self.addresses.ip(1), 15008)).await.unwrap();
        let credentials = self.credentials(account_name);
        let config = credentials.client_config([identity("waypoint")]);
        let limits = Limits::default();
        let transport = Tls_::connect(socket, config, no_server_name(), &limits, &account()).await.unwrap();
        let (client, driver) = hbone::tunnel::client(transport, limits);
        spawn_local(driver);
        client
    }

    /// A connection of a client to a port of the service.
    pub(super) async fn connect(&self, port: u16) -> Stream {
        self.connect_as("client", &format!("{VIP}:{port}")).await.unwrap()
    }

    /// A connection by which the application was asked to shout from then on, and the head of its answer.
    pub(super) async fn ask_to_shout(&self, port: u16) -> (Stream, String) {
        let mut stream = self.connect(port).await;
        let head = "GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(heard).unwrap())
    }

    /// A connection of a client to an authority, or the status of the refusal.
    pub(super) async fn connect_as(&self, account: &str, authority: &str) -> Result<Stream, u16> {
        match self.tunnel(account).await.connect(authority, &Headers::new()).await {
            Ok(opened) => Ok(opened.stream),
            Err(hbone::tunnel::ConnectError::Refused { status, .. }) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }

    /// The value of the only series whose line begins so and has all of these labels; none if there is none.
    pub(super) fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let text = self.metrics.text();
        let fits = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        let found: Vec<_> = text.lines().filter(fits).collect();
        assert!(found.len() <= 1, "{found:#?}");
        found.first().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }
}

use hbone::transport::Tls as Tls_;

/// The agent of the pod: takes tunnels, notes what is asked for, and carries it to the application.
async fn agent(socket: TcpStream, credentials: Rc<Credentials>, connects: Rc<RefCell<Vec<Connect>>>) {
    let limits = Limits::default();
    let accepted = Tls_::accept(socket, credentials.server_config(), &limits, &account()).await;
    // Who dials may give up; a panic's backtrace would keep this thread, which all pods share, from others for seconds.
    let Ok(transport) = accepted else { return };
    let identity = identity::verify::peer_identity(transport.peer_certificates()).unwrap();
    let (mut server, driver) = hbone::tunnel::server(transport, limits);
    spawn_local(driver);
    while let Some(request) = server.accept().await {
        let authority = request.authority().to_owned();
        let forwarded = request.headers().text("forwarded").unwrap_or_default().to_owned();
        connects.borrow_mut().push(Connect {
            identity: identity.clone(),
            authority: authority.clone(),
            forwarded,
        });
        spawn_local(async move {
            if SILENT.get() {
                return std::future::pending().await;
            }
            if REFUSES.get() {
                let cause = Headers::new().with("lateen-cause", "denied by policy shop/nobody");
                return request.refuse(403, &cause);
            }
            let Ok(application) = TcpStream::connect(authority).await else {
                return request.refuse(503, &Headers::new());
            };
            let carried = Carried::new(ConnectionId::random(), application, &account()).unwrap();
            request.accept(&Headers::new()).splice(carried).await.close();
        });
    }
}

/// Runs a test on this thread, tasks and all, for at most half a minute.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    let limited =
        async { tokio::time::timeout(std::time::Duration::from_secs(30), tasks.run_until(test)).await };
    runtime.block_on(limited).expect("it ends in time");
}
