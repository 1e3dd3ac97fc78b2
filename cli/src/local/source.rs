//! The files: watched by the manifest crate, told to the world as all that is in force, every time that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use manifest::{Code, Finding, Folder, Key, Level, Object, Watch};
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

/// Watches files and folders until the result is dropped. What is an error is told, and kinds without effect, once each:
/// the rest is for `lateen analyze`.
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
        let found = worth_telling(&batch.findings);
        let problems = found.iter().filter(|problem| !told.contains(problem)).cloned().collect();
        told = found;
        let objects = in_force.values().cloned().collect();
        world.blocking_send(Message::Objects { objects, problems }).is_ok()
    })
}

/// All errors, and the first object of each kind that has no effect on the mesh.
fn worth_telling(findings: &[Finding]) -> Vec<Problem> {
    let mut ignored = BTreeSet::new();
    let mut worth = |finding: &&Finding| match finding.code {
        Code::IgnoredKind => ignored.insert(finding.message.clone()),
        _ => finding.level == Level::Error,
    };
    let problem =
        |finding: &Finding| Problem { text: finding.to_string(), unreadable: finding.is_unreadable() };
    findings.iter().filter(&mut worth).map(problem).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manifest::Position;

    use super::*;

    #[test]
    fn errors_are_told_and_each_ignored_kind_once() {
        let position = Position { file: Path::new("app.yaml").into(), line: 1, column: 1 };
        let finding = |level, code, message: &str| Finding::new(level, code, position.clone(), message);
        let findings = [
            finding(Level::Info, Code::IgnoredKind, "Servicee of v1 has no effect"),
            finding(Level::Error, Code::Schema, "one"),
            finding(Level::Info, Code::IgnoredKind, "Servicee of v1 has no effect"),
            finding(Level::Info, Code::IgnoredKind, "ConfigMap of v1 has no effect"),
            finding(Level::Warning, Code::SchemaWarning, "questionable"),
            finding(Level::Error, Code::Schema, "another"),
        ];
        let told: Vec<String> = worth_telling(&findings).into_iter().map(|problem| problem.text).collect();
        let expected = ["Servicee of v1 has no effect", "one", "ConfigMap of v1 has no effect", "another"];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told:?}");
        }
    }
}
