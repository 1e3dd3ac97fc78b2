//! Policies and rules as they were last good, over restarts. The files' watcher remembers them while the process runs; what it
//! cannot know afterwards stands in the state folder: a policy that breaks, or whose file cannot be read, must not
//! become weaker because the controller was started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifest::{Key, Object, State, Typed, from_json};
use serde_json::{Value, json};

use super::Batch;

/// The folder below the state folder.
const FOLDER: &str = "last-good";
/// On a stored object: the file that it came from.
const ORIGIN: &str = "lateen.dev/last-good-of";
/// The kinds that are kept: those that refuse something, and those whose rules others must not take the place of.
const KINDS: [&str; 4] = ["AuthorizationPolicy", "PeerAuthentication", "VirtualService", "DestinationRule"];

/// Keeps policies as they were last good.
#[derive(Debug)]
pub struct LastGood {
    state: State,
    kept: BTreeMap<Key, Arc<Object>>,
    /// In force although no source names them now: their files cannot be read.
    held: BTreeSet<Key>,
    begun: bool,
    pending: Vec<Pending>,
    /// Those whose present version is not good.
    instead: BTreeSet<Key>,
}

/// A change of the folder that is still to be made.
#[derive(Debug)]
enum Pending {
    Write(Arc<Object>),
    Remove(Key),
}

impl LastGood {
    /// Reads what an earlier process kept below the state folder.
    pub fn open(state: &Path) -> Self {
        let root = state.join(FOLDER);
        let kept = KINDS.iter().flat_map(|kind| stored(&root.join(kind)));
        let kept = kept.map(|object| (object.key(), Arc::new(object))).collect();
        Self {
            state: State::at(root),
            kept,
            held: BTreeSet::new(),
            begun: false,
            pending: Vec::new(),
            instead: BTreeSet::new(),
        }
    }

    /// Policies as another process knows them; of those that are known here already, these count.
    pub fn remember(&mut self, objects: Vec<Arc<Object>>) {
        self.kept.extend(objects.into_iter().map(|object| (object.key(), object)));
    }

    /// The policies in force whose present version is not good, with what is in force instead.
    pub fn instead(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.instead.iter().filter_map(|key| self.kept.get(key))
    }

    /// The batch with last good versions in the place of what cannot be read.
    pub fn pass(&mut self, mut batch: Batch) -> Batch {
        let present: BTreeSet<Key> = batch.upserted.iter().map(|object| object.key()).collect();
        let unreadable: Vec<Arc<Path>> = batch
            .findings
            .iter()
            .filter(|finding| finding.is_unreadable())
            .map(|finding| finding.position.file.clone())
            .collect();
        let is_unreadable = |object: &Object| unreadable.iter().any(|gone| object.file().starts_with(gone));
        if !std::mem::replace(&mut self.begun, true) {
            self.held = self.kept.keys().filter(|key| !present.contains(*key)).cloned().collect();
            let still = self.held.iter().filter_map(|key| self.kept.get(key));
            batch.upserted.extend(still.filter(|object| is_unreadable(object)).cloned());
        }
        let gone = self.held.iter().filter(|key| !self.kept.get(key).is_some_and(|o| is_unreadable(o)));
        let gone: Vec<Key> = gone.filter(|key| !present.contains(*key)).cloned().collect();
        self.held.retain(|key| !present.contains(key) && !gone.contains(key));
        batch.removed.extend(gone);
        for key in &batch.removed {
            self.instead.remove(key);
            if self.kept.remove(key).is_some() {
                self.pending.push(Pending::Remove(key.clone()));
            }
        }
        for object in &mut batch.upserted {
            self.exchange(object);
        }
        batch
    }

    /// Notes a good version, or puts the last one in the place of a bad one.
    fn exchange(&mut self, object: &mut Arc<Object>) {
        let key = object.key();
        self.instead.remove(&key);
        match &object.spec {
            Typed::Broken => {
                if let Some(good) = self.kept.get(&key) {
                    self.instead.insert(key.clone());
                    tracing::warn!(object = %key, "its version from before the restart stays in force");
                    *object = good.clone();
                }
            }
            spec if is_kept(spec) => {
                let before = self.kept.insert(key, object.clone());
                if before.is_none_or(|before| before.raw != object.raw || before.file() != object.file()) {
                    self.pending.push(Pending::Write(object.clone()));
                }
            }
            _ => {}
        }
    }

    /// Writes what is new to the folder. Call it once the batch is in force: nobody should wait for a disk.
    pub fn flush(&mut self) {
        for change in self.pending.drain(..) {
            let result = match &change {
                Pending::Write(object) => self.state.write(&marked(object)),
                Pending::Remove(key) => self.state.remove(&key.kind, key.namespace.as_deref(), &key.name),
            };
            if let Err(error) = result {
                tracing::error!(%error, "a policy is in force but not kept for a restart");
            }
        }
    }
}

