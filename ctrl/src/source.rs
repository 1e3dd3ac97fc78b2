//! Where configuration comes from. Every source emits batches of raw objects: everything that is there first, then
//! what changed, each batch to be applied as one. Nothing behind the index knows which source an object came from.

pub mod file;
pub mod kube;
pub mod last_good;
pub mod routings;
pub mod waypoints;

use manifest::Batch;

/// One of them.
#[derive(Debug)]
pub enum Source {
    /// Files and folders.
    Files(file::Files),
    /// An API server.
    Cluster(Box<kube::Cluster>),
}

impl Source {
    /// The next batch: what is there now the first time, also if that is nothing. `None`: the watch has ended, or that of one kind.
    pub async fn next(&mut self) -> Option<Batch> {
        match self {
            Self::Files(files) => files.next().await,
            Self::Cluster(cluster) => cluster.next().await,
        }
    }
}
