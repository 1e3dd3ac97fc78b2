//! The command line of `lateen waypoint`: Istio's words.

use clap::{Subcommand, ValueEnum};

use crate::args::VersionFormat;

/// `lateen waypoint`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen waypoint apply -n shop --service-account reviews --wait    in front of all pods of an account
  lateen waypoint apply -n shop --enroll-namespace --wait           for the services of a namespace
  lateen waypoint list -A
  lateen waypoint status -n shop
  lateen waypoint delete -n shop --service-account reviews
  lateen waypoint generate --name w --for all >> manifests/gateways.yaml

A mesh of this machine reads its objects from files: there `generate` writes what belongs into them, `list` and `status`
show what became of it.")]
pub(crate) struct WaypointArgs {
    #[command(subcommand)]
    pub(crate) action: WaypointAction,
}

/// What to do with waypoints.
#[derive(Debug, Subcommand)]
pub(crate) enum WaypointAction {
    /// Make a waypoint, or change one
    Apply(WaypointApply),
    /// Print the Gateway that `apply` would make
    Generate(WaypointGateway),
    /// Which waypoints there are
    List(WaypointShow),
    /// Whether waypoints run, and why not: exit code 1 unless all of them do
    Status(WaypointShow),
    /// Remove waypoints
    Delete(WaypointDelete),
}

/// Which waypoint.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaypointGateway {
    /// Its name [default: waypoint; ACCOUNT-waypoint in front of a service account]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// The service account of its namespace in front of whose pods it stands, whatever labels say
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) service_account: Option<String>,

    /// For which traffic labels may ask for it [default: service]
    #[arg(long = "for", value_enum, value_name = "TRAFFIC")]
    pub(crate) traffic: Option<Traffic>,
}

/// For which traffic a waypoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traffic {
    /// to services
    Service,
    /// to the addresses of pods
    Workload,
    /// both
    All,
    /// neither
    None,
}

impl Traffic {
    /// As the label has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// `lateen waypoint apply`
#[derive(Debug, clap::Args)]
pub(crate) struct WaypointApply {
    #[command(flatten)]
    pub(crate) gateway: WaypointGateway,

    /// Label the namespace with it, so that its services go by it
    #[arg(long)]
    pub(crate) enroll_namespace: bool,

    /// Return once it is ready
    #[arg(short = 'w', long)]
    pub(crate) wait: bool,

    /// With --wait: how long that may take, in seconds
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// `lateen waypoint list` and `status`
#[derive(Debug, clap::Args)]
pub(crate) struct WaypointShow {
    /// Only the waypoint of this name
    pub(crate) name: Option<String>,

    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,

    /// Print JSON
    #[arg(short = 'o', long, value_enum)]
    pub(crate) output: Option<VersionFormat>,

    /// With `status`: wait until all of them are ready
    #[arg(short = 'w', long)]
    pub(crate) wait: bool,

    /// With --wait: how long that may take, in seconds
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// `lateen waypoint delete`
#[derive(Debug, clap::Args)]
pub(crate) struct WaypointDelete {
    /// The waypoints' names
    pub(crate) names: Vec<String>,

    /// Those in front of this service account
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) service_account: Option<String>,

    /// All of the namespace
    #[arg(long)]
    pub(crate) all: bool,
}
