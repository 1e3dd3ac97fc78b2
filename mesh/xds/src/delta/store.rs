//! What the server has: the resources of every type, and a log of what changed from revision to revision, so that
//! a client's lack is found in the time that the changes take, not the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use model::address::Str;
use prost::Message;

use super::digest::Digests;
use super::version::Version;

/// Changes of a type that are remembered at least. A client that has not even looked at the newest revision for
/// longer starts anew, by the versions it has.
const SMALLEST_LOG: usize = 1 << 16;

/// Counts what was published, from 1; 0 is the empty store. For people and for "in force since"; contents are
/// compared by [`Version`].
pub type Revision = u64;

/// One resource as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    name: Str,
    aliases: Box<[Str]>,
    part_of: Box<[Str]>,
    value: Bytes,
    version: Version,
}

/// Changes that take effect together.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    steps: Vec<(Str, Step)>,
}

#[derive(Debug, Clone)]
enum Step {
    Put(Resource),
    Remove(Str),
    Replace(Vec<Resource>),
}

/// All resources of all types.
#[derive(Debug, Default)]
pub struct Store {
    shelves: Vec<Shelf>,
    revision: Revision,
}

/// The resources of one type.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) type_url: Str,
    pub(super) resources: BTreeMap<Str, Arc<Resource>>,
    by_key: HashMap<Str, Names>,
    log: VecDeque<Change>,
    forgotten: Revision,
    /// Of what is there now, once somebody has asked.
    digests: OnceLock<Digests>,
}

/// Names of resources: nearly always one, which then costs no tree.
#[derive(Debug)]
enum Names {
    One(Str),
    Several(BTreeSet<Str>),
}

/// A resource has become another one, is new, or is gone.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) name: Str,
    pub(super) before: Option<Version>,
}

impl Resource {
    /// A resource of an encoded message.
    pub fn new(name: impl Into<Str>, value: Bytes) -> Self {
        let mut resource = Self {
            name: name.into(),
            aliases: Box::default(),
            part_of: Box::default(),
            value,
            version: Version::of([]),
        };
        resource.version = resource.content_version();
        resource
    }

    /// A resource of a message.
    pub fn pack<M: Message>(name: impl Into<Str>, message: &M) -> Self {
        Self::new(name, message.encode_to_vec().into())
    }

    /// With other names that clients may ask for it by; they are sent along.
    #[must_use]
    pub fn with_aliases(mut self, aliases: impl IntoIterator<Item = Str>) -> Self {
        self.aliases = aliases.into_iter().collect();
        self.version = self.content_version();
        self
    }

    /// With names of resources of the same type that it goes with: who asks for one of those is sent this one too
    /// (a service's endpoints). Not sent along.
    #[must_use]
    pub fn with_part_of(mut self, names: impl IntoIterator<Item = Str>) -> Self {
        self.part_of = names.into_iter().collect();
        self
    }

    fn content_version(&self) -> Version {
        let aliases = self.aliases.iter().map(|alias| alias.as_bytes());
        Version::of([&self.value[..]].into_iter().chain(aliases))
    }

    /// Its name.
    pub fn name(&self) -> &Str {
        &self.name
    }

    /// Its other names.
    pub fn aliases(&self) -> &[Str] {
        &self.aliases
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its encoded content.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// Every name, other than its own, that it may be asked for by.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Str> {
        self.aliases.iter().chain(&self.part_of)
    }
}

impl Edit {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a resource, or replaces the one of its name.
    pub fn put(&mut self, type_url: &str, resource: Resource) -> &mut Self {
        self.steps.push((type_url.into(), Step::Put(resource)));
        self
    }

    /// Removes a resource.
    pub fn remove(&mut self, type_url: &str, name: impl Into<Str>) -> &mut Self {
        self.steps.push((type_url.into(), Step::Remove(name.into())));
        self
    }

    /// Replaces all resources of a type. What is equal stays untouched.
    pub fn replace(&mut self, type_url: &str, resources: impl IntoIterator<Item = Resource>) -> &mut Self {
        self.steps.push((type_url.into(), Step::Replace(resources.into_iter().collect())));
        self
    }
}

impl Store {
    /// An empty store of these types, in the order in which they depend on one another: what the first ones add
    /// arrives before what the later ones add, and what they lose goes after.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a str>) -> Self {
        Self { shelves: types.into_iter().map(Shelf::new).collect(), revision: 0 }
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A resource by its name.
    pub fn get(&self, type_url: &str, name: &str) -> Option<&Arc<Resource>> {
        self.shelves.iter().find(|shelf| &*shelf.type_url == type_url)?.resources.get(name)
    }

