//! The server against a delta xDS client that is not ours: Envoy takes clusters from it. What the two have in common
//! is the protocol alone.
//!
//! Needs Envoy: `scripts/peers` gets it; another one by the variable `ENVOY`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use xds::delta::session::Event;
use xds::delta::store::{Edit, Resource, Revision};
use xds::node::NodeInfo;
use xds::server::{Clients, Control, Publisher, Report, Server};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const PATIENCE: Duration = Duration::from_secs(30);

/// `envoy.config.cluster.v3.Cluster`, as far as this test goes.
#[derive(Clone, PartialEq, Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    discovery: i32,
    #[prost(message, optional, tag = "4")]
    connect_timeout: Option<prost_types::Duration>,
}

const STATIC: i32 = 0;
/// Endpoints from another subscription, of which a cluster here says nothing: Envoy refuses it.
const DISCOVERED: i32 = 3;

/// A cluster without endpoints.
fn cluster(name: &str, discovery: i32, connect_timeout: i64) -> Resource {
    let connect_timeout = Some(prost_types::Duration { seconds: connect_timeout, nanos: 0 });
    Resource::pack(name, &Cluster { name: name.into(), discovery, connect_timeout })
}

/// Shows everybody the same and remembers what went out.
struct Gate {
    publisher: Arc<Publisher>,
    sent: Mutex<Vec<(usize, usize)>>,
    nacks: Mutex<Vec<String>>,
}

impl Control for Gate {
    type Caller = ();

    async fn authenticate(&self, metadata: &MetadataMap, _: &Extensions) -> Result<(), Status> {
        match metadata.get("authorization").map(|token| token.as_bytes()) {
            Some(b"Bearer secret") => Ok(()),
            _ => Err(Status::unauthenticated("unknown token")),
        }
    }

    fn view(&self, (): &(), _: &NodeInfo) -> Result<Arc<Publisher>, Status> {
        Ok(self.publisher.clone())
    }

    fn observe(&self, (): &(), _: &NodeInfo, report: Report<'_>) {
        match report {
            Report::Sent { resources, removed, .. } => {
                self.sent.lock().expect("no panic").push((resources, removed));
            }
            Report::Event(Event::Nacked { error, .. }) => {
                self.nacks.lock().expect("no panic").push(error.clone());
            }
            _ => {}
        }
    }
}

/// A server of clusters.
struct Controller {
    gate: Arc<Gate>,
    clients: Arc<Clients<()>>,
    address: SocketAddr,
    leave: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Controller {
    async fn start(port: u16) -> Self {
        let publisher = Arc::new(Publisher::new([CLUSTER]));
        let gate = Arc::new(Gate { publisher, sent: Mutex::default(), nacks: Mutex::default() });
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).expect("a free port");
        let listener: TcpListener = socket.listen(16).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let server = Server::new(gate.clone());
        let clients = server.clients();
        let (leave, left) = oneshot::channel::<()>();
        let serving = tonic::transport::Server::builder()
            .add_service(server.into_service())
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async { drop(left.await) });
        Self { gate, clients, address, leave, serving: tokio::spawn(serving) }
    }

    fn publish(&self, edit: Edit) -> Revision {
        self.gate.publisher.apply(edit).expect("a change")
    }

    /// Waits until Envoy is there and has acknowledged a revision.
    async fn in_force(&self, revision: Revision) {
        let mut changed = self.clients.watch();
        let there = async {
            while self.clients.all().is_empty() {
                changed.changed().await.expect("the clients");
            }
        };
        timeout(PATIENCE, there).await.expect("Envoy connects");
        let acknowledged =
            || self.clients.all().iter().any(|client| client.in_force.get(CLUSTER) >= Some(&revision));
        let mut changed = self.clients.watch();
        let wait = async {
            while !acknowledged() {
                changed.changed().await.expect("the clients");
            }
        };
        timeout(PATIENCE, wait).await.expect("Envoy acknowledges");
    }

    /// Says goodbye on every connection, else Envoy would open its next stream on one that it has.
    async fn stop(self) -> u16 {
        drop(self.leave);
        self.gate.publisher.close();
        timeout(PATIENCE, self.serving).await.expect("it ends").expect("no panic").expect("no error");
        self.address.port()
    }
}

