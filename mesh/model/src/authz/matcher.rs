//! Whether a rule matches a connection or request, in three values.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Clause, Facts, Match, Rule, ServiceAccountMatch, StringMatch};
use crate::address::Str;
use crate::identity::Identity;

/// Kleene's three values: what depends on an attribute that cannot be seen is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// It does not hold.
    No,
    /// It depends on what cannot be seen here.
    Unknown,
    /// It holds.
    Yes,
}

impl Truth {
    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// The same, where the other is only asked if it matters.
    fn and_if(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::No { self } else { self.and(other()) }
    }

    fn or(self, other: Self) -> Self {
        self.max(other)
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

impl Rule {
    /// Whether the rule matches: all of its clauses do.
    pub fn matches<'a>(&self, facts: impl Into<Facts<'a>>) -> Truth {
        let facts = &facts.into();
        let mut all = Truth::Yes;
        for clause in &self.clauses {
            all = all.and(clause.matches(facts));
            // Nothing brings it back, and most rules are about others.
            if all == Truth::No {
                break;
            }
        }
        all
    }

    /// The attributes of the rule that no enforcer sees, in the order written, each once.
    pub fn unseen(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.matches_of_all().flat_map(|one| one.unseen.iter()) {
            if !names.contains(&&**name) {
                names.push(name);
            }
        }
        names
    }

    /// The same, and those that cannot be told of these facts.
    pub(super) fn unknown(&self, facts: &Facts<'_>) -> Vec<Str> {
        let mut names: Vec<Str> = Vec::new();
        for one in self.matches_of_all() {
            let of_request = one.request.iter().flat_map(|request| request.unknown(facts));
            let destination = (one.destination_holds(facts) == Truth::Unknown).then(|| "destination".into());
            for name in one.unseen.iter().cloned().chain(of_request).chain(destination) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    fn matches_of_all(&self) -> impl Iterator<Item = &Match> {
        self.clauses.iter().flat_map(|clause| clause.matches.iter())
    }
}

impl Clause {
    fn matches(&self, facts: &Facts<'_>) -> Truth {
        if self.matches.is_empty() {
            return Truth::Yes;
        }
        let mut any = Truth::No;
        for one in &self.matches {
            any = any.or(one.holds(facts));
            if any == Truth::Yes {
                break;
            }
        }
        any
    }
}

impl Match {
    /// Whether nothing at all is restricted.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.not_namespaces.is_empty()
            && self.principals.is_empty()
            && self.not_principals.is_empty()
            && self.service_accounts.is_empty()
            && self.not_service_accounts.is_empty()
            && self.source_ips.is_empty()
            && self.not_source_ips.is_empty()
            && self.destination_ips.is_empty()
            && self.not_destination_ips.is_empty()
            && self.destination_ports.is_empty()
            && self.not_destination_ports.is_empty()
            && self.unseen.is_empty()
            && self.request.as_ref().is_none_or(|request| request.is_empty())
    }

    /// Whether all that the match restricts holds.
    fn holds(&self, facts: &Facts<'_>) -> Truth {
        if self.is_empty() {
            return Truth::No;
        }
        let unseen = if self.unseen.is_empty() { Truth::Yes } else { Truth::Unknown };
        self.source_holds(facts)
            .and_if(|| self.destination_holds(facts))
            .and(unseen)
            .and_if(|| self.request.as_ref().map_or(Truth::Yes, |request| request.holds(facts)))
    }

    fn source_holds(&self, facts: &Facts<'_>) -> Truth {
        let namespace = facts.identity.map(|identity| &**identity.namespace());
        let in_namespace =
            |wanted: &StringMatch| namespace.is_some_and(|namespace| wanted.matches(namespace)).into();
        let is_principal = |wanted: &StringMatch| {
            facts.identity.is_some_and(|identity| wanted.matches_principal(identity)).into()
        };
        let is_account = |wanted: &ServiceAccountMatch| {
            facts.identity.is_some_and(|identity| wanted.matches(identity)).into()
        };
        let from = |range: &IpNet| contains(range, facts.source.ip()).into();
        restricts(&self.namespaces, &self.not_namespaces, in_namespace)
            .and_if(|| restricts(&self.principals, &self.not_principals, is_principal))
            .and_if(|| restricts(&self.service_accounts, &self.not_service_accounts, is_account))
            .and_if(|| restricts(&self.source_ips, &self.not_source_ips, from))
    }

    fn destination_holds(&self, facts: &Facts<'_>) -> Truth {
        let known = |holds: &dyn Fn(SocketAddr) -> bool| {
            facts.destination.map_or(Truth::Unknown, |destination| holds(destination).into())
        };
        let to = |range: &IpNet| known(&|destination| contains(range, destination.ip()));
        let on = |port: &u16| known(&|destination| *port == destination.port());
        restricts(&self.destination_ips, &self.not_destination_ips, to)
            .and_if(|| restricts(&self.destination_ports, &self.not_destination_ports, on))
    }
}

/// One of `positive`, if there are any, and none of `negative`.
pub(super) fn restricts<T>(positive: &[T], negative: &[T], is: impl Fn(&T) -> Truth) -> Truth {
    let one_of = |wanted: &[T]| {
        let mut any = Truth::No;
        for one in wanted {
            any = any.or(is(one));
            if any == Truth::Yes {
                break;
            }
        }
        any
    };
    let wanted = if positive.is_empty() { Truth::Yes } else { one_of(positive) };
    wanted.and_if(|| one_of(negative).not())
}

/// A dual-stack socket reports IPv4 peers as v4-mapped; they are the IPv4 addresses that the range means.
pub(super) fn contains(range: &IpNet, ip: IpAddr) -> bool {
    range.contains(&ip.to_canonical())
}

impl StringMatch {
    /// Whether the value matches.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => &**wanted == value,
            Self::Prefix(wanted) => value.starts_with(&**wanted),
            Self::Suffix(wanted) => value.ends_with(&**wanted),
            Self::Presence => !value.is_empty(),
        }
    }

