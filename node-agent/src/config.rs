//! Every setting of the node agent once: name, default, meaning. The help text and `docs/configuration.md` are made
//! from this table. Names are Istio's where Istio has the setting.

use std::path::PathBuf;

use daemon::settings::{Setting, Settings, SettingsError, setting, shared};

/// The settings' names.
pub mod name {
    #![allow(missing_docs, reason = "the table beside it says what each means")]

    pub use daemon::settings::shared::name::*;

    pub const RUN_DIR: &str = "RUN_DIR";
    pub const CONFIG_SOURCE: &str = "CONFIG_SOURCE";
    pub const KUBECONFIG: &str = "KUBECONFIG";
    pub const SOURCE: &str = "SOURCE";
    pub const OBJECTS: &str = "OBJECTS";
    pub const ZDS_SOCKET: &str = "INPOD_UDS";
    pub const REDIRECT_SOCKET: &str = "REDIRECT_UDS";
    pub const FOREIGN_PROXY: &str = "FOREIGN_PROXY";
    pub const START_PROXY: &str = "START_PROXY";
    pub const DNS_CAPTURE: &str = "AMBIENT_DNS_CAPTURE";
    pub const DROP_UNCARRIED: &str = "DROP_UNCARRIED";
    pub const LEAVE_GRACE: &str = "LEAVE_GRACE";
    pub const NFT: &str = "NFT";
    pub const CLEANUP: &str = "CLEANUP";
    pub const INSTALL_CNI: &str = "INSTALL_CNI";
    pub const CNI_BIN_DIR: &str = "CNI_BIN_DIR";
    pub const CNI_CONF_DIR: &str = "CNI_CONF_DIR";
    pub const CNI_EXEMPT: &str = "CNI_EXEMPT_NAMESPACES";
    pub const DAEMON_SET: &str = "DAEMON_SET";
    pub const HANDOVER_GRACE: &str = "HANDOVER_GRACE";
    pub const ON_DEMAND: &str = "XDS_ON_DEMAND";
    pub const ON_DEMAND_IDLE: &str = "XDS_ON_DEMAND_IDLE";
    pub const TUNNEL_CONGESTION_CONTROL: &str = "TUNNEL_CONGESTION_CONTROL";
    pub const THREAD_BUSY: &str = "THREAD_BUSY";
    pub const MEMORY_LIMIT: &str = "MEMORY_LIMIT";
    pub const CLUSTER_DOMAIN: &str = "CLUSTER_DOMAIN";
    pub const DNS_UPSTREAMS: &str = "DNS_UPSTREAMS";
}

