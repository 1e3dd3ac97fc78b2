//! A controller and proxies of it, on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use identity::control_plane::{ControlPlane, ControlPlaneSettings};
use identity::tls::{Tls, TlsSettings};
use model::authz::{Action, Policy, PolicyScope, Rule};
use model::mesh::{Settings, Update};
use model::workload::{PolicyName, Workload};
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Extensions, Status};
use xds::client::{Client, ClientConfig, ClientHandle, Ending, Observer};
use xds::convert::{Decoder, resource};
use xds::delta::store::{Edit, Resource, Revision};
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::feed::Feed;
use xds::node::NodeInfo;
use xds::server::{Clients, Control, Publisher, Server};

/// How long to wait for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const SERVER_NAME: &str = "istiod.istio-system.svc";

/// Shows one publisher to whoever has the token.
pub(crate) struct Gate {
    publisher: Arc<Publisher>,
    tokens: Mutex<Vec<String>>,
    /// Nobody is answered while it is not.
    open: watch::Sender<bool>,
}

impl Gate {
    fn new(publisher: &Arc<Publisher>) -> Arc<Self> {
        let open = watch::Sender::new(true);
        Arc::new(Self { publisher: publisher.clone(), tokens: Mutex::default(), open })
    }
}

impl Control for Gate {
    type Caller = String;

    async fn authenticate(&self, metadata: &MetadataMap, _: &Extensions) -> Result<String, Status> {
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("none");
        self.tokens.lock().expect("no panic").push(token.to_owned());
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        match token {
            "Bearer secret" => Ok("agent".to_owned()),
            "Bearer other" => Ok("other".to_owned()),
            _ => Err(Status::unauthenticated("unknown token")),
        }
    }

    fn view(&self, _: &String, _: &NodeInfo) -> Result<Arc<Publisher>, Status> {
        Ok(self.publisher.clone())
    }
}

/// A controller.
pub(crate) struct Mesh {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) roots: String,
    identity: Option<Identity>,
    gate: Arc<Gate>,
    clients: Arc<Clients<String>>,
    port: u16,
    server: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
}

