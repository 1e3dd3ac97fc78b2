//! What was asked for and what came of it, without I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hbone::account::is_fair;
use model::address::{NamespacedHostname, Str};
use model::mesh::{Mesh, Update};
use model::service::Service;
use model::workload::Workload;
use tokio::time::Instant;
use xds::delta::subscriber::{Delivery, Wish};
use xds::names;

use super::key::Key;
use super::metrics::Counts;
use super::uses::Uses;

/// What is asked for at a time; half of what the controller lets one client name, and less.
pub(super) const MAX_KEYS: usize = 1 << 15;
/// Of it what is known not to be there.
pub(super) const MAX_ABSENT: usize = 1 << 12;
/// Questions of one pod that have no answer yet: one that tries every address there is does not keep others waiting.
pub(super) const MAX_OF_POD: usize = 128;
/// Questions of all pods that have no answer yet.
pub(super) const MAX_UNANSWERED: usize = 1 << 12;
/// A question is put again after this time without an answer.
const AGAIN: Duration = Duration::from_secs(2);
/// How long it counts that something is not there, where the controller does not tell when it is.
const ABSENT: Duration = Duration::from_secs(2);
/// A question without an answer is given up when nobody has looked for one for so long.
const GIVE_UP: Duration = Duration::from_secs(15);
/// From this share of its room on, the table keeps for less time what is not used.
const CROWDED: usize = MAX_KEYS / 4 * 3;
/// How long what is not used is kept then.
const SHORT: Duration = Duration::from_secs(10);

/// Of what the greediest pod has, one part in so many makes room for another question.
const EVICTED: usize = 16;

/// How much of what is asked for is known before it was asked for: with something else, or from a predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Nothing,
    /// Not all that belongs to it is there yet.
    Part,
    /// All of it.
    Whole,
}

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Key, Entry>,
    unanswered: HashMap<Arc<str>, usize>,
    total_unanswered: usize,
    absent_now: usize,
    /// What each pod has asked for first: of all that there may be it has its share, as of the agent's descriptors.
    owners: HashMap<Arc<str>, Owned>,
    /// Came in a delivery that another one follows: endpoints may be missing.
    parts: HashSet<Str>,
    wish: Wish,
    counts: Counts,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    used: Instant,
    asked: Instant,
    owner: Arc<str>,
    /// A connection used it when it was last looked.
    live: bool,
}

/// What one pod has asked for.
#[derive(Debug, Default)]
struct Owned {
    keys: usize,
    absent: usize,
    /// The keys of what is not there, the first to be known as such first. Some have come since.
    order: VecDeque<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// There is no answer yet; who asked.
    Unanswered(Arc<str>),
    /// It is there.
    Present,
    /// It is not there, for so long at least.
    Absent(Option<Instant>),
    /// It was there and is gone. Whether something else is in its place has to be asked.
    Gone,
}