/// The table.
pub const TABLE: &[Setting] = &[
    setting(name::NODE_NAME, "", "The node this agent runs on."),
    setting(name::RUN_DIR, "/var/run/lateen", "Folder of the redirecting role's sockets."),
    setting(
        name::CONFIG_SOURCE,
        "files",
        "Where the redirecting role learns of this node's pods: files (SOURCE and OBJECTS) or kubernetes (the API server).",
    ),
    setting(
        name::KUBECONFIG,
        "",
        "File with address and credentials of the API server. None: those of the pod that this runs in.",
    ),
    setting(
        name::SOURCE,
        "",
        "Files and folders of manifests that the redirecting role reads namespaces from; may be repeated.",
    ),
    setting(
        name::OBJECTS,
        "",
        "Folder of the objects that a mesh without Kubernetes writes: pods, and where redirection is noted.",
    ),
    setting(
        name::ZDS_SOCKET,
        "/var/run/ztunnel/ztunnel.sock",
        "Socket on which the redirecting role names pods to the proxy (ZDS).",
    ),
    setting(
        name::REDIRECT_SOCKET,
        "",
        "Socket on which our own redirecting role hands listeners and state to the proxy. None: a foreign one (istio-cni), the proxy opens its own listeners.",
    ),
    setting(
        name::FOREIGN_PROXY,
        "false",
        "Another program than ours (ztunnel) is the proxy: the redirecting role starts none and keeps no listeners.",
    ),
    setting(
        name::START_PROXY,
        "true",
        "Whether the redirecting role starts `node-agent proxy`, and again when it ends. Never a foreign one.",
    ),
    setting(
        name::DNS_CAPTURE,
        "true",
        "Whether captured pods' DNS queries are captured, where a pod's annotation ambient.istio.io/dns-capture says nothing.",
    ),
    setting(
        name::DROP_UNCARRIED,
        "false",
        "Whether captured pods lose what the mesh does not carry (UDP but DNS, SCTP) instead of having it pass beside the mesh.",
    ),
    setting(
        name::LEAVE_GRACE,
        "5s",
        "How long at least a pod that leaves the mesh still takes tunnels, until its peers know.",
    ),
    setting(name::NFT, "nft", "The nftables command."),
    setting(
        name::CLEANUP,
        "false",
        "Whether the redirecting role takes pods' rules away when it ends. Otherwise they stay, so that nothing passes in the clear.",
    ),
    setting(
        name::INSTALL_CNI,
        "true",
        "On Kubernetes: whether the redirecting role puts its CNI plugin on the node and chains it to the one that connects pods.",
    ),
    setting(name::CNI_BIN_DIR, "/opt/cni/bin", "Folder of the node's CNI plugins."),
    setting(name::CNI_CONF_DIR, "/etc/cni/net.d", "Folder of the node's CNI configurations."),
    setting(
        name::CNI_EXEMPT,
        "kube-system",
        "Namespaces, beside this agent's own, whose pods start also while no agent is there to ask; may be repeated.",
    ),
    setting(
        name::DAEMON_SET,
        "lateen-node-agent",
        "The DaemonSet that this is a pod of, in POD_NAMESPACE: if it is gone when the redirecting role ends, everything of ours leaves the node.",
    ),
    shared::XDS_ADDRESS,
    shared::XDS_ROOT_CA,
    shared::ALT_XDS_HOSTNAME,
    setting(
        name::ON_DEMAND,
        "false",
        "Whether workloads and services are asked of the controller when a pod of this node needs them, instead of all being kept. For meshes of many more workloads than one node talks to.",
    ),
    setting(
        name::ON_DEMAND_IDLE,
        "5m",
        "With XDS_ON_DEMAND: how long a workload or service that nobody uses is kept.",
    ),
    shared::CA_ADDRESS,
    shared::CA_ROOT_CA,
    shared::ALT_CA_HOSTNAME,
    setting(
        name::TOKEN_FILE,
        "/var/run/secrets/tokens/istio-token",
        "File with the token that proves this agent to the controller.",
    ),
    shared::CLUSTER_ID,
    setting(name::NETWORK, "", "This node's network, where there are several."),
    setting(name::INSTANCE_IP, "", "This agent's own address."),
    setting(name::POD_NAME, "node-agent", "This agent's own pod."),
    setting(name::POD_NAMESPACE, "istio-system", "The namespace of this agent's own pod."),
    shared::SECRET_TTL,
    shared::KEY_EXCHANGE,
    setting(
        name::TUNNEL_CONGESTION_CONTROL,
        "",
        "TCP congestion control of tunnels (cubic, reno, bbr …). None: the host's. Under a host's bbr, cubic doubles the throughput between nodes that are near each other.",
    ),
    setting(
        name::WORKER_THREADS,
        "0",
        "Threads that carry connections; 0 for one a CPU of this process's share.",
    ),
    setting(
        name::THREAD_BUSY,
        "256Mi",
        "Bytes a second from which a thread lets threads that carry less than half of that have some of its connections; about half of what one can carry.",
    ),
    setting(
        name::MEMORY_LIMIT,
        "",
        "Memory that the proxy may have (512Mi): near it, the pod that holds most loses connections. None: the container's limit, or a quarter of the machine.",
    ),
    setting(
        name::OPEN_FILES,
        "0",
        "Files that the proxy may have open, nearly all of them connections of pods, who share them; 0 for as many as the system allows.",
    ),
    setting(
        name::DECISION_RECORDS,
        "1000",
        "Connections that are remembered for lateen why: the newest that passed, and as many that were refused or failed; 0 for none.",
    ),
    setting(
        name::METRIC_SERIES,
        "2000",
        "Sets of labels that the istio_tcp_* metrics have at most; what is more is counted as unknown, and lateen_limit_hits_total{limit=\"metric_series\"} goes up.",
    ),
    setting(
        name::CLUSTER_DOMAIN,
        "cluster.local",
        "What follows SERVICE.NAMESPACE.svc in the names that pods ask for; the controller's DOMAIN_SUFFIX.",
    ),
    setting(
        name::DNS_UPSTREAMS,
        "",
        "Name servers (IP or IP:PORT) for what is not the mesh's; may be repeated. None: those of /etc/resolv.conf.",
    ),
    shared::ADMIN_PORT,
    shared::STATS_PORT,
    shared::READINESS_PORT,
    setting(name::DRAIN, "5s", "How long connections may take to end after SIGTERM."),
    setting(
        name::HANDOVER_GRACE,
        "10m",
        "How long a proxy whose place a newer one has taken goes on with what it cannot hand over: connections of peers that are not Lateen's, and all of them where the newer one takes nothing over.",
    ),
    shared::LOG_LEVEL,
    shared::LOG_FORMAT,
];

