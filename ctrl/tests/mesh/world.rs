//! Folders of manifests, a controller that reads them, and proxies of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use ctrl::app::{ADMIN_SOCKET, App};
use ctrl::config::{self, Config};
use daemon::shutdown::Shutdown;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use identity::authority::CertificateAuthority;
use identity::bundle::CertificateBundle;
use identity::ca_client::{CaClient, CaClientSettings};
use identity::control_plane::{ControlPlane, ControlPlaneSettings};
use identity::tls::{Tls, TlsSettings};
use model::mesh::{Mesh, Update};
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use xds::client::{Client, ClientConfig, ClientHandle};
use xds::convert::Decoder;
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::feed::Feed;
use xds::node::NodeInfo;

/// How long to wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// The token of node-1.
pub(crate) const TOKEN: &str = "the token of node-1, random in real life";

/// The token of node-2.
pub(crate) const TOKEN_2: &str = "the token of node-2, another one";

/// Everything on disk.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// A running controller.
pub(crate) struct Ctrl {
    pub(crate) address: SocketAddr,
    state: PathBuf,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), daemon::tasks::Defect>>,
}

/// A proxy and what it knows.
pub(crate) struct Proxy {
    mesh: Arc<RwLock<Mesh>>,
    changed: watch::Receiver<()>,
    updates: Arc<AtomicUsize>,
    handle: ClientHandle,
    client: AbortHandle,
    _token: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["source", "objects", "tokens"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("tokens/node-1"), TOKEN).unwrap();
        std::fs::write(folder.path().join("tokens/node-2"), TOKEN_2).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("source").join(file)
    }

    /// Writes a manifest.
    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    pub(crate) fn object_path(&self, kind: &str, name: &str) -> PathBuf {
        self.folder.path().join("objects").join(kind).join("shop").join(format!("{name}.json"))
    }

    /// Writes an object of the mesh's own.
    pub(crate) fn object(&self, object: &Value) {
        manifest::State::at(self.folder.path().join("objects")).write(object).unwrap();
    }

    pub(crate) async fn start(&self) -> Ctrl {
        self.start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(&self, address: SocketAddr) -> Ctrl {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let flags = [
            ("--source", at("source")),
            ("--objects", at("objects")),
            ("--state", at("state")),
            ("--tokens", at("tokens")),
            ("--listen", address.to_string()),
            ("--monitoring-addr", "127.0.0.1:0".to_owned()),
            ("--pod-cidrs", "10.244.0.0/16,fd00:10:244::/48".to_owned()),
        ];
        let args = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let config = Config::new(&config::read(args, |_| None).unwrap()).unwrap();
        let app = App::bind(config, None).await.unwrap();
        let address = app.address().unwrap();
        let shutdown = Shutdown::default();
        let running = tokio::spawn(app.run(shutdown.clone()));
        let ctrl = Ctrl { address, state: self.folder.path().join("state"), shutdown, running };
        until("readiness", async || ctrl.try_status("/healthz/ready").await == Some(200)).await;
        ctrl
    }
}