impl Table {
    /// Whether what there is by a key is known, at once or by an answer. If not, or if it is not known to be asked for,
    /// it is asked for.
    pub(super) fn look(
        &mut self,
        key: &Key,
        seen: Seen,
        asker: &Arc<str>,
        now: Instant,
        connected: bool,
    ) -> bool {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = now;
            match &entry.phase {
                Phase::Present => return seen != Seen::Part,
                // What nobody could say otherwise stays.
                Phase::Absent(until) if !connected || until.is_none_or(|until| now < until) => return true,
                Phase::Unanswered(_) if now < entry.asked + AGAIN => return seen == Seen::Whole,
                Phase::Unanswered(_) => {
                    entry.asked = now;
                    self.wish.ask.insert(key.text());
                    return seen == Seen::Whole;
                }
                Phase::Absent(_) | Phase::Gone => {}
            }
        }
        if self.may_ask(key, asker) {
            self.ask(key, asker, now);
        } else {
            self.counts.limited += 1;
        }
        seen == Seen::Whole
    }

    fn may_ask(&mut self, key: &Key, asker: &Arc<str>) -> bool {
        let of_pod = self.unanswered.get(asker).copied().unwrap_or_default() + 1;
        let all = self.total_unanswered + 1;
        if of_pod > MAX_OF_POD || !is_share(of_pod, all, MAX_UNANSWERED) {
            self.counts.unanswered_hits += 1;
            return false;
        }
        self.entries.contains_key(key) || self.make_room(asker)
    }

    /// Whether there is room for one more of a pod's. Where the pod has its share, some of what the greediest has used
    /// least of late goes: most often its own.
    fn make_room(&mut self, asker: &Arc<str>) -> bool {
        let own = self.owners.get(asker).map_or(0, |owned| owned.keys);
        if is_share(own + 1, self.entries.len() + 1, MAX_KEYS) {
            return true;
        }
        self.counts.keys_hits += 1;
        let greediest = self.owners.iter().max_by_key(|(_, owned)| owned.keys);
        let Some((greediest, has)) = greediest.map(|(owner, owned)| (owner.clone(), owned.keys)) else {
            return false;
        };
        let may_go = |entry: &Entry| {
            entry.owner == greediest && !entry.live && !matches!(entry.phase, Phase::Unanswered(_))
        };
        let mut old: Vec<(Instant, Key)> = self
            .entries
            .iter()
            .filter(|(_, entry)| may_go(entry))
            .map(|(key, entry)| (entry.used, key.clone()))
            .collect();
        let count = (has / EVICTED).max(1).min(old.len());
        if count == 0 {
            return false;
        }
        old.select_nth_unstable_by_key(count - 1, |(used, _)| *used);
        old[..count].iter().for_each(|(_, key)| self.release(key));
        true
    }

    fn ask(&mut self, key: &Key, asker: &Arc<str>, now: Instant) {
        self.enter(key, asker, now);
        self.set(key, Phase::Unanswered(asker.clone()), now);
        self.wish.ask.insert(key.text());
        self.counts.asked += 1;
    }

    /// A key is a pod's from now on, unless it is somebody's. One that is new was used just now.
    fn enter(&mut self, key: &Key, owner: &Arc<str>, now: Instant) {
        if self.entries.contains_key(key) {
            return;
        }
        self.owners.entry(owner.clone()).or_default().keys += 1;
        let entry = Entry { phase: Phase::Gone, used: now, asked: now, owner: owner.clone(), live: false };
        self.entries.insert(key.clone(), entry);
    }

    /// Brings a key that is somebody's into a phase.
    fn set(&mut self, key: &Key, phase: Phase, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if matches!(phase, Phase::Unanswered(_)) {
            entry.asked = now;
        }
        let owner = entry.owner.clone();
        let before = std::mem::replace(&mut entry.phase, phase.clone());
        let was_absent = matches!(before, Phase::Absent(_));
        self.uncount(&before, &owner);
        match phase {
            Phase::Unanswered(asker) => {
                *self.unanswered.entry(asker).or_default() += 1;
                self.total_unanswered += 1;
            }
            Phase::Absent(_) => {
                self.absent_now += 1;
                let owned = self.owners.entry(owner).or_default();
                owned.absent += 1;
                if !was_absent {
                    owned.order.push_back(key.clone());
                }
            }
            Phase::Present | Phase::Gone => {}
        }
    }

    fn uncount(&mut self, phase: &Phase, owner: &Arc<str>) {
        match phase {
            Phase::Unanswered(asker) => {
                self.total_unanswered -= 1;
                if let Some(count) = self.unanswered.get_mut(asker) {
                    *count -= 1;
                    if *count == 0 {
                        self.unanswered.remove(asker);
                    }
                }
            }
            Phase::Absent(_) => {
                self.absent_now -= 1;
                if let Some(owned) = self.owners.get_mut(owner) {
                    owned.absent -= 1;
                }
            }
            Phase::Present | Phase::Gone => {}
        }
    }

    fn release(&mut self, key: &Key) {
        if let Some(removed) = self.entries.remove(key) {
            self.uncount(&removed.phase, &removed.owner);
            if let Some(owned) = self.owners.get_mut(&removed.owner) {
                owned.keys -= 1;
                if owned.keys == 0 {
                    self.owners.remove(&removed.owner);
                }
            }
        }
        self.wish.release.insert(key.text());
    }

    /// Whether nothing is missing of what has come.
    pub(super) fn is_whole(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether more may belong to a service than has come.
    pub(super) fn is_part(&self, service: &NamespacedHostname) -> bool {
        !self.parts.is_empty() && self.parts.contains(&*service.to_string())
    }

    /// Notes that what leads to a workload was used: it was found by a service.
    pub(super) fn used(&mut self, workload: &Workload, now: Instant) {
        for (service, _) in &workload.profile.services {
            if let Some(entry) = self.entries.get_mut(&Key::Named(service.to_string().into())) {
                entry.used = now;
            }
        }
    }

    /// A delivery is about to be taken over.
    pub(super) fn begin(&mut self, delivery: &Delivery) {
        if delivery.more {
            self.parts.extend(delivery.resources.iter().map(|received| received.name.clone()));
        }
    }

    /// Updates are about to be taken over.
    pub(super) fn note(&mut self, mesh: &Mesh, updates: &[Update]) {
        for update in updates {
            match update {
                Update::Workload(workload) => {
                    if let Some(before) = mesh.workload(&workload.uid) {
                        self.went(keys_of_workload(before));
                    }
                    self.came(keys_of_workload(workload));
                }
                Update::Service(service) => {
                    if let Some(before) = mesh.service(&service.key) {
                        self.went(keys_of_service(before));
                    }
                    self.came(keys_of_service(service));
                }
                Update::RemoveAddress(name) => {
                    if let Some(workload) = mesh.workload(name) {
                        self.went(keys_of_workload(workload));
                    } else if let Some(service) = service_of(mesh, name) {
                        self.went(keys_of_service(service));
                    }
                }
                Update::Policy(_) | Update::RemovePolicy(_) | Update::Settings(_) => {}
            }
        }
    }

    fn came(&mut self, keys: impl Iterator<Item = Key>) {
        self.change(keys, &Phase::Present, |_| true);
    }

    fn went(&mut self, keys: impl Iterator<Item = Key>) {
        self.change(keys, &Phase::Gone, |phase| *phase == Phase::Present);
    }

    fn change(&mut self, keys: impl Iterator<Item = Key>, to: &Phase, from: impl Fn(&Phase) -> bool) {
        for key in keys {
            if let Some(entry) = self.entries.get(&key)
                && from(&entry.phase)
            {
                let used = entry.used;
                self.set(&key, to.clone(), used);
            }
        }
    }

    /// A delivery has been taken over. Says whether those who wait have to look again.
    pub(super) fn end(&mut self, delivery: &Delivery, now: Instant) -> bool {
        let until = (!delivery.ours).then(|| now + ABSENT);
        let mut changed = false;
        let mut owners = HashSet::new();
        for key in delivery.removed.iter().map(Key::read) {
            if let Some(entry) = self.entries.get(&key)
                && entry.phase != Phase::Present
            {
                owners.insert(entry.owner.clone());
                self.set(&key, Phase::Absent(until), now);
                changed = true;
            }
        }
        if !delivery.more {
            changed |= !self.parts.is_empty();
            self.parts.clear();
        }
        owners.iter().for_each(|owner| self.forget_absent(owner));
        changed
    }

    /// Lets go of what is not there until a pod has its share of it at most: of what the greediest one has, most often
    /// the pod itself, the first to be known as such goes first.
    fn forget_absent(&mut self, owner: &Arc<str>) {
        while let Some(owned) = self.owners.get_mut(owner) {
            // Of those that have come since, not more than there may be besides.
            if owned.order.len() > 2 * owned.absent + MAX_OF_POD {
                let entries = &self.entries;
                owned.order.retain(|key| is_absent(entries.get(key)));
            }
            if is_share(owned.absent, self.absent_now, MAX_ABSENT) {
                return;
            }
            self.counts.absent_hits += 1;
            let greediest = self.owners.values_mut().max_by_key(|owned| owned.absent);
            let entries = &self.entries;
            let oldest = greediest.and_then(|owned| {
                let mut order = std::iter::from_fn(|| owned.order.pop_front());
                order.find(|key| is_absent(entries.get(key)))
            });
            match oldest {
                Some(oldest) => self.release(&oldest),
                None => return,
            }
        }
    }

    /// What a predecessor had is asked for from now on: services, and the workloads that belong to none of them.
    pub(super) fn adopt(&mut self, mesh: &Mesh, now: Instant) -> Vec<Str> {
        let services = mesh.services().map(|service| service.key.to_string());
        let of_none = |workload: &&Arc<Workload>| {
            let services = &workload.profile.services;
            !mesh.is_local(workload) && !services.iter().any(|(key, _)| mesh.service(key).is_some())
        };
        let workloads = mesh.workloads().filter(of_none).map(|workload| workload.uid.to_string());
        let names: Vec<Str> = services.chain(workloads).take(MAX_KEYS).map(Str::from).collect();
        // Who asked for it is not known; it makes room for others like a pod's.
        let nobody = Arc::<str>::default();
        for name in &names {
            let key = Key::Named(name.clone());
            self.enter(&key, &nobody, now);
            self.set(&key, Phase::Present, now);
        }
        names
    }

    /// Lets go of what has not been used for so long, and says what of the mesh nothing asks for any more.
    pub(super) fn sweep(&mut self, mesh: &Mesh, uses: &Uses, now: Instant, idle: Duration) -> Vec<Str> {
        let idle = if self.entries.len() > CROWDED { idle.min(SHORT) } else { idle };
        for (key, entry) in &mut self.entries {
            let there = matches!(entry.phase, Phase::Present | Phase::Gone);
            entry.live = there && is_used(mesh, uses, key);
        }
        let old = |entry: &Entry| match entry.phase {
            Phase::Unanswered(_) => entry.used + GIVE_UP < now,
            Phase::Absent(_) | Phase::Present | Phase::Gone => entry.used + idle < now && !entry.live,
        };
        let old: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| old(entry)).map(|(key, _)| key.clone()).collect();
        old.iter().for_each(|key| self.release(key));
        self.counts.forgotten += old.len() as u64;
        let entries = &self.entries;
        self.owners.values_mut().for_each(|owned| owned.order.retain(|key| entries.contains_key(key)));
        let unwanted = self.unwanted(mesh, uses);
        self.wish.dropped.extend(unwanted.iter().cloned());
        unwanted
    }

    /// What no key leads to, no connection uses and no pod of this node is.
    fn unwanted(&self, mesh: &Mesh, uses: &Uses) -> Vec<Str> {
        let has = |key: Key| self.entries.contains_key(&key);
        let wanted_service =
            |service: &Service| uses.has_service(&service.key) || keys_of_service(service).any(has);
        let services: HashSet<&NamespacedHostname> =
            mesh.services().filter(|service| wanted_service(service)).map(|service| &service.key).collect();
        let wanted = |workload: &Workload| {
            mesh.is_local(workload)
                || workload.profile.services.iter().any(|(key, _)| services.contains(key))
                || workload.addresses.iter().any(|ip| uses.has_ip(*ip))
                || keys_of_workload(workload).any(has)
        };
        let workloads = mesh.workloads().filter(|workload| !wanted(workload));
        let workloads = workloads.map(|workload| workload.uid.clone());
        let others = mesh.services().filter(|service| !services.contains(&service.key));
        workloads.chain(others.map(|service| Str::from(service.key.to_string()))).collect()
    }

    /// Whether there is something to tell the controller.
    pub(super) fn has_wishes(&self) -> bool {
        !self.wish.is_empty()
    }

    /// What to tell the controller. What was let go of and is asked for again is only asked for.
    pub(super) fn take_wish(&mut self) -> Wish {
        let mut wish = std::mem::take(&mut self.wish);
        if !wish.release.is_empty() || !wish.dropped.is_empty() {
            let Wish { ask, release, dropped } = &mut wish;
            ask.retain(|name| self.entries.contains_key(&Key::read(name)));
            release.retain(|name| !ask.contains(name));
            dropped.retain(|name| !ask.contains(name));
        }
        wish
    }

    /// How much there is.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            keys: self.entries.len() as u64,
            absent: self.absent_now as u64,
            unanswered: self.total_unanswered as u64,
            ..self.counts
        }
    }
}

