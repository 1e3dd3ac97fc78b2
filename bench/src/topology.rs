//! The ground of a variant: two pods joined by a virtual cable, one machine outside the mesh, the servers.
//!
//! Every variant has its own, so that its rules, sockets and connection tracking are its own.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use testkit::netns::{End, Netns, join};

use crate::congestion;
use crate::process::{Process, ProcessError};

/// The client pod.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
/// The server pod.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// A machine that no mesh knows.
pub(crate) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 1, 2));
/// Where the servers listen, in the server pod and outside.
pub(crate) const PORT: u16 = 8080;
/// A machine that attacks the server pod's proxy.
pub(crate) const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 2, 2));
/// A second pod of the client's node.
pub(crate) const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 3, 2));
/// What is attacked in a proxy's place.
pub(crate) const SINK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 4, 1)), 15008);
/// The attacker's application, in the server pod: not the one that the others call.
pub(crate) const PREY: SocketAddr = SocketAddr::new(SERVER, 8081);

/// Two pods, the outside, and `bench serve` in the latter two.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Declared before the namespaces: processes end first.
    _servers: Vec<Process>,
    /// Where the load is made.
    pub client: Netns,
    /// Where the server is.
    pub server: Netns,
    /// What is in no mesh.
    pub outside: Netns,
    /// Those who mean harm, where there are any.
    pub strangers: Option<Strangers>,
}

/// Namespaces of those who mean harm, and what they need.
#[derive(Debug)]
pub(crate) struct Strangers {
    /// The attacker's application.
    _prey: Process,
    /// Joined with the server pod and with the sink.
    pub attacker: Netns,
    /// A pod beside the client's, joined with the server pod.
    pub neighbour: Netns,
    /// Where the sink is.
    pub sink: Netns,
}

impl Topology {
    /// Builds it; logs go to `folder`.
    ///
    /// All its sockets have this congestion control, whatever the machine's own.
    pub(crate) fn build(
        variant: &str,
        folder: &Path,
        congestion_control: &str,
    ) -> Result<Self, ProcessError> {
        let name = |part: &str| format!("lbench-{}-{variant}-{part}", std::process::id());
        let client = Netns::new(&name("client"))?;
        let server = Netns::new(&name("server"))?;
        let outside = Netns::new(&name("outside"))?;
        for namespace in [&client, &server, &outside] {
            namespace.sysctl(congestion::KEY, congestion_control)?;
        }
        let end = |namespace, interface, addresses| End { namespace, interface, addresses };
        join(end(&client, "eth0", &[(CLIENT, 24)]), end(&server, "eth0", &[(SERVER, 24)]))?;
        let uplink = [(IpAddr::V4(Ipv4Addr::new(10, 9, 1, 1)), 24)];
        join(end(&client, "eth1", &uplink), end(&outside, "eth0", &[(OUTSIDE, 24)]))?;
        for namespace in [&client, &server] {
            // Thousands of new connections a second leave as many ports waiting; they may be used again.
            namespace.sysctl("ipv4/tcp_tw_reuse", "1")?;
            namespace.sysctl("ipv4/ip_local_port_range", "16000 65000")?;
        }
        let mut servers = Vec::new();
        for (place, namespace, at) in [("pod", &server, SERVER), ("outside", &outside, OUTSIDE)] {
            let name = format!("{variant}-server-{place}");
            servers.push(serve(&name, namespace, SocketAddr::new(at, PORT), folder)?);
        }
        Ok(Self { _servers: servers, client, server, outside, strangers: None })
    }

    /// Adds those who mean harm.
    pub(crate) fn with_strangers(
        mut self,
        variant: &str,
        folder: &Path,
        congestion_control: &str,
    ) -> Result<Self, ProcessError> {
        let name = |part: &str| format!("lbench-{}-{variant}-{part}", std::process::id());
        let attacker = Netns::new(&name("attacker"))?;
        let neighbour = Netns::new(&name("neighbour"))?;
        let sink = Netns::new(&name("sink"))?;
        for namespace in [&attacker, &neighbour, &sink] {
            namespace.sysctl(congestion::KEY, congestion_control)?;
        }
        let v4 = |third, last| IpAddr::V4(Ipv4Addr::new(10, 9, third, last));
        let cable = |namespace, interface, at, to, to_interface, to_at| {
            let end = |namespace, interface, addresses| End { namespace, interface, addresses };
            join(end(namespace, interface, &[(at, 24)]), end(to, to_interface, &[(to_at, 24)]))
        };
        cable(&attacker, "eth0", ATTACKER, &self.server, "eth1", v4(2, 1))?;
        cable(&neighbour, "eth0", NEIGHBOUR, &self.server, "eth2", v4(3, 1))?;
        cable(&attacker, "eth1", v4(4, 2), &sink, "eth0", SINK.ip())?;
        attacker.ip(&format!("route add {SERVER} via 10.9.2.1"))?;
        neighbour.ip(&format!("route add {SERVER} via 10.9.3.1"))?;
        for namespace in [&attacker, &neighbour] {
            namespace.sysctl("ipv4/tcp_tw_reuse", "1")?;
            namespace.sysctl("ipv4/ip_local_port_range", "16000 65000")?;
        }
        let prey = serve(&format!("{variant}-server-prey"), &self.server, PREY, folder)?;
        self.strangers = Some(Strangers { _prey: prey, attacker, neighbour, sink });
        Ok(self)
    }
}

/// Starts `bench serve` on this port and waits until it listens.
fn serve(name: &str, namespace: &Netns, at: SocketAddr, folder: &Path) -> Result<Process, ProcessError> {
    let program =
        env::current_exe().map_err(|source| ProcessError::File { path: "/proc/self/exe".into(), source })?;
    let mut command = Command::new(program);
    let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port());
    command.args(["serve", "--listen", &listen.to_string()]);
    let mut process = Process::start(name, &mut command, namespace, folder)?;
    process.wait_listening(namespace, at)?;
    Ok(process)
}
