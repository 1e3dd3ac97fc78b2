//! The ground of a variant: a client's pod, the waypoint's and a server's in a row, each a namespace of its own.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::certificates::TestAuthority;
use testkit::envoy::Credentials;
use testkit::netns::{End, Netns, join};

use super::mesh;
use crate::http::{Protocol, Seen, credentials};
use crate::process::{Process, ProcessError};
use crate::rounds::{SampleError, answer};

/// The client's pod.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
/// The waypoint's.
pub(crate) const WAYPOINT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// The server's.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 1, 2));
/// Where tunnels end, at both.
pub(crate) const HBONE: u16 = 15008;

/// Three pods and the server.
pub(crate) struct Ground {
    /// Declared before the namespaces: processes end first.
    _server: Process,
    pub client: Netns,
    pub waypoint: Netns,
    _server_pod: Netns,
    /// Folder of certificates, logs and configuration.
    pub folder: PathBuf,
    authority: TestAuthority,
}

/// A load, as far as it differs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub protocol: Protocol,
    pub path: &'a str,
    pub seconds: f64,
    pub rate: Option<f64>,
}

impl Ground {
    /// Builds it in a folder of its own.
    pub(crate) fn build(variant: &str, folder: &Path) -> Result<Self, ProcessError> {
        let folder = folder.join(variant);
        let file = |source| ProcessError::File { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(file)?;
        let authority = TestAuthority::new("bench");
        for account in ["client", "server", "waypoint"] {
            let own = Credentials::of(&authority.bundle(&credentials::identity(account)));
            credentials::write(&folder, account, &own).map_err(file)?;
        }
        let name = |part: &str| format!("lwp-{}-{variant}-{part}", std::process::id());
        let client = Netns::new(&name("client"))?;
        let waypoint = Netns::new(&name("waypoint"))?;
        let server_pod = Netns::new(&name("server"))?;
        let end = |namespace, interface, addresses| End { namespace, interface, addresses };
        join(end(&client, "eth0", &[(CLIENT, 24)]), end(&waypoint, "eth0", &[(WAYPOINT, 24)]))?;
        let uplink = [(IpAddr::V4(Ipv4Addr::new(10, 9, 1, 1)), 24)];
        join(end(&waypoint, "eth1", &uplink), end(&server_pod, "eth0", &[(SERVER, 24)]))?;
        let at = SocketAddr::new(SERVER, HBONE);
        let mut command = Command::new(own_program()?);
        command.args(["serve-http", "--listen", &at.to_string(), "--credentials"]).arg(&folder);
        let mut server = Process::start(&format!("{variant}-server"), &mut command, &server_pod, &folder)?;
        server.wait_listening(&server_pod, at)?;
        Ok(Self { _server: server, client, waypoint, _server_pod: server_pod, folder, authority })
    }

    /// What an account proves itself by, where it accepts only these.
    pub(crate) fn credentials(&self, account: &str, peers: &[&str]) -> Credentials {
        let own = Credentials::of(&self.authority.bundle(&credentials::identity(account)));
        let peers = peers.iter().map(|peer| credentials::identity(peer).to_string()).collect();
        Credentials { peers, ..own }
    }

    /// Makes the folder that a controller takes its authority from.
    pub(crate) fn plug(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        self.authority.plug(folder)
    }

    /// `bench load-http`, to be run in the client's pod.
    pub(crate) fn load(&self, load: &Load<'_>) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(["load-http", "--connect", &SocketAddr::new(WAYPOINT, HBONE).to_string()]);
        command.args(["--service", &mesh::service(load.protocol).to_string(), "--host", mesh::HOST]);
        command.args(["--path", load.path, "--protocol", load.protocol.name(), "--credentials"]);
        command.arg(&self.folder).args(["--seconds", &load.seconds.to_string()]);
        if let Some(rate) = load.rate {
            command.args(["--rate", &format!("{rate:.0}")]);
        }
        command
    }

    /// Runs it, and says what it saw; that nothing was answered otherwise is part of it.
    pub(crate) fn measure(&self, load: &Load<'_>) -> Result<Seen, SampleError> {
        let seen: Seen = answer(&self.client.exec(&mut self.load(load))?)?;
        match (&seen.first_wrong, seen.requests) {
            (None, 1..) => Ok(seen),
            (wrong, _) => {
                let what = wrong.as_deref().unwrap_or("nothing was answered at all");
                Err(SampleError::Answer(format!("{} wrong answers; the first: {what}", seen.wrong)))
            }
        }
    }

    /// Waits until requests are answered.
    pub(crate) fn wait_served(&self, path: &str, patience: Duration) -> Result<(), SampleError> {
        let begun = std::time::Instant::now();
        let load = Load { protocol: Protocol::H1, path, seconds: 0.1, rate: Some(50.0) };
        loop {
            match self.measure(&load) {
                Err(_) if begun.elapsed() < patience => crate::process::pause(Duration::from_millis(50)),
                done => return done.map(drop),
            }
        }
    }
}

fn own_program() -> Result<PathBuf, ProcessError> {
    env::current_exe().map_err(|source| ProcessError::File { path: "/proc/self/exe".into(), source })
}