/// Whether a pod that then has `own` of `all` has no more than its share.
fn is_share(own: usize, all: usize, most: usize) -> bool {
    is_fair(own as u64, all as u64, most as u64)
}

fn is_absent(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| matches!(entry.phase, Phase::Absent(_)))
}

/// Whether a live connection uses what a key leads to.
fn is_used(mesh: &Mesh, uses: &Uses, key: &Key) -> bool {
    match key {
        Key::At(address) => uses.has_ip(address.ip),
        Key::Named(name) => {
            if let Some(workload) = mesh.workload(name) {
                return workload.addresses.iter().any(|ip| uses.has_ip(*ip));
            }
            service_of(mesh, name).is_some_and(|service| uses.has_service(&service.key))
        }
    }
}

/// The service of that name.
pub(crate) fn service_of<'a>(mesh: &'a Mesh, name: &str) -> Option<&'a Arc<Service>> {
    mesh.service(&NamespacedHostname::parse(name.into())?)
}

/// What leads to a workload.
fn keys_of_workload(workload: &Workload) -> impl Iterator<Item = Key> {
    let ips = if workload.profile.host_network { &[][..] } else { &workload.addresses[..] };
    let network = &workload.profile.network;
    let at = |ip: &std::net::IpAddr| Key::At(model::address::NetworkAddress::new(network.clone(), *ip));
    ips.iter().map(at).chain([Key::Named(workload.uid.clone())])
}

/// What leads to a service.
fn keys_of_service(service: &Service) -> impl Iterator<Item = Key> {
    let own = [service.key.text().clone(), names::host(service.key.hostname())];
    service.vips.iter().cloned().map(Key::At).chain(own.map(Key::Named))
}
