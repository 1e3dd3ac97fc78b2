//! The components of a mesh and how each is started: the one place that knows their flags.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::addresses;
use super::containers::run::Host;
use super::namespaces::Netns;
use super::nodes::Node;
use super::waypoints::{self, Surroundings};

/// Port of the controller's xDS and certificate services.
const CTRL_PORT: u16 = 15012;
/// Port of every component's readiness.
const READY_PORT: u16 = 15021;
/// Where a node's agent answers questions about itself.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Set, a mesh starts without ctrl and node agents: only namespaces, pods, services and names.
pub(crate) const NO_AGENT: &str = "LATEEN_NO_AGENT";

/// Whether this mesh has ctrl and node agents.
pub(crate) fn has_agents() -> bool {
    std::env::var_os(NO_AGENT).is_none_or(|value| value.is_empty() || value == "0")
}

/// Binaries that must stand beside `lateen`.
pub(crate) fn needed() -> &'static [&'static str] {
    if has_agents() { &["ctrl", "node-agent"] } else { &[] }
}

/// How a component says that it is ready.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    /// `GET /healthz/ready` on a Unix socket.
    Socket(PathBuf),
    /// The same on TCP, from within a namespace.
    Tcp(Netns, SocketAddr),
}

/// A component to start and keep running.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    /// `ctrl`, `node-agent/node-1`.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, OsString)>,
    pub(crate) netns: Netns,
    pub(crate) ready: Ready,
    /// Socket on which it says who it is, where a new one takes over from one that still runs.
    pub(crate) takes_over: Option<PathBuf>,
    /// A file of another component that it cannot do anything without.
    pub(crate) needs: Option<PathBuf>,
    pub(crate) log: PathBuf,
}

/// Where the log of a component stands.
pub(crate) fn log_path(host: &Host, name: &str) -> PathBuf {
    host.dir.logs().join(format!("{name}.log"))
}

/// Socket on which ctrl answers `get`, `version` and its readiness.
pub(crate) fn ctrl_admin(dir: &crate::state::MeshDir) -> PathBuf {
    dir.ctrl().join("admin.sock")
}

/// The roots that vouch for ctrl, once it has written them.
pub(crate) fn root_cert(dir: &crate::state::MeshDir) -> PathBuf {
    dir.ctrl().join("root-cert.pem")
}

/// What waypoints find around them.
pub(crate) fn surroundings(host: &Host) -> Surroundings {
    let settings = host.file.settings.iter().filter(|setting| setting.component == waypoints::PROGRAM);
    Surroundings {
        binaries: host.file.binaries.clone(),
        tokens: host.dir.tokens(),
        root_cert: root_cert(&host.dir),
        ctrl: ctrl_url(),
        settings: settings.map(|setting| (setting.name.clone(), setting.value.clone())).collect(),
        upgrades: 0,
    }
}

/// Socket on which a node's agent takes pods, as from a CNI plugin.
pub(crate) fn agent_socket(host: &Host, node: &str) -> PathBuf {
    host.dir.node(node).join("cni.sock")
}

fn ctrl_url() -> String {
    format!("https://{}", SocketAddr::from((addresses::BRIDGE_V4, CTRL_PORT)))
}

fn flag(arguments: &mut Vec<OsString>, name: &str, value: impl Into<OsString>) {
    arguments.extend([OsString::from(name), value.into()]);
}

/// What the command line of `up` sets: last, where the last one counts.
fn set(arguments: &mut Vec<OsString>, host: &Host, component: &str) {
    for setting in host.file.settings.iter().filter(|setting| setting.component == component) {
        let name = format!("--{}", setting.name.to_ascii_lowercase().replace('_', "-"));
        flag(arguments, &name, &setting.value);
    }
}

/// The controller, in the mesh's own namespace.
pub(crate) fn ctrl(host: &Arc<Host>, netns: &Netns) -> Component {
    let mut arguments = Vec::new();
    for source in &host.file.sources {
        flag(&mut arguments, "--source", source);
    }
    flag(&mut arguments, "--objects", host.dir.objects());
    flag(&mut arguments, "--state", host.dir.ctrl());
    flag(&mut arguments, "--listen", SocketAddr::from((addresses::BRIDGE_V4, CTRL_PORT)).to_string());
    flag(&mut arguments, "--tokens", host.dir.tokens());
    flag(&mut arguments, "--pod-cidrs", addresses::POD_RANGES.join(","));
    let services = addresses::service_networks().map(|network| network.to_string());
    flag(&mut arguments, "--service-cidrs", services.join(","));
    flag(&mut arguments, "--cluster-id", "Kubernetes");
    flag(&mut arguments, "--trust-domain", "cluster.local");
    set(&mut arguments, host, "ctrl");
    Component {
        name: "ctrl".to_owned(),
        program: host.file.binaries.join("ctrl"),
        arguments,
        environment: environment(host),
        netns: netns.clone(),
        ready: Ready::Socket(ctrl_admin(&host.dir)),
        takes_over: None,
        needs: None,
        log: log_path(host, "ctrl"),
    }
}

/// A node's agent, in its node's namespace; it keeps its own proxy.
pub(crate) fn node_agent(host: &Arc<Host>, node: &Node) -> Component {
    let mut arguments = vec![OsString::from("redirect")];
    flag(&mut arguments, "--node", &node.name);
    flag(&mut arguments, "--run-dir", host.dir.node(&node.name));
    for source in &host.file.sources {
        flag(&mut arguments, "--source", source);
    }
    flag(&mut arguments, "--objects", host.dir.objects());
    flag(&mut arguments, "--ctrl", ctrl_url());
    let root_cert = root_cert(&host.dir);
    flag(&mut arguments, "--root-cert", &root_cert);
    flag(&mut arguments, "--token", host.dir.tokens().join(&node.name));
    flag(&mut arguments, "--instance-ip", node.addresses.v4.to_string());
    // What captured pods ask for and the mesh does not know, the node's own server does.
    flag(&mut arguments, "--dns-upstreams", addresses::DNS_V4.to_string());
    set(&mut arguments, host, "node-agent");
    let name = format!("node-agent/{}", node.name);
    Component {
        log: log_path(host, &name),
        name,
        program: host.file.binaries.join("node-agent"),
        arguments,
        environment: environment(host),
        netns: node.netns.clone(),
        needs: Some(root_cert),
        ready: Ready::Tcp(node.netns.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, READY_PORT))),
        takes_over: Some(agent_socket(host, &node.name)),
    }
}

fn environment(host: &Host) -> Vec<(String, OsString)> {
    let mut environment: Vec<(String, OsString)> =
        host.file.environment.iter().map(|(name, value)| (name.clone(), OsString::from(value))).collect();
    environment.push(("LATEEN_MESH".to_owned(), host.dir.name().into()));
    environment.push(("LATEEN_STATE".to_owned(), host.dir.root().into()));
    environment
}
