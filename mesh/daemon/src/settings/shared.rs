//! Settings that several processes have. A row here means the same to each of them; where a setting means something of its
//! own, only the name is shared.

use super::{Setting, setting};

/// The settings' names.
pub mod name {
    #![allow(missing_docs, reason = "the tables say what each means")]

    pub const NODE_NAME: &str = "NODE_NAME";
    pub const DRAIN: &str = "TERMINATION_GRACE_PERIOD";
    pub const XDS_ADDRESS: &str = "XDS_ADDRESS";
    pub const XDS_ROOT_CA: &str = "XDS_ROOT_CA";
    pub const ALT_XDS_HOSTNAME: &str = "ALT_XDS_HOSTNAME";
    pub const CA_ADDRESS: &str = "CA_ADDRESS";
    pub const CA_ROOT_CA: &str = "CA_ROOT_CA";
    pub const ALT_CA_HOSTNAME: &str = "ALT_CA_HOSTNAME";
    pub const TOKEN_FILE: &str = "TOKEN_FILE";
    pub const CLUSTER_ID: &str = "CLUSTER_ID";
    pub const NETWORK: &str = "NETWORK";
    pub const INSTANCE_IP: &str = "INSTANCE_IP";
    pub const POD_NAME: &str = "POD_NAME";
    pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
    pub const SECRET_TTL: &str = "SECRET_TTL";
    pub const KEY_EXCHANGE: &str = "KEY_EXCHANGE";
    pub const WORKER_THREADS: &str = "WORKER_THREADS";
    pub const OPEN_FILES: &str = "OPEN_FILES";
    pub const DECISION_RECORDS: &str = "DECISION_RECORDS";
    pub const METRIC_SERIES: &str = "METRIC_SERIES";
    pub const ADMIN_PORT: &str = "ADMIN_PORT";
    pub const STATS_PORT: &str = "STATS_PORT";
    pub const READINESS_PORT: &str = "READINESS_PORT";
    pub const LOG_LEVEL: &str = "LOG_LEVEL";
    pub const LOG_FORMAT: &str = "LOG_FORMAT";
}

/// The row of [`name::XDS_ADDRESS`].
pub const XDS_ADDRESS: Setting =
    setting(name::XDS_ADDRESS, "https://istiod.istio-system.svc:15012", "Where the controller is.");

/// The row of [`name::XDS_ROOT_CA`].
pub const XDS_ROOT_CA: Setting = setting(
    name::XDS_ROOT_CA,
    "/var/run/secrets/istio/root-cert.pem",
    "PEM file with the roots that vouch for the controller.",
);

/// The row of [`name::ALT_XDS_HOSTNAME`].
pub const ALT_XDS_HOSTNAME: Setting = setting(
    name::ALT_XDS_HOSTNAME,
    "",
    "The name in the controller's certificate, where it is not the address's host.",
);

/// The row of [`name::CA_ADDRESS`].
pub const CA_ADDRESS: Setting =
    setting(name::CA_ADDRESS, "https://istiod.istio-system.svc:15012", "Where certificates are issued.");

/// The row of [`name::CA_ROOT_CA`].
pub const CA_ROOT_CA: Setting = setting(
    name::CA_ROOT_CA,
    "/var/run/secrets/istio/root-cert.pem",
    "PEM file with the roots that vouch for the certificate authority.",
);

/// The row of [`name::ALT_CA_HOSTNAME`].
pub const ALT_CA_HOSTNAME: Setting = setting(
    name::ALT_CA_HOSTNAME,
    "",
    "The name in the authority's certificate, where it is not the address's host.",
);

/// The row of [`name::CLUSTER_ID`].
pub const CLUSTER_ID: Setting = setting(name::CLUSTER_ID, "Kubernetes", "This cluster's name.");

/// The row of [`name::SECRET_TTL`].
pub const SECRET_TTL: Setting =
    setting(name::SECRET_TTL, "24h", "Lifetime asked for certificates; they are renewed at half of it.");

/// The row of [`name::KEY_EXCHANGE`].
pub const KEY_EXCHANGE: Setting = setting(
    name::KEY_EXCHANGE,
    "x25519",
    "Key exchange offered first: x25519, hybrid (post-quantum X25519MLKEM768 where the peer has it) or hybrid-only (also pqc).",
);

/// The row of [`name::ADMIN_PORT`].
pub const ADMIN_PORT: Setting = setting(name::ADMIN_PORT, "15000", "Port of the admin page, on loopback.");

/// The row of [`name::STATS_PORT`].
pub const STATS_PORT: Setting = setting(name::STATS_PORT, "15020", "Port of the metrics.");

/// The row of [`name::READINESS_PORT`].
pub const READINESS_PORT: Setting = setting(name::READINESS_PORT, "15021", "Port of readiness.");

/// The row of [`name::LOG_LEVEL`].
pub const LOG_LEVEL: Setting =
    setting(name::LOG_LEVEL, "info", "Levels of the log: LEVEL or SCOPE=LEVEL, with commas between.");

/// The row of [`name::LOG_FORMAT`].
pub const LOG_FORMAT: Setting = setting(name::LOG_FORMAT, "plain", "Form of the log: plain or json.");
