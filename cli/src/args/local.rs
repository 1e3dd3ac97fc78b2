//! Commands of a mesh on this machine: up, exec, logs, down, and the server to try it with.

use std::path::PathBuf;

use crate::flags::{Setting, setting};

/// `lateen up`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen up -f manifests/                       two nodes, in the foreground
  lateen up -f app.yaml -f mesh.yaml --nodes 3 --mesh second --detach

A container's image is not pulled: its command runs as a process of this machine, inside the pod's namespaces.
Of a folder only *.yaml, *.yml and *.json are read, recursively; files that change take effect at once.")]
pub(crate) struct UpArgs {
    /// Manifest file or folder (can be repeated)
    #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,

    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) nodes: u8,

    /// Return once everything is ready and leave the mesh running
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,

    /// Setting of a component, by its name on the page of settings: ctrl.NAME=VALUE, node-agent.NAME=VALUE or
    /// waypoint.NAME=VALUE
    #[arg(long = "set", value_name = "COMPONENT.NAME=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<Setting>,

    /// With --detach: how long everything may take to become ready, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// `lateen exec`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen exec deploy/client -- curl -s http://reviews:9080/
  lateen exec -n shop db-0 -c postgres -- psql -U shop
  echo hello | lateen exec client -- cat
  lateen exec node-agent/node-1 -- curl -s localhost:15020/metrics      (15000/config_dump for the admin page)

POD is a name, the unique beginning of one, deploy/NAME, sts/NAME, job/NAME, svc/NAME, or
node-agent/NODE for the network of a node.")]
pub(crate) struct ExecArgs {
    /// Pod: a name, its unique beginning, or KIND/NAME of what made it; or node-agent/NODE
    pub(crate) pod: String,

    /// Container of the pod (default: its first)
    #[arg(short = 'c', long)]
    pub(crate) container: Option<String>,

    /// Keep every capability and the mesh's own user, to look at rules and sockets
    #[arg(long)]
    pub(crate) privileged: bool,

    /// Pass stdin (always done)
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,

    /// Accepted for kubectl's sake: the caller's terminal is passed as it is
    #[arg(short = 't', long)]
    pub(crate) tty: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// `lateen logs`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen logs deploy/reviews-v1
  lateen logs -f client
  lateen logs node-agent/node-1 --tail 50
  lateen logs ctrl")]
pub(crate) struct LogsArgs {
    /// POD, deploy/NAME, node-agent/NODE, waypoint/NAME or ctrl
    pub(crate) source: String,

    /// Container of the pod (default: its first)
    #[arg(short = 'c', long)]
    pub(crate) container: Option<String>,

    /// Stay and print what is written from now on
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,

    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,

    /// What the container wrote before its last restart
    #[arg(short = 'p', long)]
    pub(crate) previous: bool,
}

/// `lateen down`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen down
  lateen down --mesh second")]
pub(crate) struct DownArgs {}

/// `lateen echo`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen echo --http 8080 --name reviews --version v2
  lateen echo --http 8080 --tcp 9000

HTTP answers JSON: name, version, peer, local, method, path, headers, body size (plain text with ?format=text).
TCP answers one line naming the peer, then sends back what it reads.")]
pub(crate) struct EchoArgs {
    /// Port of the HTTP server (can be repeated) [default without --tcp: 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) http: Vec<u16>,

    /// Port of the TCP server (can be repeated)
    #[arg(long, value_name = "PORT")]
    pub(crate) tcp: Vec<u16>,

    /// Name to report [default: the host's]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,

    // `version = …` would collide with clap's own --version only at the top level; here it is an option.
    /// Version to report
    #[arg(long = "version", value_name = "V", default_value = "")]
    pub(crate) reported: String,
}
