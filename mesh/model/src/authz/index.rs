//! Many policies, of which a connection or request need only be judged by the few that could match.
//!
//! For a rule to match, each of its clauses must have a match that holds. So a rule is noted under what one clause
//! asks of the client's name or address, of the port, or of path, host or method, and a policy is looked at only where one of its rules is
//! noted under what the connection has. Rules that cannot be noted so are always looked at.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::decide::Ballot;
use super::{Action, Clause, Facts, Match, PathMatch, Policy, StringMatch};
use crate::address::Str;
use crate::workload::PolicyName;

/// So few policies are looked at one after the other.
const SCANNED_UP_TO: usize = 8;

/// Policies in the order of their names, so that the first to decide does not depend on the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Indexed {
    policies: Vec<Arc<Policy>>,
    /// Kept by whoever changes them, so that no connection pays for a change; where there are few, there is none.
    index: Option<Index>,
    /// How many are in dry run, by action: that they apply is told also where none of their rules can match.
    on_trial: HashMap<Action, usize>,
}

impl Indexed {
    pub(crate) fn insert(&mut self, policy: &Arc<Policy>) {
        if policy.dry_run {
            *self.on_trial.entry(policy.action).or_default() += 1;
        }
        match self.place(&policy.name) {
            Ok(place) => {
                let old = std::mem::replace(&mut self.policies[place], policy.clone());
                self.end_trial(&old);
                if let Some(index) = &mut self.index {
                    index.remove(&old);
                }
            }
            Err(place) => self.policies.insert(place, policy.clone()),
        }
        match &mut self.index {
            Some(index) => index.add(policy),
            None if self.policies.len() > SCANNED_UP_TO => self.index = Some(Index::new(&self.policies)),
            None => {}
        }
    }

    pub(crate) fn remove(&mut self, name: &PolicyName) {
        let Ok(place) = self.place(name) else { return };
        let old = self.policies.remove(place);
        self.end_trial(&old);
        if self.policies.len() <= SCANNED_UP_TO {
            self.index = None;
        } else if let Some(index) = &mut self.index {
            index.remove(&old);
        }
    }

    fn end_trial(&mut self, policy: &Policy) {
        if policy.dry_run
            && let Entry::Occupied(mut count) = self.on_trial.entry(policy.action)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn place(&self, name: &PolicyName) -> Result<usize, usize> {
        self.policies.binary_search_by(|policy| policy.name.cmp(name))
    }

    pub(crate) fn all(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Lets all policies be heard that have something to say.
    pub(crate) fn hear(&self, ballot: &mut Ballot, facts: &Facts<'_>) {
        self.hear_some(ballot, facts, |_| true);
    }

    /// Lets those of them be heard that are to be.
    pub(crate) fn hear_some(
        &self,
        ballot: &mut Ballot,
        facts: &Facts<'_>,
        is_heard: impl Fn(&Policy) -> bool,
    ) {
        let Some(index) = &self.index else {
            let heard = self.policies.iter().filter(|policy| is_heard(policy));
            return heard.for_each(|policy| ballot.take(policy, facts));
        };
        self.on_trial.keys().for_each(|action| ballot.is_on_trial(*action));
        for slot in index.candidates(facts) {
            if let Some(policy) = index.policy(slot).filter(|policy| is_heard(policy)) {
                ballot.take(policy, facts);
            }
        }
    }
}

/// Slots of policies by what one of their rules needs.
#[derive(Debug, Default)]
struct Index {
    slots: Vec<Option<Arc<Policy>>>,
    free: Vec<usize>,
    slot_of: HashMap<PolicyName, usize>,
    always: Vec<usize>,
    principals: Prefixes,
    namespaces: Prefixes,
    accounts: Places<(Str, Str)>,
    sources: Ranges,
    destinations: Ranges,
    ports: Places<u16>,
    paths: Prefixes,
    hosts: Prefixes,
    methods: Places<Str>,
}

/// Whether something is noted or taken out again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Note,
    Forget,
}

impl Index {
    fn new(policies: &[Arc<Policy>]) -> Self {
        let mut index = Self::default();
        policies.iter().for_each(|policy| index.add(policy));
        index
    }

    fn add(&mut self, policy: &Arc<Policy>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(policy.clone());
        self.slot_of.insert(policy.name.clone(), slot);
        self.change(policy, slot, Change::Note);
    }

    fn remove(&mut self, policy: &Policy) {
        let Some(slot) = self.slot_of.remove(&policy.name) else { return };
        self.change(policy, slot, Change::Forget);
        self.slots[slot] = None;
        self.free.push(slot);
    }

    fn policy(&self, slot: usize) -> Option<&Arc<Policy>> {
        self.slots.get(slot)?.as_ref()
    }

