//! What was asked for and what came of it, without I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

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
    /// The keys of what is not there, the first to be known as such first. Some have come since.
    absent: VecDeque<Key>,
    absent_now: usize,
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
                    self.wish.ask.push(key.text());
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

    fn may_ask(&self, key: &Key, asker: &Arc<str>) -> bool {
        let of_pod = self.unanswered.get(asker).copied().unwrap_or_default();
        let room = self.entries.len() < MAX_KEYS || self.entries.contains_key(key);
        room && of_pod < MAX_OF_POD && self.total_unanswered < MAX_UNANSWERED
    }

    fn ask(&mut self, key: &Key, asker: &Arc<str>, now: Instant) {
        self.set(key, Phase::Unanswered(asker.clone()), now);
        self.wish.ask.push(key.text());
        self.counts.asked += 1;
    }

    /// Brings a key into a phase; one that is new was used just now.
    fn set(&mut self, key: &Key, phase: Phase, now: Instant) {
        let before = self.entries.get(key).map(|entry| entry.phase.clone());
        self.uncount(before.as_ref());
        match &phase {
            Phase::Unanswered(asker) => {
                *self.unanswered.entry(asker.clone()).or_default() += 1;
                self.total_unanswered += 1;
            }
            Phase::Absent(_) => {
                self.absent_now += 1;
                if !matches!(before, Some(Phase::Absent(_))) {
                    self.absent.push_back(key.clone());
                }
            }
            Phase::Present | Phase::Gone => {}
        }
        let asks = matches!(phase, Phase::Unanswered(_));
        match self.entries.get_mut(key) {
            Some(entry) => {
                entry.phase = phase;
                entry.asked = if asks { now } else { entry.asked };
            }
            None => drop(self.entries.insert(key.clone(), Entry { phase, used: now, asked: now })),
        }
    }

    fn uncount(&mut self, phase: Option<&Phase>) {
        match phase {
            Some(Phase::Unanswered(asker)) => {
                self.total_unanswered -= 1;
                if let Some(count) = self.unanswered.get_mut(asker) {
                    *count -= 1;
                    if *count == 0 {
                        self.unanswered.remove(asker);
                    }
                }
            }
            Some(Phase::Absent(_)) => self.absent_now -= 1,
            Some(Phase::Present | Phase::Gone) | None => {}
        }
    }

    fn release(&mut self, key: &Key) {
        let removed = self.entries.remove(key);
        self.uncount(removed.map(|entry| entry.phase).as_ref());
        self.wish.release.push(key.text());
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
        for key in delivery.removed.iter().map(Key::read) {
            let answered = self.entries.get(&key).is_some_and(|entry| entry.phase != Phase::Present);
            if answered {
                self.set(&key, Phase::Absent(until), now);
                changed = true;
            }
        }
        if !delivery.more {
            changed |= !self.parts.is_empty();
            self.parts.clear();
        }
        while self.absent_now > MAX_ABSENT
            && let Some(oldest) = self.absent.pop_front()
        {
            self.release_absent(&oldest);
        }
        // Of those that have come since, not more than there may be besides.
        if self.absent.len() > 2 * MAX_ABSENT {
            let entries = &self.entries;
            self.absent
                .retain(|key| entries.get(key).is_some_and(|entry| matches!(entry.phase, Phase::Absent(_))));
        }
        changed
    }

    fn release_absent(&mut self, key: &Key) {
        if self.entries.get(key).is_some_and(|entry| matches!(entry.phase, Phase::Absent(_))) {
            self.release(key);
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
        for name in &names {
            self.set(&Key::Named(name.clone()), Phase::Present, now);
        }
        names
    }

    /// Lets go of what has not been used for so long, and says what of the mesh nothing asks for any more.
    pub(super) fn sweep(&mut self, mesh: &Mesh, uses: &Uses, now: Instant, idle: Duration) -> Vec<Str> {
        let idle = if self.entries.len() > CROWDED { idle.min(SHORT) } else { idle };
        let old = |key: &Key, entry: &Entry| match entry.phase {
            Phase::Unanswered(_) => entry.used + GIVE_UP < now,
            Phase::Absent(_) => entry.used + idle < now,
            Phase::Present | Phase::Gone => entry.used + idle < now && !is_used(mesh, uses, key),
        };
        let old: Vec<Key> =
            self.entries.iter().filter(|(key, entry)| old(key, entry)).map(|(key, _)| key.clone()).collect();
        old.iter().for_each(|key| self.release(key));
        self.counts.forgotten += old.len() as u64;
        self.absent.retain(|key| self.entries.contains_key(key));
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
            let asked: HashSet<Str> =
                wish.ask.iter().filter(|name| self.entries.contains_key(&Key::read(name))).cloned().collect();
            wish.ask.retain(|name| asked.contains(name));
            wish.release.retain(|name| !asked.contains(name));
            wish.dropped.retain(|name| !asked.contains(name));
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
    let (namespace, hostname) = name.split_once('/')?;
    mesh.service(&NamespacedHostname { namespace: namespace.into(), hostname: hostname.into() })
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
    let own = [service.key.to_string().into(), names::host(&service.key.hostname)];
    service.vips.iter().cloned().map(Key::At).chain(own.map(Key::Named))
}