    /// The resources of a type, by name.
    pub fn resources(&self, type_url: &str) -> impl Iterator<Item = &Arc<Resource>> {
        let shelf = self.shelves.iter().find(move |shelf| &*shelf.type_url == type_url);
        shelf.into_iter().flat_map(|shelf| shelf.resources.values())
    }

    /// Makes changes, and says the new revision if anything is different now. A type that the store was not made
    /// with comes last.
    pub fn apply(&mut self, edit: Edit) -> Option<Revision> {
        let next = self.revision + 1;
        let mut changed = false;
        for (type_url, step) in edit.steps {
            let shelf = self.shelf_mut(&type_url);
            changed |= match step {
                Step::Put(resource) => shelf.put(next, resource),
                Step::Remove(name) => shelf.remove(next, &name),
                Step::Replace(resources) => shelf.replace(next, resources),
            };
        }
        if !changed {
            return None;
        }
        self.revision = next;
        self.shelves.iter_mut().for_each(Shelf::trim_log);
        Some(next)
    }

    fn shelf_mut(&mut self, type_url: &str) -> &mut Shelf {
        let place = self.shelves.iter().position(|shelf| &*shelf.type_url == type_url).unwrap_or_else(|| {
            self.shelves.push(Shelf::new(type_url));
            self.shelves.len() - 1
        });
        &mut self.shelves[place]
    }

    pub(super) fn shelves(&self) -> &[Shelf] {
        &self.shelves
    }
}

impl Shelf {
    fn new(type_url: &str) -> Self {
        Self {
            type_url: type_url.into(),
            resources: BTreeMap::new(),
            by_key: HashMap::new(),
            log: VecDeque::new(),
            forgotten: 0,
            digests: OnceLock::new(),
        }
    }

    /// Whether anything is different now.
    fn put(&mut self, revision: Revision, resource: Resource) -> bool {
        let name = resource.name.clone();
        let before = self.resources.get(&name);
        if before.is_some_and(|before| **before == resource) {
            return false;
        }
        let before = before.cloned();
        self.digests.take();
        if let Some(before) = &before {
            self.forget_keys(before);
        }
        for key in resource.keys() {
            match self.by_key.get_mut(key) {
                Some(names) => names.add(name.clone()),
                None => drop(self.by_key.insert(key.clone(), Names::One(name.clone()))),
            }
        }
        let before = before.map(|before| before.version);
        self.log.push_back(Change { revision, name: name.clone(), before });
        self.resources.insert(name, Arc::new(resource));
        true
    }

    fn remove(&mut self, revision: Revision, name: &Str) -> bool {
        let Some(before) = self.resources.remove(name) else { return false };
        self.digests.take();
        self.forget_keys(&before);
        self.log.push_back(Change { revision, name: before.name.clone(), before: Some(before.version) });
        true
    }

    fn replace(&mut self, revision: Revision, resources: Vec<Resource>) -> bool {
        let keep: HashSet<Str> = resources.iter().map(|resource| resource.name.clone()).collect();
        let gone: Vec<Str> = self.resources.keys().filter(|name| !keep.contains(*name)).cloned().collect();
        let mut changed = !gone.is_empty();
        for name in &gone {
            self.remove(revision, name);
        }
        for resource in resources {
            changed |= self.put(revision, resource);
        }
        changed
    }

    fn forget_keys(&mut self, resource: &Resource) {
        for key in resource.keys() {
            if self.by_key.get_mut(key).is_some_and(|names| names.remove(&resource.name)) {
                self.by_key.remove(key);
            }
        }
    }

    /// Never forgets a part of a revision, and never so much that one large change would set every client back.
    fn trim_log(&mut self) {
        let newest = self.log.back().map_or(0, |change| change.revision);
        let wanted = SMALLEST_LOG.max(2 * self.resources.len());
        while self.log.len() > wanted
            && let Some(oldest) = self.log.front().map(|change| change.revision)
            && oldest < newest
        {
            self.forgotten = oldest;
            while self.log.front().is_some_and(|change| change.revision == oldest) {
                self.log.pop_front();
            }
        }
    }

    /// What changed after a revision, or nothing if that is no longer known.
    pub(super) fn changes_since(&self, revision: Revision) -> Option<impl Iterator<Item = &Change>> {
        let start = self.log.partition_point(|change| change.revision <= revision);
        (revision >= self.forgotten).then(|| self.log.range(start..))
    }

