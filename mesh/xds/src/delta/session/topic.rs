//! One client's subscription to one type.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use model::address::Str;
use proto::Any;
use proto::discovery::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::super::digest::{Buckets, Digests};
use super::super::store::{Resource, Revision, Shelf};
use super::super::version::Version;
use super::Fit;

/// Names all resources.
const WILDCARD: &str = "*";
/// What a client subscribed to of one type, and what it lacks.
#[derive(Debug)]
pub(super) struct Topic {
    /// All resources, or those it named.
    wildcard: bool,
    named: HashSet<Str>,
    /// What goes with this name is wanted beside what was named.
    unasked: Option<Str>,
    /// What the client is sent in the place of what it would not understand.
    fit: Option<Fit>,
    /// What a client that names resources has. For a wildcard client this is empty: it has all but `pending`.
    has: HashMap<Str, Version>,
    /// What may have to be sent, with what the client has of it.
    pending: BTreeMap<Str, Had>,
    walk: Walk,
    /// Buckets of names in which the client has something else, until it has said what.
    differing: Buckets,
    /// It has not been asked yet.
    ask_due: bool,
    /// A first response is due even if there is nothing to send: the client waits for it.
    first_due: bool,
    /// It was told that more comes.
    promised: bool,
    /// The store's log is read so far.
    read: Revision,
    acked: Revision,
}

/// The first sending of everything. Keeping no list of it is what lets a thousand clients connect at once.
#[derive(Debug, PartialEq, Eq)]
enum Walk {
    Start,
    After(Str),
    Done,
}

/// What a client has of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Had {
    /// Nothing.
    Nothing,
    /// This version.
    Version(Version),
    /// Some version that is none of ours.
    Other,
    /// Whatever it has, it asks: it is told even if nothing changed or there is nothing.
    Asks,
    /// Something that it no longer wants.
    Unwanted,
}

/// What goes into one response.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    resources: Vec<Arc<Resource>>,
    removed: Vec<Str>,
    bytes: usize,
    limit: usize,
    /// With the other names that resources are asked for by; who has asked for all does not need them.
    aliases: bool,
}

