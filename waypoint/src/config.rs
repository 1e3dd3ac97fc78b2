//! Every setting of the waypoint once: name, default, meaning. The help text and `docs/configuration.md` are made from
//! this table. Names are Istio's where Istio has the setting.

use daemon::settings::{Setting, Settings, SettingsError, setting, shared};

/// The settings' names.
pub mod name {
    #![allow(missing_docs, reason = "the table beside it says what each means")]

    pub use daemon::settings::shared::name::*;

    pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
    pub const GATEWAY_NAME: &str = "GATEWAY_NAME";
    pub const GATEWAY_CLASS: &str = "GATEWAY_CLASS";
    pub const TRUST_DOMAIN: &str = "TRUST_DOMAIN";
    pub const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    pub const PROPAGATORS: &str = "OTEL_PROPAGATORS";
    pub const TRACE_SAMPLING: &str = "TRACE_SAMPLING";
    pub const HBONE_PORT: &str = "HBONE_PORT";
}

/// The table.
pub const TABLE: &[Setting] = &[
    setting(name::POD_NAME, "", "This waypoint's own pod."),
    setting(name::POD_NAMESPACE, "default", "The namespace of this waypoint's own pod."),
    setting(name::SERVICE_ACCOUNT, "", "The service account that this waypoint's own pod runs as."),
    setting(
        name::GATEWAY_NAME,
        "",
        "The Gateway that this waypoint is of, in POD_NAMESPACE: policies are attached to it. None: the service account's name, which is the same where the account was made for the Gateway.",
    ),
    setting(
        name::GATEWAY_CLASS,
        "istio-waypoint",
        "The class of that Gateway: policies are attached to all Gateways of a class, too.",
    ),
    setting(name::NODE_NAME, "", "The node that this waypoint runs on."),
    setting(
        name::INSTANCE_IP,
        "",
        "This waypoint's own address: what its own workload is found by, and where tunnels are taken. Required.",
    ),
    setting(name::TRUST_DOMAIN, "cluster.local", "The trust domain of this waypoint's own identity."),
    setting(name::NETWORK, "", "This waypoint's network, where there are several."),
    shared::CLUSTER_ID,
    shared::XDS_ADDRESS,
    shared::XDS_ROOT_CA,
    shared::ALT_XDS_HOSTNAME,
    shared::CA_ADDRESS,
    shared::CA_ROOT_CA,
    shared::ALT_CA_HOSTNAME,
    setting(
        name::TOKEN_FILE,
        "/var/run/secrets/tokens/istio-token",
        "File with the service account's token, which proves this waypoint to the controller and the authority.",
    ),
    shared::SECRET_TTL,
    shared::KEY_EXCHANGE,
    setting(
        name::WORKER_THREADS,
        "0",
        "Threads that carry requests; 0 for one a CPU of this process's share.",
    ),
    setting(name::OPEN_FILES, "0", "Files that may be open; 0 for as many as the system allows."),
    setting(
        name::METRIC_SERIES,
        "5000",
        "Sets of labels that the istio_* metrics have at most, on whatever threads; what is more is counted as unknown, and lateen_limit_hits_total{limit=\"metric_series\"} goes up.",
    ),
    setting(
        name::DECISION_RECORDS,
        "1000",
        "Requests and connections that are remembered for lateen why: the newest that passed, and as many that were refused or failed; 0 for none.",
    ),
    setting(
        name::COLLECTOR,
        "",
        "Where spans go: http://HOST:PORT of a collector that takes OTLP over gRPC. None: requests leave no spans, and their trace headers pass as they are.",
    ),
    setting(
        name::PROPAGATORS,
        "tracecontext,b3,b3multi",
        "How requests say which trace they belong to, with commas between; of formats that disagree the first in this order counts. tracecontext is written always, the others where a request came with them.",
    ),
    setting(
        name::TRACE_SAMPLING,
        "1",
        "Per cent of the requests of which nobody before has decided whether they leave a span.",
    ),
    setting(
        name::DRAIN,
        "10s",
        "How long requests and connections may take to end after SIGTERM. Until the controller sends nothing new here, at most a third of it, everything is served as before; then clients are told to go elsewhere; in the last second what waits for a request is closed.",
    ),
    setting(name::HBONE_PORT, "15008", "Port that tunnels are taken on."),
    shared::ADMIN_PORT,
    shared::STATS_PORT,
    shared::READINESS_PORT,
    shared::LOG_LEVEL,
    shared::LOG_FORMAT,
];

/// Reads flags and, for what they leave out, the environment.
///
/// # Errors
/// A flag that is not in the table, or one without a value.
pub fn read(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Settings, SettingsError> {
    Settings::read(TABLE, args, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        for setting in TABLE {
            let count = TABLE.iter().filter(|other| other.name == setting.name).count();
            assert_eq!(count, 1, "{}", setting.name);
        }
    }

    /// The page of the documentation has this table, word by word; `make docs` writes it there.
    #[test]
    fn the_documentation_agrees() {
        let section = daemon::settings::markdown("waypoint", TABLE);
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        daemon::settings::check_page(&page, "waypoint", &section).unwrap();
    }
}
