//! Every setting of the controller once: name, default, meaning. The help text and `docs/configuration.md` are made
//! from this table. Names are Istio's where Istio has the setting.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::settings::{Setting, Settings, SettingsError, setting, shared};
use identity::tls::KeyExchange;
use ipnet::IpNet;
use model::address::Str;
use model::mesh;

use crate::ca::authorize::Accounts;
use crate::ca::issue::Lifetimes;
use crate::cluster::Replica;
use crate::gateways::Surroundings;
use crate::source::kube::revision::Revision;
use crate::translate::Context;

/// The table.
pub const TABLE: &[Setting] = &[
    setting(
        "CONFIG_SOURCE",
        "files",
        "Where configuration comes from: files (SOURCE and OBJECTS) or kubernetes (the API server).",
    ),
    setting(
        "KUBECONFIG",
        "",
        "File with address and credentials of the API server. None: those of the pod that this runs in.",
    ),
    setting("POD_NAME", "", "On Kubernetes: this replica's name. None: the host's."),
    setting(
        "POD_NAMESPACE",
        "istio-system",
        "On Kubernetes: the namespace of the controller, where its Lease is.",
    ),
    setting(
        "REVISION",
        "default",
        "On Kubernetes: the revision of this controller. Objects whose label istio.io/rev names another are not its own.",
    ),
    setting("REVISION_TAGS", "", "On Kubernetes: further names that istio.io/rev may call this revision by."),
    setting("WEBHOOK_LISTEN", ":15017", "On Kubernetes: address of the admission webhook."),
    setting(
        "TOKEN_AUDIENCES",
        "istio-ca",
        "On Kubernetes: audiences of tokens that callers may bring; one is enough.",
    ),
    setting(
        "CA_TRUSTED_NODE_ACCOUNTS",
        "istio-system/ztunnel,istio-system/lateen-node-agent",
        "On Kubernetes: service accounts of node agents, NAMESPACE/NAME, which may ask for the identities of their node's pods.",
    ),
    setting(
        "WAYPOINT_IMAGE",
        concat!("lateen.dev/waypoint:", env!("CARGO_PKG_VERSION")),
        "On Kubernetes: the image of the waypoints that are made for Gateways.",
    ),
    setting(
        "WAYPOINT_CONTROLLER",
        "",
        "On Kubernetes: where these find the controller. None: https://lateen-ctrl.POD_NAMESPACE.svc:15012.",
    ),
    setting(
        "WAYPOINT_SETTINGS",
        "",
        "On Kubernetes: settings of these waypoints, NAME=VALUE, with commas between; may be repeated. A Gateway's own parameters count before.",
    ),
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
    setting("SERVICE_CIDRS", "", "Ranges of the addresses of the mesh's services, to the same effect."),
    shared::CLUSTER_ID,
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
    shared::KEY_EXCHANGE,
    setting("MONITORING_ADDR", ":15014", "Address of metrics and readiness."),
    setting(
        "ADMIN_ADDR",
        "",
        "Address on loopback where the pages of admin.sock are served as well: in a pod, whose owner forwards a port to it. None: nowhere.",
    ),
    setting("TERMINATION_GRACE_PERIOD", "5s", "How long calls may take to end after SIGTERM."),
    setting(
        "LOG_LEVEL",
        "info,kube_client=off,kube_runtime=off",
        "Levels of the log: LEVEL or SCOPE=LEVEL, with commas between.",
    ),
    shared::LOG_FORMAT,
];

/// Where configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum SourceSettings {
    /// From files.
    Files {
        /// Files and folders of manifests.
        sources: Vec<PathBuf>,
        /// The folder of the mesh's own objects.
        objects: Option<PathBuf>,
    },
    /// From an API server.
    Kubernetes {
        /// By which it is found and asked; none: as one of its pods.
        kubeconfig: Option<PathBuf>,
        /// Who this is among the controllers that ask it.
        replica: Replica,
        /// Whom it vouches for.
        accounts: Accounts,
        /// What waypoints are run as.
        waypoints: Surroundings,
        /// Of the admission webhook.
        webhook: SocketAddr,
    },
}

/// The settings, read.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where configuration comes from.
    pub source: SourceSettings,
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
    /// Of what operators ask, beside the socket in the state folder: on loopback.
    pub admin: Option<SocketAddr>,
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
        let path = |name| settings.optional(name).map(PathBuf::from);
        Ok(Self {
            source: source(settings)?,
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
            key_exchange: settings.parse_explained("KEY_EXCHANGE")?,
            monitoring: address(settings, "MONITORING_ADDR")?,
            admin: admin(settings)?,
            grace: settings.duration("TERMINATION_GRACE_PERIOD")?,
        })
    }
}

