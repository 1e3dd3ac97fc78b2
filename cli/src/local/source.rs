//! The files: read at the start, and again whenever one of them changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::mpsc;

/// How long files must be quiet before they are read: editors and `cp` write in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// Files changing without end are read nevertheless.
const IMPATIENT: Duration = Duration::from_secs(1);

/// The objects of all files. A file that does not parse keeps what it last said.
#[derive(Debug, Default)]
pub(crate) struct Source {
    roots: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Vec<Value>>,
}

impl Source {
    /// The files and folders of `-f`.
    pub(crate) fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, files: BTreeMap::new() }
    }

    /// Reads everything again. Problems name file, line and column.
    pub(crate) fn read(&mut self) -> (Vec<Value>, Vec<String>) {
        let mut problems = Vec::new();
        let mut files = BTreeMap::new();
        for path in self.roots.iter().flat_map(|root| manifest_files(root)) {
            match parse(&path) {
                Ok(objects) => {
                    files.insert(path, objects);
                }
                Err(problem) => {
                    problems.push(problem);
                    if let Some(last) = self.files.remove(&path) {
                        files.insert(path, last);
                    }
                }
            }
        }
        self.files = files;
        (self.files.values().flatten().cloned().collect(), problems)
    }
}

/// The manifest files below `root`, or `root` itself.
fn manifest_files(root: &Path) -> Vec<PathBuf> {
    if root.is_file() {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_manifest = |path: &Path| {
        let extension = path.extension().and_then(|e| e.to_str());
        matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
    };
    let below = |path: PathBuf| match path.is_dir() {
        true => manifest_files(&path),
        false if is_manifest(&path) => vec![path],
        false => Vec::new(),
    };
    paths.into_iter().flat_map(below).collect()
}

fn parse(path: &Path) -> Result<Vec<Value>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(documents.into_iter().flat_map(unroll).collect())
}

/// The items of a `List`, or the object itself.
fn unroll(document: Value) -> Vec<Value> {
    let is_list = document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match document {
        Value::Object(mut object) if is_list => match object.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

/// Watches the files; a message on the channel says that they changed and have been quiet since. Dropping the
/// watcher ends it.
pub(crate) fn watch(roots: &[PathBuf]) -> notify::Result<(notify::RecommendedWatcher, mpsc::Receiver<()>)> {
    let (changed, mut changes) = mpsc::channel(1);
    let (settled, result) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // Full means that a change is already known and not yet looked at.
            let _ = changed.try_send(());
        }
    })?;
    for root in roots {
        // A file is replaced rather than written by most editors: its folder tells.
        let folder = if root.is_file() { root.parent().unwrap_or(root) } else { root };
        let mode = if root.is_file() { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive };
        watcher.watch(folder, mode)?;
    }
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            let patience = tokio::time::Instant::now() + IMPATIENT;
            while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {
                if tokio::time::Instant::now() > patience {
                    break;
                }
            }
            if settled.send(()).await.is_err() {
                break;
            }
        }
    });
    Ok((watcher, result))
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn a_broken_file_keeps_what_it_said_last() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "kind: Pod\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: b}\n")
            .expect("write");
        std::fs::write(folder.path().join("notes.txt"), "kind: Pod\n").expect("write");
        let mut source = Source::new(vec![folder.path().to_owned()]);
        let (objects, problems) = source.read();
        assert_eq!((objects.len(), problems.len()), (2, 0), "{problems:?}");
        std::fs::write(&file, "kind: [\n").expect("write");
        let (objects, problems) = source.read();
        assert_eq!(objects.len(), 2);
        assert!(problems[0].contains("a.yaml"), "{problems:?}");
        std::fs::remove_file(&file).expect("remove");
        assert_eq!(source.read().0.len(), 0);
    }

    #[test]
    fn lists_are_unrolled() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(
            folder.path().join("l.json"),
            r#"{"kind":"List","items":[{"kind":"Pod"},{"kind":"Pod"}]}"#,
        )
        .expect("write");
        assert_eq!(Source::new(vec![folder.path().to_owned()]).read().0.len(), 2);
    }
}
