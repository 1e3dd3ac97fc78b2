//! Commands that look at a mesh, on this machine or in a cluster, and its certificate authority's.

use clap::{Subcommand, ValueEnum};

use super::VersionFormat;
use crate::flags::seconds;

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