    fn change(&mut self, policy: &Policy, slot: usize, change: Change) {
        if policy.invalid.is_some() {
            apply(&mut self.always, slot, change);
        }
        for rule in &policy.rules {
            let needs = rule.clauses.iter().filter_map(needs_of_clause);
            match needs.min_by_key(|needs| needs.iter().map(Need::breadth).max()) {
                Some(needs) => needs.into_iter().for_each(|need| self.change_need(need, slot, change)),
                None => apply(&mut self.always, slot, change),
            }
        }
    }

    fn change_need(&mut self, need: Need<'_>, slot: usize, change: Change) {
        match need {
            Need::Principal(prefix) => self.principals.change(prefix, slot, change),
            Need::Namespace(prefix) => self.namespaces.change(prefix, slot, change),
            Need::Account(namespace, account) => {
                self.accounts.change((namespace.clone(), account.clone()), slot, change);
            }
            Need::Source(range) => self.sources.change(range, slot, change),
            Need::Destination(range) => self.destinations.change(range, slot, change),
            Need::Port(port) => {
                self.ports.change(port, slot, change);
            }
            Need::Path(prefix) => self.paths.change(prefix, slot, change),
            Need::Host(prefix) => self.hosts.change(prefix, slot, change),
            Need::Method(method) => {
                self.methods.change(method.clone(), slot, change);
            }
        }
    }