impl Topic {
    /// The first request of a type: without names it is for all.
    pub(super) fn open(
        shelf: &Shelf,
        revision: Revision,
        request: &DeltaDiscoveryRequest,
        unasked: Option<Str>,
        fit: Option<Fit>,
    ) -> Self {
        let DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: has,
            ..
        } = request;
        let wildcard = (subscribe.is_empty() || subscribe.iter().any(|name| name == WILDCARD))
            && !unsubscribe.iter().any(|name| name == WILDCARD);
        let mut topic = Self {
            wildcard,
            named: HashSet::new(),
            unasked,
            fit,
            has: HashMap::new(),
            pending: BTreeMap::new(),
            walk: Walk::Done,
            differing: Buckets::default(),
            ask_due: false,
            first_due: wildcard,
            promised: false,
            read: revision,
            acked: 0,
        };
        if wildcard && has.is_empty() {
            topic.walk = Walk::Start;
        } else if !wildcard {
            topic.compare_named(shelf, has);
            topic.look_at_unasked(shelf);
        } else if let Some(digests) = Digests::from_versions(has) {
            topic.differing = shelf.digests().differences(&digests);
            topic.ask_due = !topic.differing.is_empty();
        } else {
            topic.compare(shelf, has, |_| true);
        }
        topic.subscribe(shelf, subscribe, unsubscribe);
        topic
    }

    /// What to ask the client: removals of the buckets in which it has something else.
    pub(super) fn ask(&mut self) -> Option<Chunk> {
        if !std::mem::replace(&mut self.ask_due, false) {
            return None;
        }
        let removed = self.differing.names().map(Str::from).collect();
        Some(Chunk { removed, ..Chunk::default() })
    }

    /// Whether the client is yet to say what it has.
    pub(super) fn is_waiting(&self) -> bool {
        !self.differing.is_empty()
    }

    /// The client has said what it has in the buckets that differ. What the log said of them was about another's.
    pub(super) fn listed(&mut self, shelf: &Shelf, has: &BTreeMap<String, String>) {
        let differing = std::mem::take(&mut self.differing);
        let differs = |name: &str| differing.hold(name);
        self.pending.retain(|name, _| !differs(name));
        self.compare(shelf, has, differs);
    }

    /// A resource as this client is sent it.
    fn fitting(&self, shelf: &Shelf, resource: &Arc<Resource>) -> Arc<Resource> {
        let lesser = self.fit.as_ref().and_then(|fit| (fit.0)(&shelf.type_url, resource));
        lesser.map_or_else(|| resource.clone(), Arc::new)
    }

    /// What a wildcard client lacks, given all it has of the names that are in question.
    fn compare(&mut self, shelf: &Shelf, has: &BTreeMap<String, String>, asked: impl Fn(&str) -> bool) {
        for (name, version) in has.iter().filter(|(name, _)| asked(name)) {
            let had = had(version);
            let current = shelf.resources.get_key_value(name.as_str());
            let version = |resource| self.fitting(shelf, resource).version();
            if current.is_none_or(|(_, resource)| had != Had::Version(version(resource))) {
                let name = current.map_or_else(|| Str::from(name.as_str()), |(name, _)| name.clone());
                self.pending.insert(name, had);
            }
        }
        let unknown = |name: &&Str| asked(name) && !has.contains_key(&***name);
        for name in shelf.resources.keys().filter(unknown) {
            self.pending.insert(name.clone(), Had::Nothing);
        }
    }

    /// What a client that names resources has is kept up to date, by whichever name it came to it.
    fn compare_named(&mut self, shelf: &Shelf, has: &BTreeMap<String, String>) {
        for (name, version) in has {
            let had = had(version);
            let name = Str::from(name.as_str());
            let current = shelf.resources.get(&name).map(|resource| self.fitting(shelf, resource));
            if current.as_ref().is_none_or(|resource| had != Had::Version(resource.version())) {
                self.pending.insert(name.clone(), had);
            }
            let version = current.map_or_else(|| Version::of([]), |resource| resource.version());
            self.has.insert(name, version);
        }
        // What goes with it may have come while the client was away.
        let with: Vec<Str> = self.has.keys().flat_map(|name| shelf.named_by(name)).cloned().collect();
        with.iter().for_each(|name| self.look_at(name));
    }

    /// Changes what the client wants.
    pub(super) fn subscribe(&mut self, shelf: &Shelf, subscribe: &[String], unsubscribe: &[String]) {
        for name in subscribe {
            if name != WILDCARD {
                self.add(shelf, name);
            } else if !self.wildcard && !unsubscribe.iter().any(|name| name == WILDCARD) {
                self.wildcard = true;
                self.first_due = true;
                self.walk = Walk::Start;
            }
        }
        let mut narrowed = false;
        for name in unsubscribe {
            if name == WILDCARD {
                self.end_wildcard(shelf);
            } else {
                // It may have come with another, or before the client was here.
                narrowed |= self.named.remove(name.as_str()) || self.has.contains_key(name.as_str());
            }
        }
        if narrowed && !self.wildcard {
            self.drop_unwanted(shelf);
        }
    }

    fn add(&mut self, shelf: &Shelf, name: &str) {
        let name = Str::from(name);
        self.named.insert(name.clone());
        let found = shelf.resources.get_key_value(&name).map(|(name, _)| name);
        let mut nobody = true;
        for found in found.into_iter().chain(shelf.named_by(&name)) {
            nobody = false;
            self.pending.insert(found.clone(), Had::Asks);
        }
        if nobody {
            self.pending.insert(name, Had::Asks);
        }
    }

    /// From all to what was named. What the client has is not known name by name, so it is told again.
    fn end_wildcard(&mut self, shelf: &Shelf) {
        if !std::mem::replace(&mut self.wildcard, false) {
            return;
        }
        self.walk = Walk::Done;
        self.differing = Buckets::default();
        self.ask_due = false;
        self.pending.clear();
        for name in self.named.clone() {
            self.add(shelf, &name);
        }
        self.look_at_unasked(shelf);
    }

    /// What is wanted without having been named.
    fn look_at_unasked(&mut self, shelf: &Shelf) {
        let names: Vec<Str> = self.unasked.iter().flat_map(|name| shelf.named_by(name)).cloned().collect();
        names.iter().for_each(|name| self.look_at(name));
    }

    /// Takes back what no name leads to any more.
    fn drop_unwanted(&mut self, shelf: &Shelf) {
        let is_named = |name: &Str| {
            let keys = shelf.resources.get(name).map(|resource| resource.keys());
            let asked = |key: &Str| self.named.contains(key) || self.unasked.as_ref() == Some(key);
            asked(name) || keys.into_iter().flatten().any(asked)
        };
        let roots: HashSet<&Str> = self.has.keys().filter(|name| is_named(name)).collect();
        let goes_with = |name: &Str| {
            let keys = shelf.resources.get(name).map(|resource| resource.keys());
            keys.into_iter().flatten().any(|key| roots.contains(key))
        };
        let unwanted: Vec<Str> =
            self.has.keys().filter(|name| !roots.contains(name) && !goes_with(name)).cloned().collect();
        for name in unwanted {
            self.has.remove(&name);
            self.pending.insert(name, Had::Unwanted);
        }
    }

    /// Notes what has changed in the store; nothing if the store no longer knows.
    pub(super) fn read_log(&mut self, shelf: &Shelf, revision: Revision) -> Option<()> {
        if self.read == revision {
            return Some(());
        }
        for change in shelf.changes_since(self.read)? {
            let to_come = match &self.walk {
                Walk::Start => true,
                Walk::After(name) => change.name > *name,
                Walk::Done => false,
            };
            let had = match change.before {
                _ if !self.wildcard => {
                    if self.wants(shelf, &change.name) {
                        self.look_at(&change.name);
                    }
                    continue;
                }
                // Still to come, unless the client named it before it wanted all.
                _ if to_come => match self.has.remove(&change.name) {
                    Some(version) => Had::Version(version),
                    None => continue,
                },
                Some(version) => Had::Version(version),
                None => Had::Nothing,
            };
            self.pending.entry(change.name.clone()).or_insert(had);
        }
        self.read = revision;
        Some(())
    }

    /// Whether a client that names resources wants this one: by its name, by another, or with one that it has.
    fn wants(&self, shelf: &Shelf, name: &Str) -> bool {
        let wanted = |name: &Str| {
            self.named.contains(name) || self.has.contains_key(name) || self.unasked.as_ref() == Some(name)
        };
        wanted(name) || shelf.resources.get(name).is_some_and(|resource| resource.keys().any(wanted))
    }

    fn look_at(&mut self, name: &Str) {
        let had = self.has.get(name).map_or(Had::Nothing, |version| Had::Version(*version));
        match self.pending.entry(name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(had);
            }
            // Wanted again before it was taken back.
            Entry::Occupied(mut entry) if *entry.get() == Had::Unwanted => {
                entry.insert(Had::Other);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// Whether the client lacks anything.
    pub(super) fn has_work(&self) -> bool {
        self.first_due || self.is_waiting() || self.walk != Walk::Done || !self.pending.is_empty()
    }

    /// What to send next, closed once it has `limit` bytes; without removals if other types have to go first.
    pub(super) fn take(&mut self, shelf: &Shelf, removals: bool, limit: usize) -> Option<Chunk> {
        let mut chunk = Chunk { limit, aliases: !self.wildcard, ..Chunk::default() };
        let mut settled = Vec::new();
        for (name, had) in &self.pending {
            if chunk.is_full() {
                break;
            }
            let current = shelf.resources.get(name).map(|resource| self.fitting(shelf, resource));
            match verdict(*had, current) {
                Verdict::Skip => {}
                Verdict::Send(resource) => chunk.push(resource),
                Verdict::Remove if removals => chunk.remove(name),
                Verdict::Remove => continue,
            }
            settled.push(name.clone());
        }
        for name in &settled {
            self.pending.remove(name);
        }
        self.walk_on(shelf, &mut chunk);
        self.record(shelf, &chunk);
        // What was to follow may be there already.
        let owed = self.promised && !self.has_work();
        if chunk.is_empty() && !self.first_due && !owed {
            return None;
        }
        self.first_due = false;
        Some(chunk)
    }

    fn walk_on(&mut self, shelf: &Shelf, chunk: &mut Chunk) {
        let from = match &self.walk {
            Walk::Done => return,
            Walk::Start => Bound::Unbounded,
            Walk::After(name) => Bound::Excluded(name.clone()),
        };
        for (name, resource) in shelf.resources.range((from, Bound::Unbounded)) {
            if chunk.is_full() {
                return;
            }
            // It may have been named before all were wanted.
            let resource = self.fitting(shelf, resource);
            if self.has.remove(name) != Some(resource.version()) {
                chunk.push(resource);
            }
            self.walk = Walk::After(name.clone());
        }
        self.walk = Walk::Done;
        self.has.clear();
    }

    /// Notes what a client that names resources will have, and that what goes with it is wanted now.
    fn record(&mut self, shelf: &Shelf, chunk: &Chunk) {
        if self.wildcard {
            return;
        }
        for name in &chunk.removed {
            self.has.remove(name);
        }
        let mut new = Vec::new();
        for resource in &chunk.resources {
            if self.has.insert(resource.name().clone(), resource.version()).is_none() {
                new.push(resource.name());
            }
        }
        // Only now that all of the response counts: some of what goes with it may be in it.
        let with: Vec<Str> = new.into_iter().flat_map(|name| shelf.named_by(name)).cloned().collect();
        with.iter().for_each(|name| self.look_at(name));
    }

    /// Notes what the client is told with a response, and says the revision that it has then, if it lacks nothing.
    pub(super) fn sent(&mut self) -> Option<Revision> {
        let complete = self.complete();
        self.promised = complete.is_none();
        complete
    }

    /// The revision that the client has, if it lacks nothing.
    pub(super) fn complete(&self) -> Option<Revision> {
        (!self.has_work()).then_some(self.read)
    }

    pub(super) fn acked(&mut self, revision: Revision) {
        self.acked = self.acked.max(revision);
    }

    pub(super) fn in_force(&self, in_flight: bool) -> Revision {
        match self.complete() {
            Some(revision) if !in_flight => revision,
            _ => self.acked,
        }
    }

    pub(super) fn names(&self) -> usize {
        self.named.len()
    }
}

fn had(version: &str) -> Had {
    version.parse().map_or(Had::Other, Had::Version)
}

enum Verdict {
    Skip,
    Send(Arc<Resource>),
    Remove,
}

/// What a client is to be told of a resource, by what it has of it and what there is.
fn verdict(had: Had, current: Option<Arc<Resource>>) -> Verdict {
    match (had, current) {
        (Had::Unwanted, _) => Verdict::Remove,
        (Had::Version(version), Some(current)) if version == current.version() => Verdict::Skip,
        (_, Some(current)) => Verdict::Send(current),
        (Had::Nothing, None) => Verdict::Skip,
        (_, None) => Verdict::Remove,
    }
}

impl Chunk {
    fn push(&mut self, resource: Arc<Resource>) {
        let aliases: usize = resource.aliases().iter().map(|alias| alias.len()).sum();
        self.bytes += resource.value().len() + resource.name().len();
        self.bytes += if self.aliases { aliases } else { 0 };
        self.resources.push(resource);
    }

    fn remove(&mut self, name: &Str) {
        self.bytes += name.len();
        self.removed.push(name.clone());
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    pub(super) fn names(&self) -> Vec<Str> {
        let sent = self.resources.iter().map(|resource| resource.name());
        sent.chain(&self.removed).cloned().collect()
    }

    pub(super) fn into_response(
        self,
        shelf: &Shelf,
        revision: Revision,
        nonce: String,
    ) -> DeltaDiscoveryResponse {
        let write = |resource: &Arc<Resource>| discovery::Resource {
            name: resource.name().to_string(),
            aliases: resource.aliases().iter().filter(|_| self.aliases).map(ToString::to_string).collect(),
            version: resource.version().to_string(),
            resource: Some(Any { type_url: shelf.type_url.to_string(), value: resource.value().clone() }),
        };
        DeltaDiscoveryResponse {
            system_version_info: revision.to_string(),
            resources: self.resources.iter().map(write).collect(),
            type_url: shelf.type_url.to_string(),
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
            nonce,
        }
    }
}