fn source(settings: &Settings) -> Result<SourceSettings, SettingsError> {
    let path = |name| settings.optional(name).map(PathBuf::from);
    let sources: Vec<PathBuf> = settings.list("SOURCE").into_iter().map(PathBuf::from).collect();
    let objects = path("OBJECTS");
    let unusable =
        |name, value: &str, expected| SettingsError::Unreadable { name, value: value.to_owned(), expected };
    match settings.text("CONFIG_SOURCE") {
        "files" => Ok(SourceSettings::Files { sources, objects }),
        // Whoever names both expects both to count.
        "kubernetes" if !sources.is_empty() => {
            Err(unusable("SOURCE", settings.text("SOURCE"), "nothing beside CONFIG_SOURCE=kubernetes"))
        }
        "kubernetes" if objects.is_some() => {
            Err(unusable("OBJECTS", settings.text("OBJECTS"), "nothing beside CONFIG_SOURCE=kubernetes"))
        }
        "kubernetes" => {
            let name = settings.optional("POD_NAME").map(str::to_owned);
            let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            let name = name.or_else(host).unwrap_or_else(|| "ctrl".to_owned());
            let revision = Revision::new(settings.text("REVISION"), settings.list("REVISION_TAGS"));
            let replica = Replica { namespace: settings.text("POD_NAMESPACE").to_owned(), name, revision };
            let accounts = Accounts {
                audiences: settings.list("TOKEN_AUDIENCES"),
                node_agents: settings.list("CA_TRUSTED_NODE_ACCOUNTS").into_iter().collect(),
                trust_domain: settings.text("TRUST_DOMAIN").to_owned(),
            };
            let waypoints = waypoints(settings)?;
            let webhook = address(settings, "WEBHOOK_LISTEN")?;
            let kubeconfig = path("KUBECONFIG");
            Ok(SourceSettings::Kubernetes { kubeconfig, replica, accounts, waypoints, webhook })
        }
        other => Err(unusable("CONFIG_SOURCE", other, "files or kubernetes")),
    }
}

/// What waypoints are run as: with what this controller itself knows of the mesh.
fn waypoints(settings: &Settings) -> Result<Surroundings, SettingsError> {
    let mut all = Vec::new();
    for name in ["TRUST_DOMAIN", "NETWORK", "CLUSTER_ID"] {
        if settings.text(name) != default_of(name) {
            all.push((name.to_owned(), settings.text(name).to_owned()));
        }
    }
    for given in settings.list("WAYPOINT_SETTINGS") {
        let Some((name, value)) = given.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(SettingsError::Unreadable {
                name: "WAYPOINT_SETTINGS",
                value: given,
                expected: "a list of NAME=VALUE",
            });
        };
        all.push((name.to_owned(), value.to_owned()));
    }
    let controller = match settings.text("WAYPOINT_CONTROLLER") {
        "" => format!("https://lateen-ctrl.{}.svc:15012", settings.text("POD_NAMESPACE")),
        given => given.to_owned(),
    };
    Ok(Surroundings { image: settings.text("WAYPOINT_IMAGE").to_owned(), controller, settings: all })
}

fn default_of(name: &str) -> &'static str {
    TABLE.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default)
}

fn context(settings: &Settings) -> Result<Context, SettingsError> {
    let text = |name| Str::from(settings.text(name));
    let ranges = |name| {
        let read = |value: String| {
            let unreadable =
                |_| SettingsError::Unreadable { name, value: value.clone(), expected: "a list of CIDRs" };
            value.parse::<IpNet>().map_err(unreadable)
        };
        settings.list(name).into_iter().map(read).collect::<Result<_, _>>()
    };
    let mesh = mesh::Settings {
        trust_domain: text("TRUST_DOMAIN"),
        trust_domain_aliases: settings.list("TRUST_DOMAIN_ALIASES").into_iter().map(Str::from).collect(),
        root_namespace: text("ROOT_NAMESPACE"),
        cluster: text("CLUSTER_ID"),
        pod_ranges: ranges("POD_CIDRS")?,
        service_ranges: ranges("SERVICE_CIDRS")?,
        // The authority says.
        trust: mesh::Trust::default(),
    };
    let objects = settings.optional("OBJECTS").map(|folder| Path::new(folder).into());
    Ok(Context { settings: mesh, network: text("NETWORK"), domain: text("DOMAIN_SUFFIX"), objects })
}

