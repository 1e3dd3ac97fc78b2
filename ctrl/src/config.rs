//! Every setting of the controller once: name, default, meaning. The help text and `docs/configuration.md` are made
//! from this table. Names are Istio's where Istio has the setting.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::settings::{Setting, Settings, SettingsError};
use identity::tls::KeyExchange;
use ipnet::IpNet;
use model::address::Str;
use model::mesh;

use crate::ca::issue::Lifetimes;
use crate::translate::Context;

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// The table.
pub const TABLE: &[Setting] = &[
    setting(
        "SOURCE",
        "",
        "Files and folders of manifests; may be repeated. Of a folder *.yaml, *.yml and *.json are read.",
    ),
    setting(
        "OBJECTS",
        "",
        "Folder of the objects that a mesh without Kubernetes writes: pods, nodes, endpoints, services with addresses.",
    ),
    setting(
        "STATE",
        "/var/lib/lateen",
        "Folder of what outlives a restart: the root certificate with its key, policies as they were last good; and of admin.sock.",
    ),
    setting("LISTEN", ":15012", "Address of the xDS and certificate services."),
    setting(
        "TOKENS",
        "/var/lib/lateen/tokens",
        "Folder of bearer tokens, one a file: the file's name is the node's, or NAMESPACE_ACCOUNT for a workload's own proxy.",
    ),
    setting(
        "POD_CIDRS",
        "",
        "Ranges of the mesh's own pods: an address in one is waited for, never taken for one outside the mesh.",
    ),
    setting("CLUSTER_ID", "Kubernetes", "This cluster's name."),
    setting("TRUST_DOMAIN", "cluster.local", "Trust domain of the identities issued here."),
    setting("TRUST_DOMAIN_ALIASES", "", "Trust domains whose identities count as well."),
    setting("ROOT_NAMESPACE", "istio-system", "The namespace whose policies are for the whole mesh."),
    setting("DOMAIN_SUFFIX", "cluster.local", "What follows SERVICE.NAMESPACE.svc in host names."),
    setting("NETWORK", "", "Name of the network that addresses belong to, where there are several."),
    setting(
        "ROOT_CA_DIR",
        "",
        "Folder of a plugged-in authority: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem, ca-crl.pem; read again as files change. None: one of our own is made and kept.",
    ),
    setting("CITADEL_SELF_SIGNED_CA_CERT_TTL", "87600h", "Lifetime of a root made here."),
    setting(
        "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
        "20",
        "The share of the life of a root made here, in percent, that is left when its successor is made by itself.",
    ),
    setting(
        "ROOT_ROTATION_TIMEOUT",
        "24h",
        "How long a new root waits at most, before it signs, for proxies that have not said that they trust it.",
    ),
    setting("DEFAULT_WORKLOAD_CERT_TTL", "24h", "Lifetime of certificates for which the caller asks none."),
    setting("MAX_WORKLOAD_CERT_TTL", "2160h", "Longest lifetime of a certificate."),
    setting(
        "ISTIOD_CUSTOM_HOST",
        "",
        "Further names and addresses of the controller, for its own certificate.",
    ),
    setting(
        "KEY_EXCHANGE",
        "x25519",
        "Key exchange offered first: x25519, hybrid (post-quantum X25519MLKEM768 where the peer has it) or hybrid-only (also pqc).",
    ),
    setting("MONITORING_ADDR", ":15014", "Address of metrics and readiness."),
    setting("TERMINATION_GRACE_PERIOD", "5s", "How long calls may take to end after SIGTERM."),
    setting("LOG_LEVEL", "info", "Levels of the log: LEVEL or SCOPE=LEVEL, with commas between."),
    setting("LOG_FORMAT", "plain", "Form of the log: plain or json."),
];

/// The settings, read.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files and folders of manifests.
    pub sources: Vec<PathBuf>,
    /// The mesh's own objects.
    pub objects: Option<PathBuf>,
    /// What outlives a restart.
    pub state: PathBuf,
    /// Of xDS and certificates.
    pub listen: SocketAddr,
    /// Who may call.
    pub tokens: PathBuf,
    /// The mesh.
    pub context: Context,
    /// A plugged-in authority.
    pub plugged_authority: Option<PathBuf>,
    /// Of certificates.
    pub lifetimes: Lifetimes,
    /// How long a root made here lives.
    pub root_lifetime: Duration,
    /// The share of it that is left when its successor is made, in percent.
    pub root_grace_percent: u32,
    /// How long a successor waits for proxies.
    pub rotation_patience: Duration,
    /// Further names of the controller.
    pub names: Vec<String>,
    /// The key exchange offered first.
    pub key_exchange: KeyExchange,
    /// Of metrics and readiness.
    pub monitoring: SocketAddr,
    /// For calls to end.
    pub grace: Duration,
}

