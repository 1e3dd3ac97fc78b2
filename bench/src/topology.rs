//! The ground of a variant: two pods joined by a virtual cable, one machine outside the mesh, the servers.
//!
//! Every variant has its own, so that its rules, sockets and connection tracking are its own.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use testkit::netns::{End, Netns, join};

use crate::process::{Process, ProcessError};

/// The client pod.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
/// The server pod.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// A machine that no mesh knows.
pub(crate) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 1, 2));
/// Where the servers listen, in the server pod and outside.
pub(crate) const PORT: u16 = 8080;

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
            namespace.sysctl("ipv4/tcp_congestion_control", congestion_control)?;
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
            let program = env::current_exe()
                .map_err(|source| ProcessError::File { path: "/proc/self/exe".into(), source })?;
            let mut command = Command::new(program);
            command.args([
                "serve",
                "--listen",
                &SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT).to_string(),
            ]);
            let mut process =
                Process::start(&format!("{variant}-server-{place}"), &mut command, namespace, folder)?;
            process.wait_listening(namespace, SocketAddr::new(at, PORT))?;
            servers.push(process);
        }
        Ok(Self { _servers: servers, client, server, outside })
    }
}
