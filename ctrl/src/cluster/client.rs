//! How the API server is reached.

use std::path::{Path, PathBuf};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;

/// What the API server is told who asks.
const USER_AGENT: &str = concat!("lateen-ctrl/", env!("CARGO_PKG_VERSION"));

/// Why the API server cannot be asked at all.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("{}: {source}; name another kubeconfig with --kubeconfig", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a pod's own credentials.
    #[error("not in a pod of a cluster ({0}); name a kubeconfig with --kubeconfig")]
    NotInCluster(#[source] Box<InClusterError>),
    /// The credentials cannot be used.
    #[error("the credentials for the API server cannot be used: {0}")]
    Credentials(#[source] Box<kube::Error>),
}

/// A client of the API server that a kubeconfig names; without one, of the cluster whose pod this is. Nothing is asked
/// yet.
///
/// # Errors
/// What is missing.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let unusable =
                |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        None => Config::incluster().map_err(|error| ConnectError::NotInCluster(Box::new(error)))?,
    };
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    Client::try_from(config).map_err(|error| ConnectError::Credentials(Box::new(error)))
}