/// Flags that set several settings, or one under a shorter name.
const SHORT: &[(&str, &[&str])] = &[
    ("--node", &[name::NODE_NAME]),
    ("--ctrl", &[name::XDS_ADDRESS, name::CA_ADDRESS]),
    ("--root-cert", &[name::XDS_ROOT_CA, name::CA_ROOT_CA]),
    ("--token", &[name::TOKEN_FILE]),
];

/// Reads flags and, for what they leave out, the environment.
///
/// # Errors
/// A flag that is in no table, or one without a value.
pub fn read(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Settings, SettingsError> {
    let mut expanded = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (flag, inline) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let Some((_, names)) = SHORT.iter().find(|(short, _)| *short == flag) else {
            expanded.push(arg);
            continue;
        };
        let value = inline.or_else(|| args.next()).ok_or_else(|| SettingsError::NoValue(flag.to_owned()))?;
        for setting in TABLE.iter().filter(|setting| names.contains(&setting.name)) {
            expanded.extend([setting.flag(), value.clone()]);
        }
    }
    Settings::read(TABLE, expanded, env)
}

/// What `--help` prints of the settings.
#[must_use]
pub fn help() -> String {
    let short: String = SHORT.iter().map(|(flag, names)| format!("  {flag}: {}\n", flags(names))).collect();
    format!("{}\nShort forms:\n{short}", daemon::settings::help(TABLE))
}

fn flags(names: &[&str]) -> String {
    let long = TABLE.iter().filter(|setting| names.contains(&setting.name)).map(Setting::flag);
    long.collect::<Vec<_>>().join(" and ")
}

/// Where the redirecting role listens: the sockets of ZDS, of our own proxy, and of the CNI plugin.
#[must_use]
pub fn sockets(settings: &Settings) -> [PathBuf; 3] {
    ["zds.sock", "redirect.sock", "cni.sock"]
        .map(|file| PathBuf::from(settings.text(name::RUN_DIR)).join(file))
}

/// Settings that may be repeated; of others the last one counts.
const LISTS: [&str; 3] = [name::SOURCE, name::DNS_UPSTREAMS, name::CNI_EXEMPT];

fn given(settings: &Settings, name: &'static str) -> String {
    if LISTS.contains(&name) { settings.list(name).join(",") } else { settings.text(name).to_owned() }
}

/// The settings as environment variables, for the role that the other starts. With a run folder of our own, that
/// is also where the proxy finds the redirecting role's sockets.
pub fn environment(settings: &Settings) -> Vec<(String, String)> {
    let mut all: Vec<(&'static str, String)> = TABLE
        .iter()
        .map(|setting| (setting.name, given(settings, setting.name)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let run_dir = settings.text(name::RUN_DIR);
    all.retain(|(known, _)| ![name::ZDS_SOCKET, name::REDIRECT_SOCKET].contains(known));
    all.push((name::ZDS_SOCKET, format!("{run_dir}/zds.sock")));
    all.push((name::REDIRECT_SOCKET, format!("{run_dir}/redirect.sock")));
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_flags_set_what_they_stand_for() {
        let args = ["--node", "node-1", "--ctrl=https://a:1", "--run-dir", "/r"].map(str::to_owned);
        let settings = read(args, |_| None).unwrap();
        assert_eq!(settings.text(name::NODE_NAME), "node-1");
        assert_eq!(settings.text(name::XDS_ADDRESS), "https://a:1");
        assert_eq!(settings.text(name::CA_ADDRESS), "https://a:1");
        let env = environment(&settings);
        assert!(env.contains(&(name::ZDS_SOCKET.to_owned(), "/r/zds.sock".to_owned())), "{env:?}");
        // Another authority than the controller; lists keep all that was given.
        let args = ["--ctrl=https://a:1", "--ca-address=https://b:1", "--source=/x", "--source=/y"];
        let env = environment(&read(args.map(str::to_owned), |_| None).unwrap());
        for (name, value) in
            [(name::XDS_ADDRESS, "https://a:1"), (name::CA_ADDRESS, "https://b:1"), (name::SOURCE, "/x,/y")]
        {
            assert!(env.contains(&(name.to_owned(), value.to_owned())), "{name}: {env:?}");
        }
    }

    /// The page of the documentation has this table, word by word; `make docs` writes it there.
    #[test]
    fn the_documentation_agrees() {
        let short = SHORT.iter().map(|(flag, names)| format!("`{flag}` is short for {}", flags(names)));
        let short = short.collect::<Vec<_>>().join("; ");
        let section = format!("{}\n{short}.\n", daemon::settings::markdown("node-agent", TABLE));
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        daemon::settings::check_page(&page, "node-agent", &section).unwrap();
    }

    #[test]
    fn every_name_is_there_once() {
        for setting in TABLE {
            assert_eq!(
                TABLE.iter().filter(|other| other.name == setting.name).count(),
                1,
                "{}",
                setting.name
            );
        }
    }
}