fn publisher() -> Arc<Publisher> {
    Arc::new(Publisher::new(resource::TYPES))
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        let key = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).expect("a certificate");
        let (roots, secret) = (key.cert.pem(), key.signing_key.serialize_pem());
        Self::with(Some(Identity::from_pem(&roots, secret)), roots).await
    }

    pub(crate) async fn plaintext() -> Self {
        Self::with(None, String::new()).await
    }

    async fn with(identity: Option<Identity>, roots: String) -> Self {
        let publisher = publisher();
        let gate = Gate::new(&publisher);
        let clients = Server::new(gate.clone()).clients();
        let mut mesh = Self { publisher, roots, identity, gate, clients, port: 0, server: None };
        mesh.listen().await;
        mesh
    }

    /// Serves on the port of before.
    pub(crate) async fn listen(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind((Ipv4Addr::LOCALHOST, self.port).into()).expect("a free port");
        let listener: TcpListener = socket.listen(64).expect("a listener");
        self.port = listener.local_addr().expect("an address").port();
        let server = Server::new(self.gate.clone());
        self.clients = server.clients();
        let mut transport = tonic::transport::Server::builder();
        if let Some(identity) = &self.identity {
            let tls = ServerTlsConfig::new().identity(identity.clone());
            transport = transport.tls_config(tls).expect("a certificate");
        }
        let serve = transport
            .add_service(server.into_service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        self.server = Some(tokio::spawn(serve));
    }

    /// Ends the server and puts another in its place, which knows nothing and does not listen yet.
    pub(crate) async fn replace_server(&mut self) {
        self.publisher.close();
        let server = self.server.take().expect("a server");
        server.abort();
        // Its listener is closed once it has ended.
        drop(server.await);
        self.publisher = publisher();
        self.gate = Gate::new(&self.publisher);
    }

    pub(crate) fn publish(&self, (type_url, resource): (&str, Resource)) -> Revision {
        let mut edit = Edit::new();
        edit.put(type_url, resource);
        self.publisher.apply(edit).expect("a change")
    }

    /// Answers those who come, or has them wait.
    pub(crate) fn open(&self, open: bool) {
        self.gate.open.send_replace(open);
    }

    pub(crate) fn clients(&self) -> &Clients<String> {
        &self.clients
    }

    pub(crate) fn seen_tokens(&self) -> Vec<String> {
        self.gate.tokens.lock().expect("no panic").clone()
    }

    /// The way to it, by a file of roots.
    pub(crate) fn controller(&self, roots: &std::path::Path) -> ControlPlane {
        let mut settings = ControlPlaneSettings::new(self.address(), roots);
        settings.server_name = Some(SERVER_NAME.to_owned());
        ControlPlane::new(&Tls::new(TlsSettings::default()), &settings).expect("good settings")
    }

    pub(crate) fn address(&self) -> String {
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

pub(crate) fn settings(trust_domain: &str) -> (&'static str, Resource) {
    let settings = Settings { trust_domain: trust_domain.into(), ..Settings::default() };
    (MESH_SETTINGS, resource::settings(&settings, ""))
}

pub(crate) fn workload(uid: &str, policies: &[&str]) -> (&'static str, Resource) {
    let wire = proto::workload::Workload {
        uid: uid.into(),
        name: uid.into(),
        namespace: "default".into(),
        authorization_policies: policies.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let r#type = Some(proto::workload::address::Type::Workload(wire));
    (ADDRESS, Resource::pack(uid, &proto::workload::Address { r#type }))
}

pub(crate) fn policy(name: &str, matching: bool) -> (&'static str, Resource) {
    let policy = Policy {
        name: PolicyName { namespace: "default".into(), name: name.into() },
        scope: PolicyScope::Workload,
        action: Action::Allow,
        rules: if matching { [Rule::default()].into() } else { Box::default() },
        dry_run: false,
        invalid: None,
    };
    (AUTHORIZATION, resource::policy(&policy))
}

/// What a proxy knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) workloads: BTreeMap<String, Workload>,
    pub(crate) policies: BTreeMap<String, Policy>,
    pub(crate) removed: BTreeSet<String>,
    pub(crate) updates: usize,
}

impl Known {
    fn apply(&mut self, update: Update) {
        self.updates += 1;
        match update {
            Update::Workload(workload) => drop(self.workloads.insert(workload.uid.to_string(), workload)),
            Update::RemoveAddress(name) => {
                self.workloads.remove(&*name);
                self.removed.insert(name.to_string());
            }
            Update::Policy(policy) => drop(self.policies.insert(policy.name.to_string(), policy)),
            Update::RemovePolicy(name) => drop(self.policies.remove(&name.to_string())),
            Update::Service(_) | Update::Settings(_) => {}
        }
    }
}

/// A proxy.
pub(crate) struct Proxy {
    pub(crate) handle: ClientHandle,
    pub(crate) known: watch::Receiver<Known>,
    pub(crate) endings: watch::Receiver<Vec<Ending>>,
    files: tempfile::TempDir,
    client: AbortHandle,
}

struct Endings(watch::Sender<Vec<Ending>>);

impl Observer for Endings {
    fn ended(&self, ending: Ending) {
        self.0.send_modify(|endings| endings.push(ending));
    }
}

impl Proxy {
    pub(crate) fn start(mesh: &Mesh, name: &str) -> Self {
        Self::with(mesh, &mesh.roots, name, "secret", Mode::All)
    }

    pub(crate) fn with_token(mesh: &Mesh, name: &str, token: &str) -> Self {
        Self::with(mesh, &mesh.roots, name, token, Mode::All)
    }

    pub(crate) fn trusting(mesh: &Mesh, roots: &str) -> Self {
        Self::with(mesh, roots, "a", "secret", Mode::All)
    }

    pub(crate) fn on_demand(mesh: &Mesh) -> Self {
        Self::with(mesh, &mesh.roots, "a", "secret", Mode::Demand)
    }

    fn with(mesh: &Mesh, roots: &str, name: &str, token: &str, addresses: Mode) -> Self {
        let files = tempfile::tempdir().expect("a folder");
        std::fs::write(files.path().join("root-cert.pem"), roots).expect("a file");
        std::fs::write(files.path().join("token"), token).expect("a file");
        let controller = mesh.controller(&files.path().join("root-cert.pem"));
        let config = ClientConfig {
            address: mesh.address(),
            dial: Arc::new(move || Box::pin(controller.connect())),
            token_file: Some(files.path().join("token")),
            cluster_id: "Kubernetes".to_owned(),
            headers: Vec::new(),
        };
        let subscriptions = [
            Subscription { type_url: MESH_SETTINGS.into(), mode: Mode::All, required: false },
            Subscription { type_url: AUTHORIZATION.into(), mode: Mode::All, required: true },
            Subscription { type_url: ADDRESS.into(), mode: addresses, required: addresses == Mode::All },
        ];
        let node = NodeInfo::new("ztunnel", None, name, "istio-system").on_node("node-1");
        let subscriber = Subscriber::new(node.to_wire(), subscriptions);
        let (knows, known) = watch::channel(Known::default());
        let feed = Feed::new(Decoder::default(), move |updates: Vec<Update>| {
            knows.send_modify(|known| updates.into_iter().for_each(|update| known.apply(update)));
        });
        let (ended, endings) = watch::channel(Vec::new());
        let (client, handle) = Client::new(config, subscriber, feed);
        let running = tokio::spawn(client.observed_by(Arc::new(Endings(ended))).run());
        Self { handle, known, endings, files, client: running.abort_handle() }
    }

    pub(crate) fn write_token(&self, token: &str) {
        std::fs::write(self.files.path().join("token"), token).expect("a file");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.client.abort();
    }
}