    /// The slots of all policies that have something to say, and some more, in the order of names.
    fn candidates(&self, facts: &Facts<'_>) -> Vec<usize> {
        let mut found = self.always.clone();
        if let Some(identity) = facts.identity {
            let uri = identity.to_string();
            self.principals.find(uri.strip_prefix("spiffe://").unwrap_or(&uri), &mut found);
            self.namespaces.find(identity.namespace(), &mut found);
            let account = (identity.namespace().clone(), identity.service_account().clone());
            self.accounts.find(&account, &mut found);
        }
        self.sources.find(facts.source.ip(), &mut found);
        match facts.destination {
            Some(destination) => {
                self.destinations.find(destination.ip(), &mut found);
                self.ports.find(&destination.port(), &mut found);
            }
            None => {
                self.destinations.places.all(&mut found);
                self.ports.all(&mut found);
            }
        }
        match facts.request {
            Some(request) => {
                self.paths.find(request.path, &mut found);
                self.hosts.find(request.authority, &mut found);
                self.methods.find(request.method.as_str(), &mut found);
            }
            // What cannot be seen may be as wanted.
            None => {
                self.paths.places.all(&mut found);
                self.hosts.places.all(&mut found);
                self.methods.all(&mut found);
            }
        }
        found.sort_unstable();
        found.dedup();
        let name = |slot: &usize| self.policy(*slot).map(|policy| &policy.name);
        found.sort_by(|one, other| name(one).cmp(&name(other)));
        found
    }
}

/// One thing of several that a clause needs one of.
#[derive(Clone, Copy)]
enum Need<'a> {
    Principal(&'a Str),
    Namespace(&'a Str),
    Account(&'a Str, &'a Str),
    Source(IpNet),
    Destination(IpNet),
    Port(u16),
    Path(&'a Str),
    Host(&'a Str),
    Method(&'a Str),
}

impl Need<'_> {
    /// How many of those judged are likely to have it: of the clauses of a rule, the one that needs the rarest is noted.
    fn breadth(&self) -> u8 {
        match self {
            Self::Principal(_) | Self::Account(..) => 0,
            Self::Source(_) => 1,
            Self::Namespace(_) => 2,
            Self::Path(_) => 3,
            Self::Host(_) => 4,
            Self::Destination(_) => 5,
            Self::Port(_) => 6,
            Self::Method(_) => 7,
        }
    }
}

/// What a connection needs one of for the clause to hold; `None` where that cannot be said.
fn needs_of_clause(clause: &Clause) -> Option<Vec<Need<'_>>> {
    if clause.matches.is_empty() {
        return None;
    }
    let mut needs = Vec::new();
    // An empty match never holds, whatever the connection has.
    for one in clause.matches.iter().filter(|one| !one.is_empty()) {
        needs.extend(needs_of_match(one)?);
    }
    Some(needs)
}

fn needs_of_match(one: &Match) -> Option<Vec<Need<'_>>> {
    if let Some(prefixes) = prefixes(&one.principals) {
        return Some(prefixes.map(Need::Principal).collect());
    }
    if !one.service_accounts.is_empty() {
        let need = one.service_accounts.iter();
        return Some(need.map(|wanted| Need::Account(&wanted.namespace, &wanted.service_account)).collect());
    }
    if !one.source_ips.is_empty() {
        return Some(one.source_ips.iter().map(|range| Need::Source(range.trunc())).collect());
    }
    if let Some(prefixes) = prefixes(&one.namespaces) {
        return Some(prefixes.map(Need::Namespace).collect());
    }
    if let Some(paths) = one.request.as_ref().and_then(|request| paths(&request.paths)) {
        return Some(paths.into_iter().map(Need::Path).collect());
    }
    if let Some(prefixes) = one.request.as_ref().and_then(|request| prefixes(&request.hosts)) {
        return Some(prefixes.map(Need::Host).collect());
    }
    if !one.destination_ips.is_empty() {
        return Some(one.destination_ips.iter().map(|range| Need::Destination(range.trunc())).collect());
    }
    if !one.destination_ports.is_empty() {
        return Some(one.destination_ports.iter().map(|port| Need::Port(*port)).collect());
    }
    one.request.as_ref().and_then(|request| methods(&request.methods))
}

/// What a path must begin with to be one of those wanted, if that can be said of all of them.
fn paths(wanted: &[PathMatch]) -> Option<Vec<&Str>> {
    if wanted.is_empty() { None } else { wanted.iter().map(PathMatch::beginning).collect() }
}

/// The methods wanted, if they are said in full.
fn methods(wanted: &[StringMatch]) -> Option<Vec<Need<'_>>> {
    if wanted.is_empty() {
        return None;
    }
    let exact = wanted.iter().map(|one| match one {
        StringMatch::Exact(method) => Some(Need::Method(method)),
        _ => None,
    });
    exact.collect()
}

/// What a value must begin with to be one of those wanted, if that can be said of all of them.
fn prefixes(wanted: &[StringMatch]) -> Option<impl Iterator<Item = &Str>> {
    let prefix = |one: &StringMatch| matches!(one, StringMatch::Exact(_) | StringMatch::Prefix(_));
    (!wanted.is_empty() && wanted.iter().all(prefix)).then(|| {
        wanted.iter().filter_map(|one| match one {
            StringMatch::Exact(text) | StringMatch::Prefix(text) => Some(text),
            StringMatch::Suffix(_) | StringMatch::Presence => None,
        })
    })
}

/// Slots of policies by a key.
#[derive(Debug)]
struct Places<K>(HashMap<K, Vec<usize>>);

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Places<K> {
    /// Says whether the key is new, or there is nothing of it left.
    fn change(&mut self, key: K, slot: usize, change: Change) -> bool {
        match self.0.entry(key) {
            Entry::Occupied(mut places) => {
                apply(places.get_mut(), slot, change);
                let gone = places.get().is_empty();
                if gone {
                    places.remove();
                }
                gone
            }
            Entry::Vacant(place) if change == Change::Note => {
                place.insert(vec![slot]);
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q, found: &mut Vec<usize>)
    where
        K: std::borrow::Borrow<Q>,
    {
        found.extend(self.0.get(key).into_iter().flatten());
    }

    fn all(&self, found: &mut Vec<usize>) {
        found.extend(self.0.values().flatten());
    }
}

/// Puts a slot in once, or takes it out. All rules of a policy come one after the other.
fn apply(slots: &mut Vec<usize>, slot: usize, change: Change) {
    match change {
        Change::Note if slots.last() == Some(&slot) => {}
        Change::Note => slots.push(slot),
        Change::Forget => {
            if let Some(place) = slots.iter().position(|one| *one == slot) {
                slots.swap_remove(place);
            }
        }
    }
}

/// How many keys there are of each length: a look-up is made for each.
#[derive(Debug)]
struct Lengths<L>(BTreeMap<L, usize>);

impl<L> Default for Lengths<L> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<L: Ord + Copy> Lengths<L> {
    fn change(&mut self, length: L, change: Change) {
        let count = self.0.entry(length).or_default();
        match change {
            Change::Note => *count += 1,
            Change::Forget => *count = count.saturating_sub(1),
        }
        if *count == 0 {
            self.0.remove(&length);
        }
    }

    fn all(&self) -> impl Iterator<Item = L> {
        self.0.keys().copied()
    }
}

/// Slots by what a string begins with; looked up once for each length there is.
#[derive(Debug, Default)]
struct Prefixes {
    places: Places<Str>,
    lengths: Lengths<usize>,
}

impl Prefixes {
    fn change(&mut self, prefix: &Str, slot: usize, change: Change) {
        if self.places.change(prefix.clone(), slot, change) {
            self.lengths.change(prefix.len(), change);
        }
    }

    fn find(&self, text: &str, found: &mut Vec<usize>) {
        for prefix in self.lengths.all().map_while(|length| text.as_bytes().get(..length)) {
            if let Ok(prefix) = std::str::from_utf8(prefix) {
                self.places.find(prefix, found);
            }
        }
    }
}

/// Slots by address range; looked up once for each prefix length there is.
#[derive(Debug, Default)]
struct Ranges {
    places: Places<IpNet>,
    lengths: Lengths<u8>,
}

impl Ranges {
    fn change(&mut self, range: IpNet, slot: usize, change: Change) {
        if self.places.change(range, slot, change) {
            self.lengths.change(range.prefix_len(), change);
        }
    }

    fn find(&self, ip: IpAddr, found: &mut Vec<usize>) {
        for length in self.lengths.all() {
            // A length beyond the family's belongs to ranges of the other.
            if let Ok(range) = IpNet::new(ip.to_canonical(), length) {
                self.places.find(&range.trunc(), found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
