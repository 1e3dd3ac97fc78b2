//! `mesh/hbone` alone: its example `tunnel_end`, without policy, logs or redirection. What the framing reaches.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::envoy::Credentials;
use testkit::netns::Netns;

use super::{Kind, Running, Setting, Side, VariantError, write};
use crate::certs;
use crate::process::Process;
use crate::topology::{PORT, SERVER, Topology};

/// Where the client's end listens.
const ENTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
/// Where the server's end listens.
const TUNNEL: SocketAddr = SocketAddr::new(SERVER, 15008);

/// Starts both ends.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting
        .bare
        .as_deref()
        .ok_or(VariantError::NotGiven("--bare PATH (cargo build --release -p hbone --example tunnel_end)"))?;
    let certificates = certs::issue()?;
    let app = SocketAddr::new(SERVER, PORT).to_string();
    let server = ["server", "--listen", &TUNNEL.to_string()].map(str::to_owned);
    let client =
        ["client", "--listen", &ENTRY.to_string(), "--peer", &TUNNEL.to_string(), "--authority", &app]
            .map(str::to_owned);
    let server_side =
        end(binary, "bare-server", &server, &certificates.server, &topology.server, TUNNEL, setting)?;
    let client_side =
        end(binary, "bare-client", &client, &certificates.client, &topology.client, ENTRY, setting)?;
    Ok(Running {
        kind: Kind::Bare,
        client_side,
        server_side,
        topology,
        target: ENTRY,
        outside: None,
        controller: None,
        attacker: Some(certificates.attacker),
    })
}

/// Starts one end and waits until it listens.
fn end(
    binary: &Path,
    name: &str,
    words: &[String],
    credentials: &Credentials,
    pod: &Netns,
    listens: SocketAddr,
    setting: &Setting,
) -> Result<Side, VariantError> {
    let mut command = Command::new(binary);
    command.args(words).args(["--threads", &setting.threads.to_string()]);
    for (flag, text) in [("cert", &credentials.chain), ("key", &credentials.key), ("ca", &credentials.roots)]
    {
        let path: PathBuf = setting.folder.join(format!("{name}-{flag}.pem"));
        write(&path, text)?;
        command.arg(format!("--{flag}")).arg(path);
    }
    let mut process = Process::start(name, &mut command, pod, &setting.folder)?;
    let ready = process.wait_listening(pod, listens)?;
    Ok(Side::one(process, ready))
}
