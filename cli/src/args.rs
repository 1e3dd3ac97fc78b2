//! The command line: every command, option, help text and example.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::flags::{Setting, seconds, setting};

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

/// How `lateen get` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// a table with more columns
    Wide,
    /// the objects as YAML
    Yaml,
    /// the objects as JSON
    Json,
    /// kind/name, one a line
    Name,
}

/// `lateen get`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen get pods -A -o wide
  lateen get svc reviews -o yaml
  lateen get authorizationpolicies -n shop
  lateen get vs,dr")]
pub(crate) struct GetArgs {
    /// Kind, as kubectl takes it: pods, po, svc, Gateway, vs, … (several with commas)
    pub(crate) kind: String,

    /// Only the object of this name
    pub(crate) name: Option<String>,

    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,

    /// How to print
    #[arg(short = 'o', long, value_enum)]
    pub(crate) output: Option<Format>,
}

/// `lateen upgrade`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo build --release --workspace --bins && target/release/lateen upgrade
  ./next/lateen upgrade --mesh second
  lateen upgrade --context production   a cluster, with the values that it was installed with
  lateen upgrade --set ctrl.replicas=3  the same, and this value from now on

One after the other: ctrl, then each node's agent. A new agent takes over what the old one has, connections too;
what does not come so far as to take over is ended again, and the old one goes on. The options below are for clusters.")]
pub(crate) struct UpgradeArgs {
    /// Begin from the chart's defaults, not from the values that were given before
    #[arg(long)]
    pub(crate) reset_values: bool,

    #[command(flatten)]
    pub(crate) install: InstallArgs,
}

impl UpgradeArgs {
    /// Whether something is asked for that only a cluster has.
    pub(crate) fn for_clusters(&self) -> bool {
        let InstallArgs { values, dry_run, no_wait, force_conflicts, .. } = &self.install;
        self.reset_values || *values != ValueArgs::default() || *dry_run || *no_wait || *force_conflicts
    }
}

/// Values of the chart.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct ValueArgs {
    /// File of values, over the chart's defaults (can be repeated)
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// One value, over the files (can be repeated): ctrl.replicas=3, mesh.podCidrs={10.244.0.0/16}
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = crate::chart::values::setting)]
    pub(crate) settings: Vec<crate::chart::values::Setting>,

    /// Revision of the control plane; another than `default` stands beside that one, and has no agents
    #[arg(long, value_name = "NAME", value_parser = crate::install::revision_name)]
    pub(crate) revision: Option<String>,
}

/// How long each part of an installation may take to become ready, seconds.
const READY: u64 = 300;

/// `lateen install`
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(after_help = "Examples:
  lateen install
  lateen install --set mesh.podCidrs={10.244.0.0/16} --set ctrl.replicas=3
  lateen install -f values.yaml --context staging --dry-run
  lateen install --revision canary      a second control plane; istio.io/rev on a Gateway or its namespace picks it
  lateen manifest --defaults            every value, with what it means

The same objects as of the charts in deploy/helm, which helm installs as well. Repeated, it applies them again, with the
values that are given now and no others; `lateen upgrade` keeps those of before. Nothing of it is in the mesh until a
namespace or pod asks for it: kubectl label namespace NAME istio.io/dataplane-mode=ambient")]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) values: ValueArgs,

    /// Say what would be new, changed and gone, as the API server sees it, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Return once everything is applied, before it is ready
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// How long each part may take to become ready, in seconds
    #[arg(long, default_value_t = READY, value_name = "SECONDS")]
    pub(crate) timeout: u64,

    /// Take fields that somebody else has written since
    #[arg(long)]
    pub(crate) force_conflicts: bool,
}

impl InstallArgs {
    /// Nothing asked for but to wait.
    pub(crate) fn waiting() -> Self {
        Self {
            values: ValueArgs::default(),
            dry_run: false,
            no_wait: false,
            timeout: READY,
            force_conflicts: false,
        }
    }
}

/// `lateen tag`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen install --revision canary
  lateen tag set prod --revision default
  kubectl label namespace shop istio.io/rev=prod
  lateen tag set prod --revision canary --overwrite     the same namespaces go over to the other control plane

Where helm has installed the mesh a tag is its value revisionTags.")]
pub(crate) struct TagArgs {
    #[command(subcommand)]
    pub(crate) command: TagCommand,
}

