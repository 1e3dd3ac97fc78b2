//! The programs of a mesh, to be taken away from it and given back.

use std::path::PathBuf;

use crate::Mesh;

/// The programs of a mesh in a folder of their own, so that one can be taken away for as long as a test likes.
#[derive(Debug)]
pub struct Programs(tempfile::TempDir);

impl Programs {
    /// Links or copies of those that were built with the tests.
    ///
    /// # Panics
    /// They are not there.
    pub fn linked() -> Self {
        let from = crate::lateen();
        // Beside them, where links are possible; else anywhere.
        let folder = tempfile::tempdir_in(from.with_file_name("")).or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a temporary folder");
        for name in ["lateen", "ctrl", "node-agent", "waypoint"] {
            let from = from.with_file_name(name);
            let to = folder.path().join(name);
            // A link where that is allowed: these are large.
            std::fs::hard_link(&from, &to)
                .or_else(|_| std::fs::copy(&from, &to).map(drop))
                .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        Self(folder)
    }

    /// Its `lateen`.
    pub fn lateen(&self) -> PathBuf {
        self.0.path().join("lateen")
    }

    /// Kills the controller and sees to it that none is started.
    ///
    /// # Panics
    /// It does not run.
    pub fn take_ctrl(&self, mesh: &Mesh) {
        std::fs::rename(self.0.path().join("ctrl"), self.0.path().join("taken")).expect("ctrl is there");
        mesh.ctrl().kill();
    }

    /// Puts it back; the mesh starts it again.
    ///
    /// # Panics
    /// It was not taken.
    pub fn give_ctrl_back(&self) {
        std::fs::rename(self.0.path().join("taken"), self.0.path().join("ctrl")).expect("ctrl was taken");
    }
}
