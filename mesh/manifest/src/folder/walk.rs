//! Which files a path stands for. Follows links, but goes into no folder twice.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    finding::{Code, Finding, Level},
    position::{Mark, Position},
};

/// How many files one path may stand for.
pub(super) const MAX_FILES: usize = 250_000;
/// How deep folders may nest.
pub(super) const MAX_DEPTH: usize = 64;

/// What a path stands for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files, by name.
    pub(super) files: Vec<PathBuf>,
    /// What could not be looked into.
    pub(super) unreadable: Vec<PathBuf>,
    /// Why.
    pub(super) findings: Vec<Finding>,
}

/// The manifests of `root`. `may_be_absent`: nobody asked for it by name, so its absence is no finding.
pub(super) fn files(root: &Path, may_be_absent: bool) -> Found {
    let mut found = Found::default();
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => {
            let mut entered = HashSet::new();
            folder(root, 0, &mut entered, &mut found);
            found.files.sort();
        }
        Ok(_) => found.files.push(root.to_owned()),
        Err(error) if may_be_absent && error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => found.cannot(root, format!("cannot be read: {error}")),
    }
    found
}

impl Found {
    fn cannot(&mut self, path: &Path, reason: String) {
        let position = Position::new(&Arc::from(path), Mark::default());
        self.findings.push(Finding::new(Level::Error, Code::Unreadable, position, reason));
        self.unreadable.push(path.to_owned());
    }
}

fn folder(path: &Path, depth: usize, entered: &mut HashSet<PathBuf>, found: &mut Found) {
    let entries = fs::canonicalize(path).and_then(|real| Ok((real, fs::read_dir(path)?)));
    let (real, entries) = match entries {
        Ok(both) => both,
        Err(error) => return found.cannot(path, format!("cannot be read: {error}")),
    };
    if !entered.insert(real) {
        return;
    }
    if depth > MAX_DEPTH {
        return found.cannot(path, format!("folders nest deeper than {MAX_DEPTH}: not read"));
    }
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if is_hidden(&path) {
            continue;
        }
        // A link that leads nowhere, or a file that has just gone, is not there.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            folder(&path, depth + 1, entered, found);
        } else if metadata.is_file() && is_manifest(&path) {
            if found.files.len() >= MAX_FILES {
                return found.cannot(&path, format!("more than {MAX_FILES} files: the rest is not read"));
            }
            found.files.push(path);
        }
    }
}

/// Editors' locks and temporary files, and the folders behind Kubernetes' mounted ConfigMaps.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

pub(super) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}