/// What is to be done with tags.
#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// Give a revision a tag
    Set {
        /// The tag
        #[arg(value_parser = crate::install::tag_name)]
        tag: String,

        /// Revision that is to have it
        #[arg(long, value_name = "NAME")]
        revision: String,

        /// Also if another has it, which then has it no more
        #[arg(long)]
        overwrite: bool,
    },
    /// Tags, whose they are, and which namespaces name them
    #[command(visible_alias = "ls")]
    List {
        /// Format
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<TagFormat>,
    },
    /// Take a tag away
    #[command(visible_alias = "rm")]
    Remove {
        /// The tag
        tag: String,
    },
}

/// Formats of `tag list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TagFormat {
    /// For programs
    Json,
}

/// `lateen uninstall`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl label namespaces --all istio.io/dataplane-mode- && lateen uninstall
  lateen uninstall --purge              also the definitions, with all that was written of them
  lateen uninstall --revision canary    that control plane alone

Pods that are still in the mesh would go on in plain text, so it refuses while there are any.")]
pub(crate) struct UninstallArgs {
    /// Revision of the control plane
    #[arg(long, value_name = "NAME", default_value = crate::install::DEFAULT)]
    pub(crate) revision: String,

    /// Also the definitions, with all objects of theirs, and the authority's key
    #[arg(long)]
    pub(crate) purge: bool,

    /// Also while pods are in the mesh
    #[arg(long)]
    pub(crate) force: bool,

    /// Say what would go, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `lateen manifest`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen manifest | kubectl apply --server-side -f -
  lateen manifest --set ctrl.replicas=3 --no-definitions
  lateen manifest --defaults > values.yaml")]
pub(crate) struct ManifestArgs {
    #[command(flatten)]
    pub(crate) values: ValueArgs,

    /// Without the definitions of the mesh's kinds
    #[arg(long)]
    pub(crate) no_definitions: bool,

    /// The chart's values with what each means, and nothing else
    #[arg(long)]
    pub(crate) defaults: bool,
}

/// `lateen x`
#[derive(Debug, clap::Args)]
pub(crate) struct ExperimentalArgs {
    #[command(subcommand)]
    pub(crate) command: Experimental,
}

/// Commands whose form may still change.
#[derive(Debug, Subcommand)]
pub(crate) enum Experimental {
    /// Say whether the mesh can be installed in a cluster, and what an installed Istio would claim as well
    Precheck(PrecheckArgs),
}

/// `lateen x precheck`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen x precheck
  lateen x precheck --context production

The exit code is 0 where nothing is in the way, 1 where something is, 77 where the cluster lacks something.")]
pub(crate) struct PrecheckArgs {}

/// `lateen top`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen top pods -A
  lateen top pods -n shop --sort-by buffered
  lateen top pods -A -o json

OUT/S and IN/S are bytes that the pod's applications sent and were given, a second, over the last two. BUFFERED waits in
the agent for applications that do not read, MEMORY is an estimate with connections and tunnels, WORK is the pod's part
of what all pods of its node made the agent do. REFUSED counts connections that a limit of the pod turned away or ended.")]
pub(crate) struct TopArgs {
    /// Of what: pods
    #[arg(value_enum)]
    pub(crate) what: TopKind,

    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,

    /// Print JSON
    #[arg(short = 'o', long, value_enum)]
    pub(crate) output: Option<VersionFormat>,

    /// What comes first: the most of this
    #[arg(long, value_enum, default_value_t = SortBy::Work)]
    pub(crate) sort_by: SortBy,
}

/// What `lateen top` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopKind {
    /// captured pods
    #[value(alias = "pod", alias = "po")]
    Pods,
}

/// How `lateen top` sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// part of the agent's work
    Work,
    /// bytes a second, both directions
    Bytes,
    /// connections open
    Connections,
    /// bytes that wait for applications
    Buffered,
    /// memory held
    Memory,
    /// file descriptors held
    Descriptors,
    /// connections turned away
    Refused,
    /// namespace and name
    Name,
}

/// `lateen why`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen why 7f3c1e52-8a5d-4c1b-9d0e-2b6f1c0a9e44    one request, by its x-request-id
  lateen why --denied --since 5m                     what was refused or failed lately
  lateen why -n shop --limit 5 -o json

Waypoints and node agents remember the newest requests and connections, apart from those that were refused or failed, in
bounded number and memory only; each line says which policy and rule decided, and by which rule it went.")]
pub(crate) struct WhyArgs {
    /// The request's x-request-id, wherever it went
    pub(crate) request: Option<String>,

    /// Only what was refused or failed
    #[arg(long)]
    pub(crate) denied: bool,

    /// Only what began so long ago at most: 90s, 5m, 2h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) since: Option<u64>,

    /// At most so many, the newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,

    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,

    /// Print JSON
    #[arg(short = 'o', long, value_enum)]
    pub(crate) output: Option<VersionFormat>,
}