impl Ctrl {
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("it ends")
            .unwrap()
            .expect("no part of it failed");
    }

    pub(crate) fn proxy(&self, node: &str) -> Proxy {
        self.proxy_with_token(node, TOKEN)
    }

    pub(crate) fn proxy_with_token(&self, node: &str, token: &str) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), token).unwrap();
        let address = format!("https://{}", self.address);
        let controller = ControlPlaneSettings::new(address.as_str(), self.state.join("root-cert.pem"));
        let controller = ControlPlane::new(&Tls::new(TlsSettings::default()), &controller).unwrap();
        let config = ClientConfig {
            address,
            dial: Arc::new(move || Box::pin(controller.connect())),
            token_file: Some(folder.path().join("token")),
            cluster_id: "Kubernetes".to_owned(),
            headers: Vec::new(),
        };
        let all =
            |type_url: &str| Subscription { type_url: type_url.into(), mode: Mode::All, required: true };
        let info = NodeInfo::new("ztunnel", None, "agent", "istio-system").on_node(node);
        let subscriber = Subscriber::new(info.to_wire(), [MESH_SETTINGS, AUTHORIZATION, ADDRESS].map(all));
        let mesh = Arc::new(RwLock::new(Mesh::new("".into(), Some(node.into()))));
        let updates = Arc::new(AtomicUsize::new(0));
        let (change, changed) = watch::channel(());
        let sink = {
            let (mesh, updates) = (mesh.clone(), updates.clone());
            move |all: Vec<Update>| {
                updates.fetch_add(all.len(), Ordering::SeqCst);
                let mut mesh = mesh.write().unwrap();
                all.into_iter().for_each(|update| drop(mesh.apply(update)));
                drop(mesh);
                change.send_modify(|()| ());
            }
        };
        let (client, handle) = Client::new(config, subscriber, Feed::new(Decoder::default(), sink));
        let client = tokio::spawn(client.run()).abort_handle();
        Proxy { mesh, changed, updates, handle, client, _token: folder }
    }

    async fn fetch(&self, path: &str) -> Option<(u16, String)> {
        self.call(http::Method::GET, path).await
    }

    /// What `lateen ca` asks.
    pub(crate) async fn post(&self, path: &str) -> (u16, String) {
        self.call(http::Method::POST, path).await.unwrap()
    }

    /// Waits until the authorities stand so.
    pub(crate) async fn until_ca(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        until(what, async || wanted(&self.get("/ca").await)).await;
    }

    /// A certificate for an account of namespace `shop`, asked for with a node's token.
    pub(crate) async fn certificate(&self, account: &str, token: &str) -> Result<CertificateBundle, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), token).unwrap();
        let address = format!("https://{}", self.address);
        let controller = ControlPlaneSettings::new(address.as_str(), self.state.join("root-cert.pem"));
        let controller = ControlPlane::new(&Tls::new(TlsSettings::default()), &controller).unwrap();
        let token_file = Some(folder.path().join("token"));
        let settings = CaClientSettings { token_file, ..CaClientSettings::default() };
        let client = CaClient::new(controller.channel(), settings).unwrap();
        let identity = model::Identity::new("cluster.local", "shop", account);
        client.issue(&identity).await.map_err(|error| error.to_string())
    }

    async fn call(&self, method: http::Method, path: &str) -> Option<(u16, String)> {
        let stream = UnixStream::connect(self.state.join(ADMIN_SOCKET)).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path).header("host", "ctrl");
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        connection.abort();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn try_status(&self, path: &str) -> Option<u16> {
        Some(self.fetch(path).await?.0)
    }

    pub(crate) async fn status(&self, path: &str) -> u16 {
        self.try_status(path).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.fetch(path).await.unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn until_finding(&self, wanted: impl Fn(&Value) -> bool) {
        let found = async || self.get("/findings").await.as_array().unwrap().iter().any(&wanted);
        until("a finding", found).await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join(ADMIN_SOCKET)
    }

    /// Waits until a metric without labels has a value.
    pub(crate) async fn until_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let found = async || {
            let (_, text) = self.fetch("/metrics").await.unwrap();
            let value =
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
            value.is_some_and(&wanted)
        };
        until(name, found).await;
    }

    /// Waits until so many proxies are connected and have everything.
    pub(crate) async fn until_in_force(&self, proxies: usize) -> Value {
        let settled = async || {
            let sync = self.get("/sync").await;
            sync["inForce"] == true && sync["clients"].as_array().unwrap().len() == proxies
        };
        until("all in force", settled).await;
        self.get("/sync").await
    }
}

impl Proxy {
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Mesh) -> T) -> T {
        look(&self.mesh.read().unwrap())
    }

    /// Waits until what the proxy knows is so.
    pub(crate) async fn until(&self, wanted: impl Fn(&Mesh) -> bool) {
        let mut changed = self.changed.clone();
        let wait = async {
            while !self.read(&wanted) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("what was waited for never came");
    }

    pub(crate) async fn ready(&self) {
        tokio::time::timeout(PATIENCE, self.handle.ready()).await.expect("ready in time").unwrap();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.handle.link().ready
    }

    /// How many updates came so far.
    pub(crate) fn received(&self) -> usize {
        self.updates.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.client.abort();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A pod of namespace `shop` on node-1, labelled by its name.
pub(crate) fn pod(name: &str, ip: &str, captured: bool) -> Value {
    let annotations = if captured { json!({"ambient.istio.io/redirection": "enabled"}) } else { json!({}) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "annotations": annotations},
        "spec": {
            "nodeName": "node-1", "serviceAccountName": name,
            "containers": [{"name": "main", "image": "none", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A service of namespace `shop` for the pods labelled by its name.
pub(crate) fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  clusterIP: {ip}\n  \
         selector: {{app: {name}}}\n  ports: [{{port: 80, targetPort: web, name: http}}]\n"
    )
}

/// A policy for the pods labelled `cart`, about callers that run as an account of namespace `shop`.
pub(crate) fn policy(name: &str, action: &str, account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: cart}}}}\n  action: {action}\n  rules:\n  - from:\n    \
         - source: {{principals: [cluster.local/ns/shop/sa/{account}]}}\n"
    )
}
