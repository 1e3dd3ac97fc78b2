//! Every setting of the waypoint once: name, default, meaning. The help text and `docs/configuration.md` are made from
//! this table. Names are Istio's where Istio has the setting.

use daemon::settings::{Setting, Settings, SettingsError};

/// The settings' names.
pub mod name {
    #![allow(missing_docs, reason = "the table beside it says what each means")]

    pub const POD_NAME: &str = "POD_NAME";
    pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
    pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
    pub const GATEWAY_NAME: &str = "GATEWAY_NAME";
    pub const NODE_NAME: &str = "NODE_NAME";
    pub const INSTANCE_IP: &str = "INSTANCE_IP";
    pub const TRUST_DOMAIN: &str = "TRUST_DOMAIN";
    pub const NETWORK: &str = "NETWORK";
    pub const CLUSTER_ID: &str = "CLUSTER_ID";
    pub const XDS_ADDRESS: &str = "XDS_ADDRESS";
    pub const XDS_ROOT_CA: &str = "XDS_ROOT_CA";
    pub const ALT_XDS_HOSTNAME: &str = "ALT_XDS_HOSTNAME";
    pub const CA_ADDRESS: &str = "CA_ADDRESS";
    pub const CA_ROOT_CA: &str = "CA_ROOT_CA";
    pub const ALT_CA_HOSTNAME: &str = "ALT_CA_HOSTNAME";
    pub const TOKEN_FILE: &str = "TOKEN_FILE";
    pub const SECRET_TTL: &str = "SECRET_TTL";
    pub const KEY_EXCHANGE: &str = "KEY_EXCHANGE";
    pub const WORKER_THREADS: &str = "WORKER_THREADS";
    pub const OPEN_FILES: &str = "OPEN_FILES";
    pub const METRIC_SERIES: &str = "METRIC_SERIES";
    pub const DRAIN: &str = "TERMINATION_GRACE_PERIOD";
    pub const HBONE_PORT: &str = "HBONE_PORT";
    pub const ADMIN_PORT: &str = "ADMIN_PORT";
    pub const STATS_PORT: &str = "STATS_PORT";
    pub const READINESS_PORT: &str = "READINESS_PORT";
    pub const LOG_LEVEL: &str = "LOG_LEVEL";
    pub const LOG_FORMAT: &str = "LOG_FORMAT";
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
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
    setting(name::NODE_NAME, "", "The node that this waypoint runs on."),
    setting(
        name::INSTANCE_IP,
        "",
        "This waypoint's own address: what its own workload is found by, and where tunnels are taken. None: every address.",
    ),
    setting(name::TRUST_DOMAIN, "cluster.local", "The trust domain of this waypoint's own identity."),
    setting(name::NETWORK, "", "This waypoint's network, where there are several."),
    setting(name::CLUSTER_ID, "Kubernetes", "This cluster's name."),
    setting(name::XDS_ADDRESS, "https://istiod.istio-system.svc:15012", "Where the controller is."),
    setting(
        name::XDS_ROOT_CA,
        "/var/run/secrets/istio/root-cert.pem",
        "PEM file with the roots that vouch for the controller.",
    ),
    setting(
        name::ALT_XDS_HOSTNAME,
        "",
        "The name in the controller's certificate, where it is not the address's host.",
    ),
    setting(name::CA_ADDRESS, "https://istiod.istio-system.svc:15012", "Where certificates are issued."),
    setting(
        name::CA_ROOT_CA,
        "/var/run/secrets/istio/root-cert.pem",
        "PEM file with the roots that vouch for the certificate authority.",
    ),
    setting(
        name::ALT_CA_HOSTNAME,
        "",
        "The name in the authority's certificate, where it is not the address's host.",
    ),
    setting(
        name::TOKEN_FILE,
        "/var/run/secrets/tokens/istio-token",
        "File with the service account's token, which proves this waypoint to the controller and the authority.",
    ),
    setting(name::SECRET_TTL, "24h", "Lifetime asked for certificates; they are renewed at half of it."),
    setting(
        name::KEY_EXCHANGE,
        "x25519",
        "Key exchange offered first: x25519, hybrid (post-quantum X25519MLKEM768 where the peer has it) or hybrid-only (also pqc).",
    ),
    setting(
        name::WORKER_THREADS,
        "0",
        "Threads that carry requests; 0 for one a CPU of this process's share.",
    ),
    setting(name::OPEN_FILES, "0", "Files that may be open; 0 for as many as the system allows."),
    setting(
        name::METRIC_SERIES,
        "5000",
        "Sets of labels that the istio_* metrics of each thread have at most; what is more is counted as unknown, and lateen_limit_hits_total{limit=\"metric_series\"} goes up.",
    ),
    setting(
        name::DRAIN,
        "30s",
        "How long requests and connections may take to end after SIGTERM; no new tunnel is taken meanwhile.",
    ),
    setting(name::HBONE_PORT, "15008", "Port that tunnels are taken on."),
    setting(name::ADMIN_PORT, "15000", "Port of the admin page, on loopback."),
    setting(name::STATS_PORT, "15020", "Port of the metrics."),
    setting(name::READINESS_PORT, "15021", "Port of readiness."),
    setting(name::LOG_LEVEL, "info", "Levels of the log: LEVEL or SCOPE=LEVEL, with commas between."),
    setting(name::LOG_FORMAT, "plain", "Form of the log: plain or json."),
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