fn bootstrap(controller: SocketAddr, admin: SocketAddr) -> String {
    let address = |at: SocketAddr| {
        format!(r#"{{"socket_address":{{"address":"{}","port_value":{}}}}}"#, at.ip(), at.port())
    };
    format!(
        r#"{{
  "node": {{"id": "waypoint~127.0.0.1~envoy.default~default.svc.cluster.local", "cluster": "envoy"}},
  "admin": {{"address": {admin}}},
  "dynamic_resources": {{
    "ads_config": {{
      "api_type": "DELTA_GRPC", "transport_api_version": "V3",
      "grpc_services": [{{
        "envoy_grpc": {{"cluster_name": "controller"}},
        "initial_metadata": [{{"key": "authorization", "value": "Bearer secret"}}]
      }}]
    }},
    "cds_config": {{"ads": {{}}, "resource_api_version": "V3"}}
  }},
  "static_resources": {{"clusters": [{{
    "name": "controller", "type": "STATIC", "connect_timeout": "1s",
    "typed_extension_protocol_options": {{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {{
      "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      "explicit_http_config": {{"http2_protocol_options": {{}}}}
    }}}},
    "load_assignment": {{"cluster_name": "controller", "endpoints": [{{"lb_endpoints": [
      {{"endpoint": {{"address": {controller}}}}}
    ]}}]}}
  }}]}}
}}"#,
        admin = address(admin),
        controller = address(controller),
    )
}

fn envoy(binary: &Path, config: &Path) -> Child {
    Command::new(binary)
        .arg("--config-path")
        .arg(config)
        .args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Envoy starts")
}

/// The names of the clusters that Envoy uses.
async fn clusters(admin: SocketAddr) -> Vec<String> {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(admin).await {
        let request = b"GET /clusters HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("a request");
        stream.read_to_string(&mut text).await.expect("a response");
    }
    let names = text.lines().filter(|line| line.contains("::observability_name::"));
    let mut names: Vec<String> = names.filter_map(|line| Some(line.split_once("::")?.0.to_owned())).collect();
    names.retain(|name| name != "controller");
    names.sort();
    names
}

async fn eventually(admin: SocketAddr, expected: &[&str]) {
    let mut found = Vec::new();
    let wait = async {
        loop {
            found = clusters(admin).await;
            if found == expected {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "{expected:?} expected, {found:?} found");
}

#[tokio::test]
async fn envoy_takes_what_is_published() {
    let binary = testkit::envoy::binary().expect("Envoy, which scripts/peers gets");
    let controller = Controller::start(0).await;
    let mut edit = Edit::new();
    edit.replace(CLUSTER, [cluster("a", STATIC, 1), cluster("b", STATIC, 1)]);
    controller.publish(edit.clone());

    let admin =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port").local_addr().expect("an address");
    let files = tempfile::tempdir().expect("a folder");
    let config = files.path().join("envoy.json");
    std::fs::write(&config, bootstrap(controller.address, admin)).expect("a file");
    let _envoy = envoy(&binary, &config);
    controller.in_force(1).await;
    eventually(admin, &["a", "b"]).await;

    // A change, an addition, a removal.
    let mut change = Edit::new();
    change.put(CLUSTER, cluster("a", STATIC, 2)).put(CLUSTER, cluster("c", STATIC, 1)).remove(CLUSTER, "b");
    let revision = controller.publish(change.clone());
    controller.in_force(revision).await;
    eventually(admin, &["a", "c"]).await;

    // A refusal: the good one beside it counts, and it is not sent again.
    let mut bad = Edit::new();
    bad.put(CLUSTER, cluster("bad", DISCOVERED, 1)).put(CLUSTER, cluster("d", STATIC, 1));
    let revision = controller.publish(bad);
    controller.in_force(revision).await;
    eventually(admin, &["a", "c", "d"]).await;
    let nacks = controller.gate.nacks.lock().expect("no panic").clone();
    assert_eq!(nacks.len(), 1, "{nacks:?}");
    assert!(nacks[0].contains("bad"), "{nacks:?}");
    let mut mend = Edit::new();
    mend.remove(CLUSTER, "bad");
    let revision = controller.publish(mend);
    controller.in_force(revision).await;

    // Another replica of the controller with the same content sends only what came beside the refused one: Envoy
    // uses it, but keeps no version of anything in a response that it has refused.
    let port = controller.stop().await;
    let controller = Controller::start(port).await;
    let mut edit = Edit::new();
    edit.replace(CLUSTER, [cluster("d", STATIC, 1), cluster("c", STATIC, 1), cluster("a", STATIC, 2)]);
    controller.publish(edit);
    controller.in_force(1).await;
    let sent = controller.gate.sent.lock().expect("no panic").clone();
    assert_eq!(sent, [(1, 0)]);
    eventually(admin, &["a", "c", "d"]).await;
}
