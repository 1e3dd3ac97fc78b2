//! Meshes on Kubernetes: how their API server is reached, and what a person is told where it is not.

pub(crate) mod objects;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// What the API server is told who asks.
const USER_AGENT: &str = concat!("lateen/", env!("CARGO_PKG_VERSION"));
/// How long the API server may take to take a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first minor version of Kubernetes 1 whose tokens say the node of the pod that they are bound to.
const LEAST_MINOR: u32 = 32;

/// Which cluster is meant.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct ClusterArgs {
    /// On Kubernetes: file with address and credentials of the cluster [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// On Kubernetes: context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// On Kubernetes: namespace in which the mesh is installed, whose controllers are asked and believed
    #[arg(long, visible_alias = "istioNamespace", global = true, value_name = "NS", default_value = crate::install::NAMESPACE)]
    pub(crate) istio_namespace: String,
}

impl ClusterArgs {
    /// Whether a cluster is asked for, whatever runs on this machine.
    pub(crate) fn given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// Why a cluster cannot be worked with. The exit code is 77 for what the caller's machine or cluster lacks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// There is nothing that says where a cluster is.
    #[error("there is no cluster to ask ({0}); name a kubeconfig with --kubeconfig, or set KUBECONFIG")]
    NoKubeconfig(#[source] Box<KubeconfigError>),
    /// Address or credentials cannot be used.
    #[error("{from} cannot be used ({source}); does `kubectl get nodes` work with it?")]
    Unusable { from: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// It does not answer.
    #[error("the cluster at {address} does not answer ({source}); is it up, and can this machine reach it?")]
    Unreachable { address: String, source: Box<kube::Error> },
    /// It is older than what is needed.
    #[error(
        "the cluster runs Kubernetes {0}; Lateen needs 1.{LEAST_MINOR} or later, whose tokens say which node they are for"
    )]
    TooOld(String),
    /// Who the kubeconfig says may not do it.
    #[error(
        "the cluster does not let {who} {what}; whoever installs needs these rights, cluster-admin has them"
    )]
    Forbidden { who: String, what: String },
    /// It does not let the caller see or change something.
    #[error("{doing}: {reason}; whoever installs or asks needs this right")]
    Denied { doing: String, reason: String },
    /// It answers something else than was expected.
    #[error("{doing}: {reason}")]
    Refused { doing: String, reason: String },
}

/// A cluster that answers.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// `https://…`, with the context, if there is one: what a person recognises it by.
    pub(crate) name: String,
    /// Its version, `v1.35.4`.
    pub(crate) version: String,
}

/// Reaches the cluster that is meant.
///
/// # Errors
/// There is none, it does not answer, or it is too old.
pub(crate) async fn connect(args: &ClusterArgs) -> Result<Cluster, ClusterError> {
    let read = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = read.map_err(|error| ClusterError::NoKubeconfig(Box::new(error)))?;
    let context = args.context.clone().or_else(|| kubeconfig.current_context.clone());
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let from = origin(args.kubeconfig.as_deref(), std::env::var("KUBECONFIG").ok().as_deref());
    let unusable = |source| ClusterError::Unusable { from: from.clone(), source };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| unusable(Box::new(error)))?;
    config.connect_timeout = Some(PATIENCE);
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    let address = config.cluster_url.to_string();
    let address = address.trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|error| unusable(Box::new(error)))?;
    let version = client.apiserver_version().await.map_err(|source| match refusal(&source) {
        Some(_) => failed(format!("the cluster at {address}"), &source),
        None => ClusterError::Unreachable { address: address.clone(), source: Box::new(source) },
    })?;
    let name = match context {
        Some(context) if !context.is_empty() => format!("{address} (context {context})"),
        _ => address,
    };
    let cluster = Cluster { client, name, version: version.git_version.clone() };
    match minor(&version.major, &version.minor) {
        Some(minor) if minor < LEAST_MINOR => Err(ClusterError::TooOld(cluster.version)),
        _ => Ok(cluster),
    }
}

/// Where a kubeconfig is read from: a file that is given, else what the environment names, else where kubectl has it.
fn origin(given: Option<&Path>, environment: Option<&str>) -> String {
    match (given, environment.filter(|text| !text.is_empty())) {
        (Some(path), _) => format!("the kubeconfig {}", path.display()),
        (None, Some(paths)) => format!("the kubeconfig of KUBECONFIG={paths}"),
        (None, None) => String::from("the kubeconfig ~/.kube/config"),
    }
}

/// The minor version of a Kubernetes 1; none where it cannot be read, which is no reason to refuse it.
fn minor(major: &str, minor: &str) -> Option<u32> {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|_| major == "1")
}

/// What an API server that refuses says, without the words around it.
pub(crate) fn refusal(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(status) => Some(status.message.clone()),
        _ => None,
    }
}

/// The code of a refusal: 403, 404, 409.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What went wrong while `doing` something.
pub(crate) fn failed(doing: impl Into<String>, error: &kube::Error) -> ClusterError {
    let reason = refusal(error).unwrap_or_else(|| error.to_string());
    match code(error) {
        Some(401 | 403) => ClusterError::Denied { doing: doing.into(), reason },
        _ => ClusterError::Refused { doing: doing.into(), reason },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ClusterArgs, connect, minor, origin};

    #[test]
    fn versions_of_providers_are_read() {
        for (given, read) in [("35", Some(35)), ("32+", Some(32)), ("31-gke.1", Some(31)), ("", None)] {
            assert_eq!(minor("1", given), read, "{given}");
        }
        assert_eq!(minor("2", "0"), None);
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_no_use_is_named() {
        for (given, environment, expected) in [
            (Some("a"), Some("b"), "the kubeconfig a"),
            (None, Some("b:c"), "the kubeconfig of KUBECONFIG=b:c"),
            (None, Some(""), "the kubeconfig ~/.kube/config"),
            (None, None, "the kubeconfig ~/.kube/config"),
        ] {
            assert_eq!(origin(given.map(Path::new), environment), expected);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "apiVersion: v1\nkind: Config\ncurrent-context: none\n").unwrap();
        let args = ClusterArgs {
            kubeconfig: Some(file.path().to_owned()),
            context: None,
            istio_namespace: crate::install::NAMESPACE.to_owned(),
        };
        let refused = connect(&args).await.err().expect("there is no such context").to_string();
        assert!(refused.contains(&file.path().display().to_string()), "{refused}");
        assert!(refused.contains("kubectl"), "{refused}");
    }
}