    /// The digests of all names and versions.
    pub(super) fn digests(&self) -> &Digests {
        let resources = || self.resources.iter().map(|(name, resource)| (&**name, resource.version));
        self.digests.get_or_init(|| Digests::of(resources()))
    }

    /// Names of the resources that have another name, or go with a resource of that name.
    pub(super) fn named_by(&self, key: &str) -> impl Iterator<Item = &Str> {
        let (one, several) = match self.by_key.get(key) {
            None => (None, None),
            Some(Names::One(name)) => (Some(name), None),
            Some(Names::Several(names)) => (None, Some(names)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

impl Names {
    fn add(&mut self, name: Str) {
        match self {
            Self::One(first) if *first == name => {}
            Self::One(first) => *self = Self::Several([first.clone(), name].into()),
            Self::Several(names) => drop(names.insert(name)),
        }
    }

    /// True when nobody is left.
    fn remove(&mut self, name: &Str) -> bool {
        match self {
            Self::One(first) => first == name,
            Self::Several(names) => {
                names.remove(name);
                names.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, content: &'static str) -> Resource {
        Resource::new(name, Bytes::from_static(content.as_bytes()))
    }

    fn names(store: &Store, type_url: &str) -> Vec<String> {
        store.resources(type_url).map(|resource| resource.name.to_string()).collect()
    }

    #[test]
    fn a_revision_is_a_difference() {
        let mut store = Store::new(["a"]);
        assert_eq!(store.apply(Edit::new().put("a", resource("x", "1")).clone()), Some(1));
        assert_eq!(store.apply(Edit::new().put("a", resource("x", "1")).clone()), None);
        assert_eq!(store.apply(Edit::new().remove("a", "y").clone()), None);
        assert_eq!(store.apply(Edit::new().replace("a", [resource("x", "1")]).clone()), None);
        assert_eq!(store.apply(Edit::new().put("a", resource("x", "2")).clone()), Some(2));
        let all = [resource("y", "1"), resource("x", "2")];
        assert_eq!(store.apply(Edit::new().replace("a", all).clone()), Some(3));
        assert_eq!(store.apply(Edit::new().replace("a", [resource("y", "1")]).clone()), Some(4));
        assert_eq!(names(&store, "a"), ["y"]);
        assert_eq!(names(&store, "b"), Vec::<String>::new());
    }

    #[test]
    fn the_log_says_what_was_before() {
        let mut store = Store::new(["a"]);
        for content in ["1", "2"] {
            store.apply(Edit::new().put("a", resource("x", content)).clone());
        }
        store.apply(Edit::new().remove("a", "x").clone());
        let since = |revision| -> Vec<Option<Version>> {
            store.shelves[0].changes_since(revision).unwrap().map(|change| change.before).collect()
        };
        let (one, two) = (resource("x", "1").version, resource("x", "2").version);
        assert_eq!(since(0), [None, Some(one), Some(two)]);
        assert_eq!(since(2), [Some(two)]);
        assert_eq!(since(3), []);
    }

    #[test]
    fn the_log_is_bounded_and_admits_it() {
        let mut store = Store::new(["a"]);
        for round in 0..SMALLEST_LOG + 10 {
            store.apply(Edit::new().put("a", resource("x", if round % 2 == 0 { "0" } else { "1" })).clone());
        }
        let shelf = &store.shelves[0];
        assert_eq!(shelf.log.len(), SMALLEST_LOG);
        assert!(shelf.changes_since(9).is_none());
        assert_eq!(shelf.changes_since(10).map(Iterator::count), Some(SMALLEST_LOG));
    }

    #[test]
    fn other_names_lead_to_a_resource_while_it_has_them() {
        let mut store = Store::new(["a"]);
        let one = resource("x", "1").with_aliases(["alias".into()]).with_part_of(["whole".into()]);
        store.apply(Edit::new().put("a", one).clone());
        let found = |store: &Store, key: &str| store.shelves[0].named_by(key).count();
        assert_eq!((found(&store, "alias"), found(&store, "whole"), found(&store, "x")), (1, 1, 0));
        store.apply(Edit::new().put("a", resource("x", "1").with_aliases(["other".into()])).clone());
        assert_eq!((found(&store, "alias"), found(&store, "whole"), found(&store, "other")), (0, 0, 1));
        store.apply(Edit::new().remove("a", "x").clone());
        assert!(store.shelves[0].by_key.is_empty());
    }
}
