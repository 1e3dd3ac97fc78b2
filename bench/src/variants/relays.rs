//! Two processes that only copy between plain sockets (`bench relay`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use testkit::netns::Netns;

use super::{Kind, Running, Setting, Side, VariantError};
use crate::process::Process;
use crate::topology::{PORT, SERVER, Topology};

/// Where the client's relay listens.
const ENTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
/// Where the server's listens.
const BETWEEN: SocketAddr = SocketAddr::new(SERVER, 15008);

/// Starts both.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let app = SocketAddr::new(SERVER, PORT);
    let server_side = relay("relay-server", BETWEEN, app, &topology.server, setting)?;
    let client_side = relay("relay-client", ENTRY, BETWEEN, &topology.client, setting)?;
    Ok(Running {
        kind: Kind::Relays,
        client_side,
        server_side,
        topology,
        target: ENTRY,
        outside: None,
        controller: None,
        attacker: None,
    })
}

fn relay(
    name: &str,
    listen: SocketAddr,
    to: SocketAddr,
    pod: &Netns,
    setting: &Setting,
) -> Result<Side, VariantError> {
    let program = std::env::current_exe()
        .map_err(|source| VariantError::Io { doing: "finding this program".to_owned(), source })?;
    let mut command = Command::new(program);
    command.args(["relay", "--listen", &listen.to_string(), "--to", &to.to_string()]);
    let mut process = Process::start(name, &mut command, pod, &setting.folder)?;
    let ready = process.wait_listening(pod, listen)?;
    Ok(Side::one(process, ready))
}
