//! What is set side by side: no proxy, ours, and the peers, each started on ground of its own.

mod bare;
mod envoy;
mod lateen;
mod node;
mod plain;
mod relays;
mod rules;
mod zds;
mod ztunnel;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use nix::unistd::Pid;
use testkit::envoy::Credentials;
use testkit::netns::{Netns, NetnsError};
use thiserror::Error;

use crate::congestion;
use crate::control::{ControlError, Controller};
use crate::process::{Process, ProcessError};
use crate::topology::Topology;

/// A variant's name, as on the command line and in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Client and server with nothing between them but the cable.
    Plain,
    /// Two processes that only copy between plain sockets: what two hops cost, whatever is done on them.
    Relays,
    /// Our node agents.
    Lateen,
    /// Two ends of `mesh/hbone` alone: its example `tunnel_end`.
    Bare,
    /// Envoy, one TLS connection for each TCP connection.
    EnvoyTls,
    /// Envoy, HBONE.
    EnvoyHbone,
    /// Istio's ztunnel.
    Ztunnel,
}

impl Kind {
    /// As in the table's head.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Relays => "relays",
            Self::Lateen => "lateen",
            Self::Bare => "bare",
            Self::EnvoyTls => "envoy-tls",
            Self::EnvoyHbone => "envoy-hbone",
            Self::Ztunnel => "ztunnel",
        }
    }
}

/// What every variant is given.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Where logs, sockets and configuration go; removed at the end.
    pub folder: PathBuf,
    /// Threads of each proxy.
    pub threads: usize,
    /// TCP congestion control of every socket, the load's as well as the proxies'.
    pub congestion_control: String,
    /// The peers' binaries, where given.
    pub envoy: Option<PathBuf>,
    pub ztunnel: Option<PathBuf>,
    pub bare: Option<PathBuf>,
    pub lateen: Option<PathBuf>,
    /// Our agents ask for what their pods use instead of being told everything.
    pub on_demand: bool,
    /// Those who mean harm are there too, with certificates of the mesh.
    pub attacked: bool,
}

impl Setting {
    /// The usual one, with these threads and programs; what is not given is found: a thread for each processor, the
    /// machine's Envoy, our agent beside this program.
    pub(crate) fn of(
        folder: PathBuf,
        congestion_control: Option<String>,
        threads: Option<usize>,
        envoy: Option<PathBuf>,
        ztunnel: Option<PathBuf>,
        lateen: Option<PathBuf>,
    ) -> io::Result<Self> {
        let threads = match threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism()?.get(),
        };
        let congestion_control = match congestion_control {
            Some(asked) => asked,
            None => congestion::usual()?,
        };
        Ok(Self {
            folder,
            threads,
            congestion_control,
            envoy: envoy.or_else(testkit::envoy::binary),
            ztunnel,
            bare: None,
            lateen: lateen.or_else(|| beside("node-agent")),
            on_demand: false,
            attacked: false,
        })
    }
}

/// A program that was built with this one.
pub(crate) fn beside(path: &str) -> Option<PathBuf> {
    let found = std::env::current_exe().ok()?.with_file_name(path);
    found.is_file().then_some(found)
}

/// One side's proxies.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub processes: Vec<Process>,
    /// Who captures the pod, if that is a process; it is not measured.
    capturing: Option<Process>,
    /// From the start of the process until it was ready.
    pub ready: Option<Duration>,
    /// Namespaces the proxies themselves live in, other than the pods'.
    namespaces: Vec<Netns>,
}

impl Side {
    /// A single proxy that became ready after so long.
    fn one(process: Process, ready: Duration) -> Self {
        Self { processes: vec![process], ready: Some(ready), capturing: None, namespaces: Vec::new() }
    }

    /// Where the proxies live, if not with the pods.
    pub(crate) fn namespace(&self) -> Option<&Netns> {
        self.namespaces.first()
    }

    /// Who captures the pods.
    pub(crate) fn capturing(&self) -> Option<&Process> {
        self.capturing.as_ref()
    }

    /// The proxies' processes.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.processes.iter().map(Process::pid).collect()
    }
}

/// A variant that is up. Processes are declared, and so end, before the namespaces.
#[derive(Debug)]
pub(crate) struct Running {
    pub kind: Kind,
    pub client_side: Side,
    pub server_side: Side,
    pub topology: Topology,
    /// Where a client in the client pod reaches the server pod.
    pub target: SocketAddr,
    /// Where it reaches the outside in the clear through the same proxy, if the variant does that.
    pub outside: Option<SocketAddr>,
    /// Who tells the proxies of the mesh, if they are told.
    pub controller: Option<Controller>,
    /// A certificate of the mesh for one who means harm.
    pub attacker: Option<Credentials>,
}

impl Running {
    /// All proxies of both sides.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        [self.client_side.pids(), self.server_side.pids()].concat()
    }
}

impl Running {
    /// Of proxies that have ended: what they wrote last.
    pub(crate) fn post_mortem(&self) -> String {
        let all = self.client_side.processes.iter().chain(&self.server_side.processes);
        all.filter(|process| process.has_ended())
            .map(|process| format!("; it has ended:\n{}", process.tail()))
            .collect()
    }
}

/// Why a variant is not measured.
#[derive(Debug, Error)]
pub(crate) enum VariantError {
    /// Nobody said where its binary is.
    #[error("no {0} given")]
    NotGiven(&'static str),
    /// One of its processes failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its pods could not be furnished.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// A file or a socket it needs.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its controller.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Certificates for it.
    #[error("cannot make certificates: {0}")]
    Certificates(#[from] rcgen::Error),
}

/// Starts a variant and waits until its proxies are ready.
pub(crate) fn start(kind: Kind, setting: &Setting) -> Result<Running, VariantError> {
    let (folder, congestion_control) = (&setting.folder, &setting.congestion_control);
    let mut topology = Topology::build(kind.name(), folder, congestion_control)?;
    if setting.attacked {
        topology = topology.with_strangers(kind.name(), folder, congestion_control)?;
    }
    match kind {
        Kind::Plain => Ok(plain::start(topology)),
        Kind::Relays => relays::start(topology, setting),
        Kind::Lateen => lateen::start(topology, setting),
        Kind::Bare => bare::start(topology, setting),
        Kind::EnvoyTls => envoy::start(envoy::Tunnel::Tls, topology, setting),
        Kind::EnvoyHbone => envoy::start(envoy::Tunnel::Hbone, topology, setting),
        Kind::Ztunnel => ztunnel::start(topology, setting),
    }
}

/// Writes a file a proxy reads.
fn write(path: &Path, text: &str) -> Result<(), VariantError> {
    std::fs::write(path, text)
        .map_err(|source| VariantError::Io { doing: format!("writing {}", path.display()), source })
}