/// Reads flags and the environment.
///
/// # Errors
/// A flag that is not in the table, or one without a value.
pub fn read(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Settings, SettingsError> {
    Settings::read(TABLE, args, env)
}

impl Config {
    /// From the settings.
    ///
    /// # Errors
    /// A value that cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let path = |name| Some(settings.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
        Ok(Self {
            sources: settings.list("SOURCE").into_iter().map(PathBuf::from).collect(),
            objects: path("OBJECTS"),
            state: path("STATE").unwrap_or_default(),
            listen: address(settings, "LISTEN")?,
            tokens: path("TOKENS").unwrap_or_default(),
            context: context(settings)?,
            plugged_authority: path("ROOT_CA_DIR"),
            lifetimes: Lifetimes {
                default: settings.duration("DEFAULT_WORKLOAD_CERT_TTL")?,
                longest: settings.duration("MAX_WORKLOAD_CERT_TTL")?,
            },
            root_lifetime: settings.duration("CITADEL_SELF_SIGNED_CA_CERT_TTL")?,
            root_grace_percent: settings
                .parse("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", "a number from 0 to 100")?,
            rotation_patience: settings.duration("ROOT_ROTATION_TIMEOUT")?,
            names: settings.list("ISTIOD_CUSTOM_HOST"),
            key_exchange: settings.parse("KEY_EXCHANGE", "x25519, hybrid or hybrid-only")?,
            monitoring: address(settings, "MONITORING_ADDR")?,
            grace: settings.duration("TERMINATION_GRACE_PERIOD")?,
        })
    }
}

fn context(settings: &Settings) -> Result<Context, SettingsError> {
    let text = |name| Str::from(settings.text(name));
    let range = |value: String| {
        let unreadable = SettingsError::Unreadable {
            name: "POD_CIDRS",
            value: value.clone(),
            expected: "a list of CIDRs",
        };
        value.parse::<IpNet>().map_err(|_| unreadable)
    };
    let mesh = mesh::Settings {
        trust_domain: text("TRUST_DOMAIN"),
        trust_domain_aliases: settings.list("TRUST_DOMAIN_ALIASES").into_iter().map(Str::from).collect(),
        root_namespace: text("ROOT_NAMESPACE"),
        cluster: text("CLUSTER_ID"),
        pod_ranges: settings.list("POD_CIDRS").into_iter().map(range).collect::<Result<_, _>>()?,
        // The authority says.
        trust: mesh::Trust::default(),
    };
    let objects = Some(settings.text("OBJECTS")).filter(|folder| !folder.is_empty());
    let objects = objects.map(|folder| Path::new(folder).into());
    Ok(Context { settings: mesh, network: text("NETWORK"), domain: text("DOMAIN_SUFFIX"), objects })
}

/// `ADDRESS:PORT`, or `:PORT` for all addresses.
fn address(settings: &Settings, name: &'static str) -> Result<SocketAddr, SettingsError> {
    if let Some(port) = settings.text(name).strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    settings.parse(name, "ADDRESS:PORT or :PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let settings = read(args.iter().map(|arg| (*arg).to_owned()), |_| None).map_err(|e| e.to_string())?;
        Config::new(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_what_lateen_up_writes() {
        let config = config(&[
            "--source",
            "/a",
            "--source",
            "/b",
            "--objects",
            "/o",
            "--state",
            "/s",
            "--listen",
            "10.0.0.1:15012",
            "--tokens",
            "/t",
            "--pod-cidrs",
            "10.244.0.0/16,fd00:10:244::/48",
            "--cluster-id",
            "Kubernetes",
            "--trust-domain",
            "example.org",
        ])
        .unwrap();
        assert_eq!(config.sources, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(config.listen, "10.0.0.1:15012".parse().unwrap());
        assert_eq!(config.monitoring, "[::]:15014".parse().unwrap());
        assert_eq!(config.context.settings.pod_ranges.len(), 2);
        assert_eq!(&*config.context.settings.trust_domain, "example.org");
        assert_eq!(config.objects.as_deref(), Some(Path::new("/o")));
    }

    #[test]
    fn says_which_value_is_wrong() {
        for (args, part) in [
            (["--pod-cidrs", "10.0.0.0/99"], "POD_CIDRS"),
            (["--listen", "nowhere"], "LISTEN"),
            (["--max-workload-cert-ttl", "long"], "MAX_WORKLOAD_CERT_TTL"),
            (["--key-exchange", "rot13"], "KEY_EXCHANGE"),
        ] {
            let error = config(&args).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    /// The page of the documentation has this table, word by word; `make docs` writes it there.
    #[test]
    fn the_documentation_agrees() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let section = daemon::settings::markdown("ctrl", TABLE);
        daemon::settings::check_page(&page, "ctrl", &section).unwrap();
    }
}
