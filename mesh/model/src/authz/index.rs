//! Many policies, of which a connection need only be judged by the few that could match.
//!
//! For a rule to match, each of its clauses must have a match that holds. So a rule is noted under what one clause
//! asks of the client's name or address or of the port, and a policy is looked at only where one of its rules is
//! noted under what the connection has. Rules that cannot be noted so are always looked at.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use super::decide::Ballot;
use super::{Clause, Match, Policy, Rule, StringMatch, Subject};
use crate::address::Str;
use crate::workload::PolicyName;

/// So few policies are looked at one after the other.
const SCANNED_UP_TO: usize = 8;

/// Policies in the order of their names, so that the first to decide does not depend on the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Indexed {
    policies: Vec<Arc<Policy>>,
    /// Made by the first who asks after a change.
    index: OnceLock<Index>,
}

impl Indexed {
    pub(crate) fn insert(&mut self, policy: &Arc<Policy>) {
        match self.place(&policy.name) {
            Ok(place) => self.policies[place] = policy.clone(),
            Err(place) => self.policies.insert(place, policy.clone()),
        }
        self.index = OnceLock::new();
    }

    pub(crate) fn remove(&mut self, name: &PolicyName) {
        if let Ok(place) = self.place(name) {
            self.policies.remove(place);
            self.index = OnceLock::new();
        }
    }

    fn place(&self, name: &PolicyName) -> Result<usize, usize> {
        self.policies.binary_search_by(|policy| policy.name.cmp(name))
    }

    pub(crate) fn all(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Lets all policies be heard that have something to say on a connection.
    pub(crate) fn hear(&self, ballot: &mut Ballot, subject: &Subject<'_>) {
        if self.policies.len() <= SCANNED_UP_TO {
            self.policies.iter().for_each(|policy| ballot.take(policy, subject));
            return;
        }
        let index = self.index.get_or_init(|| Index::new(&self.policies));
        for place in index.candidates(subject) {
            ballot.take(&self.policies[place], subject);
        }
    }
}

/// Places of policies by what one of their rules needs.
#[derive(Debug, Default)]
struct Index {
    always: Vec<usize>,
    principals: Prefixes,
    namespaces: Prefixes,
    accounts: Places<(Str, Str)>,
    sources: Ranges,
    destinations: Ranges,
    ports: Places<u16>,
}

impl Index {
    fn new(policies: &[Arc<Policy>]) -> Self {
        let mut index = Self::default();
        for (place, policy) in policies.iter().enumerate() {
            if policy.invalid.is_some() {
                index.always.push(place);
            }
            policy.rules.iter().for_each(|rule| index.note(rule, place));
        }
        index
    }

    fn note(&mut self, rule: &Rule, place: usize) {
        let needs = rule.clauses.iter().filter_map(needs_of_clause);
        match needs.min_by_key(|needs| needs.iter().map(Need::breadth).max()) {
            Some(needs) => needs.into_iter().for_each(|need| self.note_need(need, place)),
            None => self.always.push(place),
        }
    }

    fn note_need(&mut self, need: Need<'_>, place: usize) {
        match need {
            Need::Principal(prefix) => self.principals.note(prefix, place),
            Need::Namespace(prefix) => self.namespaces.note(prefix, place),
            Need::Account(namespace, account) => {
                self.accounts.note((namespace.clone(), account.clone()), place);
            }
            Need::Source(range) => self.sources.note(range, place),
            Need::Destination(range) => self.destinations.note(range, place),
            Need::Port(port) => self.ports.note(port, place),
        }
    }

    /// The places of all policies that have something to say on a connection, and some more, in order.
    fn candidates(&self, subject: &Subject<'_>) -> Vec<usize> {
        let mut found = self.always.clone();
        if let Some(identity) = subject.identity {
            let uri = identity.to_string();
            self.principals.find(uri.strip_prefix("spiffe://").unwrap_or(&uri), &mut found);
            self.namespaces.find(identity.namespace(), &mut found);
            let account = (identity.namespace().clone(), identity.service_account().clone());
            self.accounts.find(&account, &mut found);
        }
        self.sources.find(subject.source.ip(), &mut found);
        self.destinations.find(subject.destination.ip(), &mut found);
        self.ports.find(&subject.destination.port(), &mut found);
        found.sort_unstable();
        found.dedup();
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
}

impl Need<'_> {
    /// How many connections are likely to have it: of the clauses of a rule, the one that needs the rarest is noted.
    fn breadth(&self) -> u8 {
        match self {
            Self::Principal(_) | Self::Account(..) => 0,
            Self::Source(_) => 1,
            Self::Namespace(_) => 2,
            Self::Destination(_) => 3,
            Self::Port(_) => 4,
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
    if !one.destination_ips.is_empty() {
        return Some(one.destination_ips.iter().map(|range| Need::Destination(range.trunc())).collect());
    }
    if !one.destination_ports.is_empty() {
        return Some(one.destination_ports.iter().map(|port| Need::Port(*port)).collect());
    }
    None
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

/// Places of policies by a key.
#[derive(Debug)]
struct Places<K>(HashMap<K, Vec<usize>>);

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Places<K> {
    fn note(&mut self, key: K, place: usize) {
        let places = self.0.entry(key).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q, found: &mut Vec<usize>)
    where
        K: std::borrow::Borrow<Q>,
    {
        found.extend(self.0.get(key).into_iter().flatten());
    }
}

/// Places by what a string begins with; looked up once for each length there is.
#[derive(Debug, Default)]
struct Prefixes {
    places: Places<Str>,
    lengths: BTreeSet<usize>,
}

impl Prefixes {
    fn note(&mut self, prefix: &Str, place: usize) {
        self.lengths.insert(prefix.len());
        self.places.note(prefix.clone(), place);
    }

    fn find(&self, text: &str, found: &mut Vec<usize>) {
        for prefix in self.lengths.iter().map_while(|length| text.as_bytes().get(..*length)) {
            if let Ok(prefix) = std::str::from_utf8(prefix) {
                self.places.find(prefix, found);
            }
        }
    }
}

/// Places by address range; looked up once for each prefix length there is.
#[derive(Debug, Default)]
struct Ranges {
    places: Places<IpNet>,
    lengths: BTreeSet<u8>,
}

impl Ranges {
    fn note(&mut self, range: IpNet, place: usize) {
        self.lengths.insert(range.prefix_len());
        self.places.note(range, place);
    }

    fn find(&self, ip: IpAddr, found: &mut Vec<usize>) {
        for length in &self.lengths {
            // A length beyond the family's belongs to ranges of the other.
            if let Ok(range) = IpNet::new(ip.to_canonical(), *length) {
                self.places.find(&range.trunc(), found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
