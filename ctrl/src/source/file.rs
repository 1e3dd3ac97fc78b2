//! Manifests from files and folders, and the objects that a mesh without Kubernetes keeps of itself.

use std::io;
use std::path::PathBuf;

use manifest::{Folder, Watch};
use tokio::sync::mpsc;

use super::Batch;

/// Batches that wait. The watching thread blocks beyond, and finds all that happened meanwhile in one later look.
const WAITING: usize = 4;

/// Files being watched, until dropped.
#[derive(Debug)]
pub struct Files {
    batches: mpsc::Receiver<Batch>,
    _watch: Watch,
}

impl Files {
    /// Watches `paths` and, where there is one, the folder of the mesh's own objects.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn watch(paths: Vec<PathBuf>, objects: Option<PathBuf>) -> io::Result<Self> {
        let folder = Folder::new(paths);
        let folder = match objects {
            Some(objects) => folder.with_state(objects),
            None => folder,
        };
        let (sender, batches) = mpsc::channel(WAITING);
        let watch = Watch::start(folder, move |batch| sender.blocking_send(batch).is_ok())?;
        Ok(Self { batches, _watch: watch })
    }

    /// The next batch: what is there now the first time, also if that is nothing. `None`: the watch has ended.
    pub async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }
}