    /// Whether the value matches, which need not be text.
    pub(super) fn matches_bytes(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == value,
            Self::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            Self::Suffix(wanted) => value.ends_with(wanted.as_bytes()),
            Self::Presence => !value.is_empty(),
        }
    }

    /// Compares with `<trust domain>/ns/<namespace>/sa/<account>` without building that string.
    fn matches_principal(&self, identity: &Identity) -> bool {
        const NS: &str = "/ns/";
        const SA: &str = "/sa/";
        let parts = [&**identity.trust_domain(), NS, identity.namespace(), SA, identity.service_account()];
        match self {
            Self::Exact(wanted) => {
                let length: usize = parts.iter().map(|part| part.len()).sum();
                wanted.len() == length && begins(&parts, wanted)
            }
            Self::Prefix(wanted) => begins(&parts, wanted),
            Self::Suffix(wanted) => ends(&parts, wanted),
            Self::Presence => true,
        }
    }
}

/// Whether the concatenated parts begin with `wanted`.
fn begins(parts: &[&str], wanted: &str) -> bool {
    let mut rest = wanted.as_bytes();
    for part in parts {
        let common = part.len().min(rest.len());
        if part.as_bytes()[..common] != rest[..common] {
            return false;
        }
        rest = &rest[common..];
        if rest.is_empty() {
            return true;
        }
    }
    rest.is_empty()
}

/// Whether the concatenated parts end with `wanted`.
fn ends(parts: &[&str], wanted: &str) -> bool {
    let mut rest = wanted.as_bytes();
    for part in parts.iter().rev() {
        let common = part.len().min(rest.len());
        if part.as_bytes()[part.len() - common..] != rest[rest.len() - common..] {
            return false;
        }
        rest = &rest[..rest.len() - common];
        if rest.is_empty() {
            return true;
        }
    }
    rest.is_empty()
}

impl ServiceAccountMatch {
    fn matches(&self, identity: &Identity) -> bool {
        self.namespace == *identity.namespace() && self.service_account == *identity.service_account()
    }
}
