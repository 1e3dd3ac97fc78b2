//! The files: watched by the manifest crate, told to the world as all that is in force, every time that changes.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use manifest::{Finding, Folder, Key, Level, Object, Watch};
use tokio::sync::mpsc;

use super::world::Message;

/// Something wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File, line, column and what is wrong.
    pub(crate) text: String,
    /// A whole file could not be read: nothing of it is known.
    pub(crate) unreadable: bool,
}

/// Watches files and folders until the result is dropped. Only what is an error is told: the rest is for
/// `lateen analyze`.
pub(crate) fn watch(paths: &[PathBuf], world: mpsc::Sender<Message>) -> io::Result<Watch> {
    let mut in_force: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
    let mut told: Vec<Problem> = Vec::new();
    Watch::start(Folder::new(paths.to_vec()), move |batch| {
        for key in &batch.removed {
            in_force.remove(key);
        }
        for object in batch.upserted {
            in_force.insert(object.key(), object);
        }
        let errors = batch.findings.iter().filter(|finding| finding.level == Level::Error);
        let problem =
            |finding: &Finding| Problem { text: finding.to_string(), unreadable: finding.is_unreadable() };
        let errors: Vec<Problem> = errors.map(problem).collect();
        let problems = errors.iter().filter(|error| !told.contains(error)).cloned().collect();
        told = errors;
        let objects = in_force.values().cloned().collect();
        world.blocking_send(Message::Objects { objects, problems }).is_ok()
    })
}
