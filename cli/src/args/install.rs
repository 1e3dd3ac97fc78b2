//! Commands that put a mesh into a cluster, change it there and take it out; `upgrade` is for meshes of this machine, too.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

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
