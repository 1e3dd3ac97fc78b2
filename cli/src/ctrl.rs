//! Questions to ctrl: over its admin socket, which only the owner of a mesh may open; in a cluster over a port forwarded to
//! each of its pods, which takes the right to forward ports there.

mod forward;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::ClusterError;
use crate::local::components::ctrl_admin;
use crate::place::Place;
use crate::state::MeshDir;

/// How long ctrl may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens, or it takes too long.
    #[error("ctrl does not answer on its admin socket ({0}); see: lateen logs ctrl")]
    Unreachable(std::io::Error),
    /// The cluster does not let it be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is none where the mesh is said to be installed.
    #[error(
        "no ctrl runs in the namespace {namespace} of the cluster {cluster}; name another with --istio-namespace, or \
         install the mesh with: lateen install"
    )]
    NotInstalled { cluster: String, namespace: String },
    /// A replica's port cannot be forwarded, or it does not answer there.
    #[error("ctrl {pod} does not answer over a forwarded port ({reason})")]
    Forward { pod: String, reason: String },
    /// What it says instead.
    #[error("{0}")]
    Refused(String),
    /// Another version, perhaps.
    #[error("ctrl answers what is not understood here ({0}); use the lateen that started the mesh")]
    Malformed(String),
}

/// What one controller says.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// `ctrl`, or the name of its pod.
    pub(crate) ctrl: String,
    pub(crate) page: Value,
}

impl Answer {
    /// The page in its form.
    ///
    /// # Errors
    /// It has another.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, AskError> {
        read(&self.page)
    }
}

/// A page in its form.
///
/// # Errors
/// It has another.
pub(crate) fn read<T: DeserializeOwned>(page: &Value) -> Result<T, AskError> {
    T::deserialize(page).map_err(|error| AskError::Malformed(error.to_string()))
}

/// Asks ctrl for a page: in a cluster every replica, for each knows its own proxies.
///
/// # Errors
/// One does not answer, refuses, or says what is not JSON.
pub(crate) fn ask_all(place: &Place, method: &str, path: &str) -> Result<Vec<Answer>, AskError> {
    match place {
        Place::Machine(mesh) => {
            Ok(vec![Answer { ctrl: "ctrl".to_owned(), page: ask_socket(mesh, method, path)? }])
        }
        Place::Cluster(cluster) => forward::ask(cluster, method, path),
    }
}

/// Asks ctrl for a page; in a cluster any of them, for what all of them know.
///
/// # Errors
/// As with [`ask_all`].
pub(crate) fn ask(place: &Place, method: &str, path: &str) -> Result<Value, AskError> {
    match place {
        Place::Machine(mesh) => ask_socket(mesh, method, path),
        Place::Cluster(cluster) => forward::ask_one(cluster, method, path).map(|answer| answer.page),
    }
}

fn ask_socket(mesh: &MeshDir, method: &str, path: &str) -> Result<Value, AskError> {
    let exchange = || {
        let mut stream = UnixStream::connect(ctrl_admin(mesh))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request(method, path).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    page(&exchange().map_err(AskError::Unreachable)?)
}

/// An HTTP/1.0 request: the answer ends with the connection.
fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

/// The page in an answer of HTTP.
fn page(answer: &str) -> Result<Value, AskError> {
    let malformed = || AskError::Malformed(answer.chars().take(200).collect());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(AskError::Refused(body.trim().to_owned()));
    }
    serde_json::from_str(body).map_err(|_| malformed())
}
