//! Looking at some files only: where the kernel says which have changed, and what they say concerns nobody else, the
//! others need not be looked at. A mesh of a hundred thousand objects has as many files, and a pod changes in one.
//!
//! Whatever is out of the ordinary (folders, links, findings, two files that say something of one object) is left to a
//! look at everything.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Batch, FileKey, Folder, is_broken, walk};
use crate::object::{Key, Object};

/// What a file said, or says.
type Said = HashMap<Key, (FileKey, Arc<Object>)>;

impl Folder {
    /// Looks at the files in `touched` alone, and says what is different now; nothing if that cannot be told by them.
    pub(super) fn scan_some(&mut self, touched: &HashSet<PathBuf>) -> Option<Batch> {
        if self.linked || touched.is_empty() {
            return None;
        }
        let mut files = Vec::new();
        for path in touched {
            match self.place(path) {
                Place::Nowhere => {}
                Place::File(order) => files.push((order, path.clone())),
                Place::Unclear => return None,
            }
        }
        let before = self.said(&files)?;
        for key in &files {
            if fs::symlink_metadata(&key.1).is_ok() {
                self.look_at(key.0, &key.1, true);
            } else {
                self.files.remove(key);
            }
        }
        let now = self.said(&files)?;
        self.concerns_nobody_else(&before, &now).then(|| self.take(&before, &now))
    }

    /// Where a path stands among the manifests.
    fn place(&self, path: &Path) -> Place {
        let state = self.state.iter().map(|root| (0, root));
        let roots = state.chain(self.roots.iter().enumerate().map(|(index, root)| (index + 1, root)));
        let mut within = roots.filter(|(_, root)| path.starts_with(root));
        let Some((order, root)) = within.next() else { return Place::Nowhere };
        if within.next().is_some() {
            return Place::Unclear;
        }
        let below = path.strip_prefix(root).unwrap_or(path);
        if below.as_os_str().is_empty() || below.components().any(|part| walk::is_hidden(Path::new(&part))) {
            // A root itself; or what nobody reads.
            return if below.as_os_str().is_empty() { Place::Unclear } else { Place::Nowhere };
        }
        let key = (order, path.to_owned());
        let known = self.files.contains_key(&key);
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() && walk::is_manifest(path) => {
                if known || self.files.len() < walk::MAX_FILES { Place::File(order) } else { Place::Unclear }
            }
            Ok(metadata) if metadata.is_file() => Place::Nowhere,
            Ok(_) => Place::Unclear,
            Err(_) if known => Place::File(order),
            // A folder, perhaps, with what was in it.
            Err(_) if self.has_files_below(&key) => Place::Unclear,
            Err(_) => Place::Nowhere,
        }
    }

    fn has_files_below(&self, (order, path): &FileKey) -> bool {
        let mut after = self.files.range((*order, path.clone())..);
        after.next().is_some_and(|((other, file), _)| other == order && file.starts_with(path))
    }

    /// The objects of some files; nothing if there is anything to say about one, or two are one object's.
    fn said(&self, files: &[FileKey]) -> Option<Said> {
        let mut said = Said::new();
        for file in files {
            let Some(contents) = self.files.get(file) else { continue };
            if !contents.findings.is_empty() {
                return None;
            }
            for object in &contents.objects {
                let twice = said.insert(object.key(), (file.clone(), object.clone()));
                if twice.is_some() || is_broken(object) {
                    return None;
                }
            }
        }
        Some(said)
    }

    /// Whether what some files said before and say now is all there is to say of those objects.
    fn concerns_nobody_else(&self, before: &Said, now: &Said) -> bool {
        let in_force = |key: &Key, object: &Arc<Object>| {
            self.in_force.get(key).is_some_and(|found| Arc::ptr_eq(found, object))
        };
        let goes = |key: &Key, order: usize| {
            // Another file that says something of it has a finding, unless the mesh itself wrote this.
            let named = key.to_string();
            let finding = self.findings.iter().any(|finding| finding.object.as_deref() == Some(&*named));
            !finding && (order != 0 || !self.is_said(key))
        };
        before.iter().all(|(key, (file, object))| {
            let stays = now.get(key).map(|(now, _)| now == file);
            in_force(key, object) && stays.unwrap_or_else(|| goes(key, file.0))
        }) && now.keys().all(|key| before.contains_key(key) || !self.in_force.contains_key(key))
    }

    /// Whether any file says something of an object.
    fn is_said(&self, key: &Key) -> bool {
        let mut objects = self.files.values().flat_map(|contents| &contents.objects);
        objects
            .any(|object| object.metadata.name == key.name && object.kind == key.kind && object.key() == *key)
    }

    /// Puts in force what is said now.
    fn take(&mut self, before: &Said, now: &Said) -> Batch {
        let removed: Vec<Key> = before.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        let new = |(key, (_, object)): &(&Key, &(FileKey, Arc<Object>))| {
            super::differs(self.in_force.get(*key), object)
        };
        let upserted = now.iter().filter(new).map(|(_, (_, object))| object.clone()).collect();
        for key in &removed {
            self.in_force.remove(key);
        }
        for (key, (_, object)) in now {
            self.in_force.insert(key.clone(), object.clone());
        }
        Batch { upserted, removed, findings: self.findings.clone(), findings_changed: false }
    }
}

/// Where a path stands.
enum Place {
    /// It is no manifest's.
    Nowhere,
    /// It is a manifest's, of the source in this place.
    File(usize),
    /// Only a look at everything tells.
    Unclear,
}