/// The object with the file it came from.
fn marked(object: &Object) -> Value {
    let mut value = object.raw.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        // Written out, where the manifest relied on the default.
        metadata.insert("namespace".to_owned(), json!(object.metadata.namespace));
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ORIGIN.to_owned(), json!(object.file().to_string_lossy()));
        }
    }
    value
}

/// The objects of a kind. What cannot be read there is told, and left out.
fn stored(folder: &Path) -> Vec<Object> {
    let mut objects = Vec::new();
    for path in entries(folder).iter().flat_map(|namespace| entries(namespace)) {
        match unmarked(&path) {
            Some(object) => objects.push(object),
            None => {
                tracing::warn!(path = %path.display(), "not a policy as this controller keeps them; ignored")
            }
        }
    }
    objects
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn unmarked(path: &Path) -> Option<Object> {
    let mut value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let annotations = value.pointer_mut("/metadata/annotations")?.as_object_mut()?;
    let origin = annotations.shift_remove(ORIGIN)?;
    if annotations.is_empty() {
        value.get_mut("metadata")?.as_object_mut()?.shift_remove("annotations");
    }
    let origin: Arc<Path> = Arc::from(Path::new(origin.as_str()?));
    let mut parsed = from_json(&value, &origin);
    let object = parsed.objects.pop().filter(|_| parsed.objects.is_empty())?;
    is_kept(&object.spec).then_some(object)
}

fn is_kept(spec: &Typed) -> bool {
    matches!(
        spec,
        Typed::AuthorizationPolicy(_)
            | Typed::PeerAuthentication(_)
            | Typed::VirtualService(_)
            | Typed::DestinationRule(_)
    )
}

#[cfg(test)]
mod tests {
    use manifest::Folder;

    use super::*;

    const GOOD: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
                        spec: {action: DENY, rules: [{}]}\n";

    struct World {
        folder: tempfile::TempDir,
        files: Folder,
        last_good: LastGood,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("source")).unwrap();
            let (files, last_good) = Self::begin(&folder);
            Self { folder, files, last_good }
        }

        fn begin(folder: &tempfile::TempDir) -> (Folder, LastGood) {
            (Folder::new([folder.path().join("source")]), LastGood::open(&folder.path().join("state")))
        }

        fn restart(&mut self) {
            (self.files, self.last_good) = Self::begin(&self.folder);
        }

        fn write(&self, text: &str) {
            fs::write(self.folder.path().join("source/p.yaml"), text).unwrap();
        }

        fn remove(&self) {
            fs::remove_file(self.folder.path().join("source/p.yaml")).unwrap();
        }

        /// What a look at the files comes to: good and bad policies in force, and how many go.
        fn look(&mut self) -> (usize, usize, usize) {
            let batch = self.last_good.pass(self.files.scan());
            self.last_good.flush();
            let good = |object: &&Arc<Object>| matches!(object.spec, Typed::AuthorizationPolicy(_));
            let good = batch.upserted.iter().filter(good).count();
            (good, batch.upserted.len() - good, batch.removed.len())
        }
    }

    #[test]
    fn a_policy_that_breaks_while_nobody_looks_stays_as_it_was() {
        for broken in [GOOD.replace("DENY", "DNEY"), "spec: [".to_owned()] {
            let mut world = World::new();
            world.write(GOOD);
            assert_eq!(world.look(), (1, 0, 0));
            world.write(&broken);
            world.restart();
            assert_eq!(world.look(), (1, 0, 0), "{broken}");
            world.restart();
            assert_eq!(world.look(), (1, 0, 0), "{broken}");
            // Mended, it is the file's again; removed, it is gone for good.
            world.write(&GOOD.replace("DENY", "ALLOW"));
            assert_eq!(world.look(), (1, 0, 0));
            world.remove();
            assert_eq!(world.look(), (0, 0, 1));
            world.restart();
            assert_eq!(world.look(), (0, 0, 0));
        }
    }

    #[test]
    fn a_policy_that_is_removed_while_its_file_cannot_be_read_goes_with_the_file() {
        let mut world = World::new();
        world.write(GOOD);
        world.look();
        world.write("spec: [");
        world.restart();
        assert_eq!(world.look(), (1, 0, 0));
        world.remove();
        assert_eq!(world.look(), (0, 0, 1));
    }

    #[test]
    fn what_went_while_nobody_looked_is_gone() {
        let mut world = World::new();
        world.write(GOOD);
        world.look();
        world.remove();
        world.restart();
        assert_eq!(world.look(), (0, 0, 1));
        world.restart();
        assert_eq!(world.look(), (0, 0, 0));
    }

    #[test]
    fn one_that_was_never_good_is_bad() {
        let mut world = World::new();
        world.write(&GOOD.replace("DENY", "DNEY"));
        assert_eq!(world.look(), (0, 1, 0));
        world.restart();
        assert_eq!(world.look(), (0, 1, 0));
    }
}
