//! A mesh of this machine as a stage: what is in force are its files.

use std::path::Path;
use std::time::Duration;

use super::{Script, Stage};
use crate::{Mesh, Outcome, PATIENCE};

impl Script {
    /// Starts a mesh of this machine with the application.
    ///
    /// # Panics
    /// It does not start.
    pub fn mesh(&self) -> Mesh {
        let manifests = self.manifests();
        let files: Vec<(String, &str)> =
            manifests.iter().map(|(file, text)| (name(file), text.as_str())).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
        Mesh::start(&files)
    }
}

/// Under which a file stands in the mesh's folder: its own, for those of the application and of steps are not alike.
fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Stage for Mesh {
    const PATIENCE: Duration = PATIENCE;

    fn put(&self, file: &Path, manifest: &str) {
        self.apply(&name(file), manifest);
    }

    fn take(&self, file: &Path, _: &str) {
        self.remove(&name(file));
    }

    fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Outcome {
        Self::exec(self, namespace, pod, command)
    }

    fn lateen(&self, arguments: &[&str]) -> Outcome {
        Self::lateen(self, arguments)
    }

    fn agent_logs(&self) -> String {
        Self::agent_logs(self)
    }
}
