//! Manifests from files and folders: all of them at once, and again what changed. Knows which object is in
//! force when a file breaks, disappears, or says something that another file says already.

mod some;
mod sweep;
mod walk;
mod watch;

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    finding::{Code, Finding, Level},
    object::{Key, Object, Typed},
    parse::parse,
    position::{Mark, Position},
};
use walk::Found;
pub use watch::Watch;

/// The largest manifest that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Files and folders of manifests, what they said when last looked at, and what of it is in force.
///
/// The rules: a file that cannot be read or parsed keeps its last objects in force; one that is gone takes
/// its objects with it; an object that is broken ([`Typed::Broken`]) does not replace its last good version;
/// of two objects with one key the first stays in force, in the order of the paths given and of names below
/// them. A file or folder that was asked for by name and is gone keeps its objects: a mount that went away
/// must not open a mesh.
#[derive(Debug, Default)]
pub struct Folder {
    roots: Vec<PathBuf>,
    state: Option<PathBuf>,
    files: BTreeMap<FileKey, Contents>,
    in_force: BTreeMap<Key, Arc<Object>>,
    findings: Vec<Finding>,
    /// There are links among the files: one may stand in several places.
    linked: bool,
}

/// A file's place in the order: the state folder first, then the paths as given; within each by name.
type FileKey = (usize, PathBuf);

/// What a file said.
#[derive(Debug)]
struct Contents {
    stamp: Option<Stamp>,
    objects: Vec<Arc<Object>>,
    findings: Vec<Finding>,
}

/// By what a change is noticed without reading.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What changed since the last time, as one: to be applied together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Objects that are new or differ, in no particular order.
    pub upserted: Vec<Arc<Object>>,
    /// Objects that are no longer there.
    pub removed: Vec<Key>,
    /// All findings as they stand now, not only the new ones, by file and line.
    pub findings: Vec<Finding>,
    /// Whether the findings differ from those of the last time.
    pub findings_changed: bool,
}

impl Batch {
    /// True where there is nothing to apply and nothing new to say.
    pub fn is_empty(&self) -> bool {
        self.upserted.is_empty() && self.removed.is_empty() && !self.findings_changed
    }
}

