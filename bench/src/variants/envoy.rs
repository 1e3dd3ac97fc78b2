//! A pair of Envoys: one in each pod, the client's listening on its loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use testkit::envoy::{Credentials, End, bootstrap};
use testkit::netns::Netns;

use super::{Kind, Running, Setting, Side, VariantError, write};
use crate::certs;
use crate::process::Process;
use crate::topology::{PORT, SERVER, Topology};

/// Where the client's end listens.
const ENTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
/// Where the server's end listens.
const TUNNEL: SocketAddr = SocketAddr::new(SERVER, 15008);

/// What runs between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// One TLS connection for each TCP connection.
    Tls,
    /// HTTP/2 CONNECT.
    Hbone,
}

/// Starts both ends.
pub(super) fn start(tunnel: Tunnel, topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting.envoy.as_deref().ok_or(VariantError::NotGiven("--envoy PATH"))?;
    let certificates = certs::issue()?;
    let app = SocketAddr::new(SERVER, PORT);
    let (kind, client, server) = match tunnel {
        Tunnel::Tls => (
            Kind::EnvoyTls,
            End::TlsClient { listen: ENTRY, peer: TUNNEL },
            End::TlsServer { listen: TUNNEL, app },
        ),
        Tunnel::Hbone => (
            Kind::EnvoyHbone,
            End::HboneClient { listen: ENTRY, peer: TUNNEL, authority: app.to_string() },
            End::HboneServer { listen: TUNNEL, refuse: Vec::new() },
        ),
    };
    let name = |part| format!("{}-{part}", kind.name());
    let one = |part, end: &End, credentials: &Credentials, pod: &Netns, at| {
        envoy(binary, &name(part), &bootstrap(end, credentials, None), pod, at, setting)
    };
    let server_side = one("server", &server, &certificates.server, &topology.server, TUNNEL)?;
    let client_side = one("client", &client, &certificates.client, &topology.client, ENTRY)?;
    Ok(Running {
        kind,
        client_side,
        server_side,
        topology,
        target: ENTRY,
        outside: None,
        controller: None,
        attacker: Some(certificates.attacker),
    })
}

/// Starts one Envoy and waits until it listens.
fn envoy(
    binary: &Path,
    name: &str,
    config: &str,
    pod: &Netns,
    listens: SocketAddr,
    setting: &Setting,
) -> Result<Side, VariantError> {
    let path = setting.folder.join(format!("{name}.json"));
    write(&path, config)?;
    let mut command = Command::new(binary);
    command.arg("--config-path").arg(&path);
    command.args(["--concurrency", &setting.threads.to_string()]);
    command.args(["--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "warning"]);
    let mut process = Process::start(name, &mut command, pod, &setting.folder)?;
    let ready = process.wait_listening(pod, listens)?;
    Ok(Side::one(process, ready))
}
