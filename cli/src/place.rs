//! Where the mesh is that a command means: on this machine, or in a cluster.

use std::path::PathBuf;

use crate::cluster::ClusterArgs;
use crate::state::{self, MeshDir, StateError};

/// The mesh a command means.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Started by `lateen up`.
    Machine(MeshDir),
    /// Installed in the cluster that these say.
    Cluster(ClusterArgs),
}

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Both are asked for.
    #[error(
        "--mesh names a mesh of this machine, --kubeconfig and --context one of a cluster: give one of them"
    )]
    Both,
    /// Neither is there.
    #[error(
        "no mesh is running on this machine, and no kubeconfig names a cluster; start one with: lateen up -f PATH"
    )]
    Neither,
    /// There are too many, or none of this name.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What is asked for; where nothing is, what runs on this machine, and where nothing does, the cluster of the kubeconfig.
pub(crate) fn choose(mesh: Option<&str>, cluster: &ClusterArgs) -> Result<Place, PlaceError> {
    match (mesh, cluster.given()) {
        (Some(_), true) => return Err(PlaceError::Both),
        (None, true) => return Ok(Place::Cluster(cluster.clone())),
        (Some(_), false) | (None, false) => {}
    }
    match state::select(mesh) {
        Ok(mesh) => Ok(Place::Machine(mesh)),
        Err(StateError::NoneRunning) if has_kubeconfig() => Ok(Place::Cluster(cluster.clone())),
        Err(StateError::NoneRunning) => Err(PlaceError::Neither),
        Err(error) => Err(error.into()),
    }
}

/// Whether kubectl would find a cluster.
fn has_kubeconfig() -> bool {
    if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
        return true;
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.is_some_and(|home| home.join(".kube/config").exists())
}
