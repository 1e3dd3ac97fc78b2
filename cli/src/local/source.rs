//! The files: watched by the manifest crate, told to the world as all that is in force, every time that changes.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use manifest::{Folder, Key, Level, Object, Watch};
use tokio::sync::mpsc;

use super::world::Message;

/// Watches files and folders until the result is dropped. Only what is an error is told: the rest is for
/// `lateen analyze`.
pub(crate) fn watch(paths: &[PathBuf], world: mpsc::Sender<Message>) -> io::Result<Watch> {
    let mut in_force: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
    let mut told: Vec<String> = Vec::new();
    Watch::start(Folder::new(paths.to_vec()), move |batch| {
        for key in &batch.removed {
            in_force.remove(key);
        }
        for object in batch.upserted {
            in_force.insert(object.key(), object);
        }
        let errors = batch.findings.iter().filter(|finding| finding.level == Level::Error);
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        let problems = errors.iter().filter(|error| !told.contains(error)).cloned().collect();
        told = errors;
        let objects = in_force.values().cloned().collect();
        world.blocking_send(Message::Objects { objects, problems }).is_ok()
    })
}