/// Whoever can connect there is answered: nobody from outside may.
fn admin(settings: &Settings) -> Result<Option<SocketAddr>, SettingsError> {
    if settings.text("ADMIN_ADDR").is_empty() {
        return Ok(None);
    }
    let expected = "ADDRESS:PORT on loopback, such as 127.0.0.1:15000";
    let address: SocketAddr = settings.parse("ADMIN_ADDR", expected)?;
    let value = address.to_string();
    match address.ip().is_loopback() {
        true => Ok(Some(address)),
        false => Err(SettingsError::Unreadable { name: "ADMIN_ADDR", value, expected }),
    }
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
        let sources = vec![PathBuf::from("/a"), PathBuf::from("/b")];
        assert_eq!(config.source, SourceSettings::Files { sources, objects: Some("/o".into()) });
        assert_eq!(config.listen, "10.0.0.1:15012".parse().unwrap());
        assert_eq!(config.monitoring, "[::]:15014".parse().unwrap());
        assert_eq!(config.context.settings.pod_ranges.len(), 2);
        assert_eq!(&*config.context.settings.trust_domain, "example.org");
    }

    #[test]
    fn what_operators_ask_is_answered_on_loopback_only() {
        assert_eq!(config(&[]).unwrap().admin, None);
        let own = config(&["--admin-addr", "127.0.0.1:15000"]).unwrap().admin;
        assert_eq!(own, Some("127.0.0.1:15000".parse().unwrap()));
        let refused = config(&["--admin-addr", "0.0.0.0:15000"]).unwrap_err();
        assert!(refused.contains("ADMIN_ADDR") && refused.contains("loopback"), "{refused}");
    }

    #[test]
    fn a_cluster_is_one_source_and_files_are_another() {
        let kubernetes = |args: &[&str]| config(&[&["--config-source", "kubernetes"], args].concat());
        let named = kubernetes(&["--kubeconfig", "/k", "--pod-name", "ctrl-0"]).unwrap().source;
        let SourceSettings::Kubernetes { kubeconfig, replica, accounts, waypoints, .. } = named else {
            panic!("{named:?}");
        };
        assert_eq!(kubeconfig, Some("/k".into()));
        let revision = Revision::new("default", []);
        let expected = Replica { namespace: "istio-system".to_owned(), name: "ctrl-0".to_owned(), revision };
        assert_eq!(replica, expected);
        assert!(accounts.node_agents.contains("istio-system/ztunnel"));
        assert_eq!(waypoints.controller, "https://lateen-ctrl.istio-system.svc:15012");
        assert_eq!(waypoints.settings, []);
        let named = kubernetes(&["--waypoint-settings", "LOG_LEVEL=debug,A=b=c", "--trust-domain", "a.b"]);
        let SourceSettings::Kubernetes { waypoints, .. } = named.unwrap().source else {
            panic!("another source")
        };
        let pairs = [("TRUST_DOMAIN", "a.b"), ("LOG_LEVEL", "debug"), ("A", "b=c")];
        assert_eq!(waypoints.settings, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let unnamed = kubernetes(&[]).unwrap().source;
        let has_name = |replica: &Replica| !replica.name.is_empty();
        assert!(
            matches!(&unnamed, SourceSettings::Kubernetes { kubeconfig: None, replica, .. } if has_name(replica))
        );
        for (args, part) in [(["--source", "/a"], "SOURCE"), (["--objects", "/o"], "OBJECTS")] {
            let error = kubernetes(&args).unwrap_err();
            assert!(error.contains(part) && error.contains("kubernetes"), "{error}");
        }
    }

    #[test]
    fn says_which_value_is_wrong() {
        for (args, part) in [
            (["--pod-cidrs", "10.0.0.0/99"], "POD_CIDRS"),
            (["--service-cidrs", "10.96.0.0"], "SERVICE_CIDRS"),
            (["--listen", "nowhere"], "LISTEN"),
            (["--max-workload-cert-ttl", "long"], "MAX_WORKLOAD_CERT_TTL"),
            (["--key-exchange", "rot13"], "KEY_EXCHANGE"),
            (["--config-source", "etcd"], "CONFIG_SOURCE"),
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