impl Folder {
    /// The manifests of `paths`: files, read whatever they are called, and folders, of which `*.yaml`, `*.yml`
    /// and `*.json` are read, recursively. Nothing is read before the first [`Folder::scan`].
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { roots: paths.into_iter().collect(), ..Self::default() }
    }

    /// The same with the objects that the mesh itself writes (see [`State`](crate::State)). They are the live
    /// form of what manifests ask for, so they stand in for objects of the same key without being duplicates.
    pub fn with_state(mut self, folder: PathBuf) -> Self {
        self.state = Some(folder);
        self
    }

    /// What is in force.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.in_force.values()
    }

    /// What is wrong, by file and line.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Looks at all files, reads those that changed, and says what is different now. The first time, that is
    /// everything.
    pub fn scan(&mut self) -> Batch {
        self.scan_touched(&HashSet::new())
    }

    /// Like [`Folder::scan`]; files in `touched` are read even if they look unchanged.
    fn scan_touched(&mut self, touched: &HashSet<PathBuf>) -> Batch {
        let mut findings = Vec::new();
        let mut seen: HashSet<FileKey> = HashSet::new();
        let mut same_file: HashSet<PathBuf> = HashSet::new();
        self.linked = false;
        let roots = self.state.iter().map(|root| (0, root.clone())).collect::<Vec<_>>();
        let manifests = self.roots.iter().enumerate().map(|(index, root)| (index + 1, root.clone()));
        for (order, root) in roots.into_iter().chain(manifests.collect::<Vec<_>>()) {
            let Found { files, unreadable, findings: more } = walk::files(&root, order == 0);
            findings.extend(more);
            for path in files {
                let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
                self.linked |= real != path;
                if same_file.insert(real) {
                    self.look_at(order, &path, touched.contains(&path));
                    seen.insert((order, path));
                }
            }
            // What cannot be looked into keeps what it last said.
            let kept =
                |key: &&FileKey| key.0 == order && unreadable.iter().any(|gone| key.1.starts_with(gone));
            seen.extend(self.files.keys().filter(kept).cloned());
        }
        self.files.retain(|key, _| seen.contains(key));
        self.settle(findings)
    }

    /// Reads one file if it changed.
    fn look_at(&mut self, order: usize, path: &Path, touched: bool) {
        let key = (order, path.to_owned());
        let file: Arc<Path> = Arc::from(path);
        let known = self.files.get(&key);
        match read_file(path, known.and_then(|known| known.stamp).filter(|_| !touched)) {
            Ok(None) => {}
            Ok(Some((stamp, text))) => {
                let parsed = parse(&text, &file);
                let keeps = !parsed.is_readable() && known.is_some_and(|known| !known.objects.is_empty());
                let objects = match known {
                    Some(known) if keeps => known.objects.clone(),
                    _ => parsed.objects.into_iter().map(Arc::new).collect(),
                };
                let findings = parsed.findings;
                self.files.insert(key, Contents { stamp: Some(stamp), objects, findings });
            }
            Err(reason) => {
                let position = Position::new(&file, Mark::default());
                let objects = known.map(|known| known.objects.clone()).unwrap_or_default();
                let findings = vec![Finding::new(Level::Error, Code::Unreadable, position, reason)];
                self.files.insert(key, Contents { stamp: None, objects, findings });
            }
        }
    }

    /// Works out what is in force now, and how that differs from before.
    fn settle(&mut self, mut findings: Vec<Finding>) -> Batch {
        let before = std::mem::take(&mut self.in_force);
        let mut now: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        let mut from_state: HashSet<Key> = HashSet::new();
        for ((order, _), contents) in &self.files {
            findings.extend(contents.findings.iter().cloned());
            for object in &contents.objects {
                let key = object.key();
                match now.get(&key) {
                    None => {
                        if *order == 0 {
                            from_state.insert(key.clone());
                        }
                        now.insert(key, object.clone());
                    }
                    Some(_) if from_state.contains(&key) => {}
                    Some(first) => findings.push(duplicate(&key, first, object)),
                }
            }
        }
        for (key, object) in &mut now {
            if let Some(last) = last_good(object, before.get(key)) {
                findings.push(kept(key, object, &last));
                *object = last;
            }
        }
        findings.sort_by(|a, b| a.position.cmp(&b.position));
        let batch = Batch {
            upserted: now
                .iter()
                .filter(|(key, object)| differs(before.get(*key), object))
                .map(|(_, o)| o.clone())
                .collect(),
            removed: before.keys().filter(|key| !now.contains_key(*key)).cloned().collect(),
            findings_changed: findings != self.findings,
            findings: findings.clone(),
        };
        self.in_force = now;
        self.findings = findings;
        batch
    }
}

/// Whether `now` says something else than `before`, or says it elsewhere.
fn differs(before: Option<&Arc<Object>>, now: &Arc<Object>) -> bool {
    before.is_none_or(|before| {
        !Arc::ptr_eq(before, now)
            && (before.raw != now.raw
                || before.position != now.position
                || is_broken(before) != is_broken(now))
    })
}

fn is_broken(object: &Object) -> bool {
    matches!(object.spec, Typed::Broken)
}

/// The version that stays in force because `object` is broken.
fn last_good(object: &Arc<Object>, before: Option<&Arc<Object>>) -> Option<Arc<Object>> {
    let before = before.filter(|before| is_broken(object) && !is_broken(before))?;
    Some(before.clone())
}

fn kept(key: &Key, broken: &Object, last: &Object) -> Finding {
    let message = match last.position.file == broken.position.file {
        true => "the version before this one stays in force".to_owned(),
        false => format!("the version of {} stays in force", last.position),
    };
    Finding::new(Level::Info, Code::Schema, broken.position.clone(), message).about(key.to_string())
}

fn duplicate(key: &Key, first: &Object, second: &Object) -> Finding {
    let at = second.locate(&[crate::Step::Key("metadata"), crate::Step::Key("name")]);
    let message = format!("a second {key}: the one at {} stays in force", first.position);
    Finding::new(Level::Error, Code::DuplicateObject, at, message)
        .about(key.to_string())
        .in_field("metadata.name")
        .with_fix("remove one of the two, or give it another name")
}

/// The text of a file, unless it still has this `stamp`. Fails with what to say about it.
fn read_file(path: &Path, stamp: Option<Stamp>) -> Result<Option<(Stamp, String)>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    let now = Stamp::of(&metadata);
    if stamp == Some(now) {
        return Ok(None);
    }
    let too_large = || format!("larger than {} MiB: not read", MAX_FILE >> 20);
    if metadata.len() > MAX_FILE {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that a file that grows meanwhile is noticed.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((now, text))),
        Err(error) => Err(format!("not UTF-8 text: byte {} is wrong", error.utf8_error().valid_up_to())),
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
