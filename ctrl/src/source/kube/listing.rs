//! What is known of one kind at the API server, and what each event of its watch changes. Pure: the same objects listed
//! again after a watch broke come to nothing, and a listing takes effect as a whole.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use manifest::Key;

use super::kinds::Watched;

/// Namespace and name.
type Place = (Option<String>, String);

/// The objects of one kind, by the version that was seen last.
#[derive(Debug)]
pub(super) struct Listing {
    watched: Watched,
    known: BTreeMap<Place, String>,
    /// All of them are being told anew.
    begun: Option<Begun>,
}

/// What a listing has come to so far.
#[derive(Debug, Default)]
struct Begun {
    versions: BTreeMap<Place, String>,
    differing: Vec<DynamicObject>,
}

/// What is different now.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// New, or of another version.
    pub(super) objects: Vec<DynamicObject>,
    /// Gone.
    pub(super) removed: Vec<Key>,
    /// All objects of the kind are known: the end of a listing.
    pub(super) complete: bool,
}

impl Listing {
    /// Nothing known yet.
    pub(super) fn new(watched: Watched) -> Self {
        Self { watched, known: BTreeMap::new(), begun: None }
    }

    /// The kind.
    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Takes an event into account; `None` while there is nothing to tell.
    pub(super) fn take(&mut self, event: Event<DynamicObject>) -> Option<Difference> {
        match event {
            Event::Init => {
                self.begun = Some(Begun::default());
                None
            }
            Event::InitApply(object) => {
                let begun = self.begun.get_or_insert_default();
                let (place, version) = (place(&object), version(&object));
                if self.known.get(&place) != Some(&version) {
                    begun.differing.push(object);
                }
                begun.versions.insert(place, version);
                None
            }
            Event::InitDone => {
                let Begun { versions, differing } = self.begun.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.known, versions);
                let gone: BTreeSet<Place> =
                    before.into_keys().filter(|place| !self.known.contains_key(place)).collect();
                Some(Difference { objects: differing, removed: self.keys(gone), complete: true })
            }
            Event::Apply(object) => {
                let version = version(&object);
                let before = self.known.insert(place(&object), version.clone());
                (before != Some(version))
                    .then(|| Difference { objects: vec![object], ..Difference::default() })
            }
            Event::Delete(object) => {
                let place = place(&object);
                self.known.remove(&place)?;
                Some(Difference { removed: self.keys([place]), ..Difference::default() })
            }
        }
    }

    /// The kind's definition is not there, so neither is any object of it.
    pub(super) fn absent(&mut self) -> Difference {
        self.begun = None;
        let gone = std::mem::take(&mut self.known).into_keys();
        Difference { objects: Vec::new(), removed: self.keys(gone), complete: true }
    }

    fn keys(&self, places: impl IntoIterator<Item = Place>) -> Vec<Key> {
        places.into_iter().map(|(namespace, name)| self.watched.key(namespace, name)).collect()
    }
}

fn place(object: &DynamicObject) -> Place {
    (object.metadata.namespace.clone(), object.metadata.name.clone().unwrap_or_default())
}

fn version(object: &DynamicObject) -> String {
    object.metadata.resource_version.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;
