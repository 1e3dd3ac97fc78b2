//! The command line: every command, option, help text and example.

mod install;
mod local;
mod look;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use self::install::{
    Experimental, ExperimentalArgs, InstallArgs, ManifestArgs, PrecheckArgs, TagArgs, TagCommand, TagFormat,
    UninstallArgs, UpgradeArgs, ValueArgs,
};
pub(crate) use self::local::{DownArgs, EchoArgs, ExecArgs, LogsArgs, UpArgs};
pub(crate) use self::look::{CaAction, CaArgs, Format, GetArgs, ProxyStatusArgs, SortBy, TopArgs, WhyArgs};

const EXAMPLES: &str = "Examples, on this machine:
  lateen up -f deploy/demo/manifests    a mesh from a folder of manifests, until Ctrl-C
  lateen up -f app.yaml --detach        the same in the background; 0 once all is ready
  lateen get pods -A                    what runs, and whether it is captured
  lateen exec deploy/client -- curl -s http://reviews:9080/
  lateen logs node-agent/node-1 --tail 20
  lateen top pods -A                    what each pod costs its node's agent
  lateen why --denied --since 5m        what was refused, and by which policy and rule
  lateen down                           takes it down

Examples, on Kubernetes:
  lateen install                        the mesh, into the cluster of the kubeconfig; 0 once all is ready
  lateen proxy-status                   which agents and waypoints are connected
  lateen upgrade                        this version in place of the installed one
  lateen uninstall

Commands that look at a mesh mean the one that runs on this machine; where none does, or --kubeconfig or --context is
given, that of the cluster.

Exit codes: 0 done, 1 failed, 64 command line not understood, 77 the machine lacks something `up` needs, or the cluster
something `install` needs: an address, an answer, a right, a version.
`exec` passes on the exit code of its command.";

/// A service mesh without sidecars.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Args {
    /// Which mesh of this machine (default: the only one running; `up` starts "default")
    #[arg(long, global = true, value_name = "NAME", env = "LATEEN_MESH")]
    pub(crate) mesh: Option<String>,

    /// Namespace of the objects meant [default: default; of what is installed: istio-system]
    #[arg(short = 'n', long, global = true, value_name = "NS")]
    pub(crate) namespace: Option<String>,

    #[command(flatten)]
    pub(crate) cluster: crate::cluster::ClusterArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a mesh on this machine from Kubernetes manifests
    Up(UpArgs),
    /// Run a command inside a pod
    Exec(ExecArgs),
    /// Print what a pod, a node agent, a waypoint or the controller wrote
    Logs(LogsArgs),
    /// Show the objects the mesh holds, with their status
    Get(GetArgs),
    /// Show what pods cost their nodes' agents now
    Top(TopArgs),
    /// Say why requests and connections were let through, refused or failed
    Why(WhyArgs),
    /// The certificate authority: how it stands, a change of its root, revocation
    Ca(CaArgs),
    /// Which proxies are connected, and whether each has everything in force
    #[command(alias = "ps")]
    ProxyStatus(ProxyStatusArgs),
    /// Say what is wrong with manifests, before anything takes effect
    Analyze(crate::analyze::AnalyzeArgs),
    /// Replace what runs by this version: of a mesh of this machine by the programs beside this command, in a cluster by the
    /// images of this version
    Upgrade(UpgradeArgs),
    /// Take a mesh of this machine down; can be repeated
    Down(DownArgs),
    /// Install the mesh in a Kubernetes cluster, and wait until it is ready
    Install(InstallArgs),
    /// Take the mesh out of a Kubernetes cluster; can be repeated
    Uninstall(UninstallArgs),
    /// Further names of the control planes in a cluster, for istio.io/rev
    Tag(TagArgs),
    /// Print what `install` would apply
    Manifest(ManifestArgs),
    /// Make, list and remove waypoints
    Waypoint(crate::waypoint::WaypointArgs),
    /// Commands whose form may still change
    #[command(name = "x", alias = "experimental")]
    Experimental(ExperimentalArgs),
    /// Versions of the client and of everything that runs
    Version(VersionArgs),
    /// An HTTP and TCP server that reports what it saw
    Echo(EchoArgs),
    /// Look at the packets of this network: counts by port, and whether a marker is among them
    Capture(crate::capture::CaptureArgs),

    // The rest is how `up` starts itself again inside namespaces.
    #[command(name = "__keeper", hide = true)]
    Keeper(MeshArgs),
    #[command(name = "__init", hide = true)]
    Init(MeshArgs),
    #[command(name = "__daemon", hide = true)]
    Daemon(MeshArgs),
    #[command(name = "__container", hide = true)]
    Container(SpecArgs),
    #[command(name = "__join", hide = true)]
    Join(SpecArgs),
}

/// `lateen version`
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Print JSON
    #[arg(short = 'o', long, value_enum)]
    pub(crate) output: Option<VersionFormat>,
}

/// How `lateen version` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VersionFormat {
    /// one JSON object
    Json,
}

/// What the hidden commands are told: where the mesh's folder is; the rest stands in it.
#[derive(Debug, clap::Args)]
pub(crate) struct MeshArgs {
    /// The mesh's state folder
    pub(crate) state: PathBuf,
}

/// A hidden command that reads what to do from a file and deletes it.
#[derive(Debug, clap::Args)]
pub(crate) struct SpecArgs {
    /// JSON written by the daemon
    pub(crate) spec: PathBuf,
}

#[cfg(test)]
mod tests;