/// `lateen ca`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen ca status
  lateen ca rotate-root                 a new root: distributed first, then it signs, then the old one goes
  lateen ca revoke -n shop reviews      all certificates of a service account; it gets no others
  lateen ca revoke 4f3a…                one certificate, by its serial number; its holder gets another
  lateen ca restore -n shop reviews")]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    pub(crate) action: CaAction,
}

/// What `lateen ca` does.
#[derive(Debug, Subcommand)]
pub(crate) enum CaAction {
    /// Show who signs, what is trusted until when, what is revoked, and what ends soon
    Status {
        /// Print JSON
        #[arg(short = 'o', long, value_enum)]
        output: Option<VersionFormat>,
    },
    /// Begin a change of the root that the mesh made itself
    RotateRoot {
        /// Have the new root sign at once, whoever has not heard of it
        #[arg(long)]
        now: bool,
    },
    /// Revoke a service account's certificates, or one certificate
    Revoke {
        /// SERVICEACCOUNT, NAMESPACE/SERVICEACCOUNT, spiffe://…, or a serial number
        what: String,
    },
    /// Let a revoked service account have certificates again
    Restore {
        /// SERVICEACCOUNT, NAMESPACE/SERVICEACCOUNT or spiffe://…
        what: String,
    },
}

/// `lateen proxy-status`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen proxy-status
  lateen proxy-status -v 1              by type: SYNCED, STALE, ERROR, or IGNORED where it is not asked for
  lateen proxy-status node-agent/node-1 -o json

The exit code is 0 if all of them have in force what ctrl has published, and refuse none of it.")]
pub(crate) struct ProxyStatusArgs {
    /// One proxy: node-agent/NODE, POD.NAMESPACE or POD
    pub(crate) proxy: Option<String>,

    /// 1 shows a column for each type
    #[arg(short = 'v', long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) verbosity: u8,

    /// Print JSON
    #[arg(short = 'o', long, value_enum)]
    pub(crate) output: Option<VersionFormat>,
}

/// `lateen down`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen down
  lateen down --mesh second")]
pub(crate) struct DownArgs {}

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

/// What the environment says beside options.
#[cfg(test)]
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "XDG_RUNTIME_DIR",
        "Where an ordinary user's meshes lie, in its folder `lateen`; root's lie in `/run/lateen`.",
    ),
    ("NO_COLOR", "Set: `lateen analyze` uses no colours."),
    (
        crate::local::components::NO_AGENT,
        "Set: a mesh starts without ctrl and node agents, only with namespaces, pods, services and names.",
    ),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::{Arg, Command, CommandFactory};

    use super::*;

    /// One line of a table: how the option is written, where else it comes from, and what it means.
    fn row(command: &str, arg: &Arg) -> String {
        let long = arg.get_long().map(|long| format!("`--{long}`"));
        let short = arg.get_short().map(|short| format!("`-{short}`"));
        let value = || arg.get_value_names().map_or_else(String::new, |names| names.join(" "));
        let written = if arg.is_positional() { Some(format!("`{}`", value())) } else { None };
        let written: Vec<String> = [short, long, written].into_iter().flatten().collect();
        let env = arg.get_env().map_or("–".into(), |env| format!("`{}`", env.to_string_lossy()));
        let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
        let default: Vec<_> = defaults.filter(|value| !value.is_empty() && value != "false").collect();
        let default = if default.is_empty() { "–".into() } else { format!("`{}`", default.join(",")) };
        let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        format!("| {command} | {} | {env} | {default} | {meaning} |\n", written.join(", "))
    }

    fn rows(name: &str, command: &Command, global: bool) -> String {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.is_global_set() == global);
        let shown = shown.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"));
        shown.map(|arg| row(name, arg)).collect()
    }

    /// The page of the documentation has the options of every command, as clap has them; `make docs` writes them there.
    #[test]
    fn the_documentation_agrees() {
        let whole = Args::command();
        let mut section = String::from(
            "## lateen\n\n| Command | Option | Environment | Default | Meaning |\n|---|---|---|---|---|\n",
        );
        section.push_str(&rows("all", &whole, true));
        for command in whole.get_subcommands().filter(|command| !command.is_hide_set()) {
            section.push_str(&rows(&format!("`{}`", command.get_name()), command, false));
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let name = format!("`{} {}`", command.get_name(), inner.get_name());
                section.push_str(&rows(&name, inner, false));
            }
        }
        section.push_str("\n| Environment | Meaning |\n|---|---|\n");
        for (name, meaning) in ENVIRONMENT {
            let _ = writeln!(section, "| `{name}` | {meaning} |");
        }
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        daemon::settings::check_page(&page, "lateen", &section).unwrap();
    }
}
