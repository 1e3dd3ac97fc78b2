//! Whether a rule matches a connection, in three values.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Clause, Match, Rule, ServiceAccountMatch, StringMatch, Subject};
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
    fn and(self, other: Self) -> Self {
        self.min(other)
    }

    fn or(self, other: Self) -> Self {
        self.max(other)
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

impl Rule {
    /// Whether the rule matches: all of its clauses do.
    pub fn matches(&self, subject: &Subject<'_>) -> Truth {
        let mut all = Truth::Yes;
        for clause in &self.clauses {
            all = all.and(clause.matches(subject));
            // Nothing brings it back, and most rules are about others.
            if all == Truth::No {
                break;
            }
        }
        all
    }

    /// The attributes of the rule that layer 4 cannot see, in the order written, each once.
    pub fn unseen(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.clauses.iter().flat_map(|clause| clause.matches.iter()).flat_map(|m| m.unseen.iter())
        {
            if !names.contains(&&**name) {
                names.push(name);
            }
        }
        names
    }
}

impl Clause {
    fn matches(&self, subject: &Subject<'_>) -> Truth {
        if self.matches.is_empty() {
            return Truth::Yes;
        }
        let mut any = Truth::No;
        for one in &self.matches {
            any = any.or(one.holds(subject));
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
    }

    /// Whether all that the match restricts holds.
    fn holds(&self, subject: &Subject<'_>) -> Truth {
        if self.is_empty() {
            return Truth::No;
        }
        let seen = self.source_holds(subject) && self.destination_holds(subject);
        let unseen = if self.unseen.is_empty() { Truth::Yes } else { Truth::Unknown };
        Truth::from(seen).and(unseen)
    }

    fn source_holds(&self, subject: &Subject<'_>) -> bool {
        let namespace = subject.identity.map(|identity| &**identity.namespace());
        let in_namespace =
            |wanted: &StringMatch| namespace.is_some_and(|namespace| wanted.matches(namespace));
        let is_principal = |wanted: &StringMatch| {
            subject.identity.is_some_and(|identity| wanted.matches_principal(identity))
        };
        let is_account =
            |wanted: &ServiceAccountMatch| subject.identity.is_some_and(|identity| wanted.matches(identity));
        let from = |range: &IpNet| contains(range, subject.source.ip());
        restricts(&self.namespaces, &self.not_namespaces, in_namespace)
            && restricts(&self.principals, &self.not_principals, is_principal)
            && restricts(&self.service_accounts, &self.not_service_accounts, is_account)
            && restricts(&self.source_ips, &self.not_source_ips, from)
    }

    fn destination_holds(&self, subject: &Subject<'_>) -> bool {
        let to = |range: &IpNet| contains(range, subject.destination.ip());
        let on = |port: &u16| *port == subject.destination.port();
        restricts(&self.destination_ips, &self.not_destination_ips, to)
            && restricts(&self.destination_ports, &self.not_destination_ports, on)
    }
}

/// One of `positive`, if there are any, and none of `negative`.
fn restricts<T>(positive: &[T], negative: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&matches)) && !negative.iter().any(&matches)
}

/// A dual-stack socket reports IPv4 peers as v4-mapped; they are the IPv4 addresses that the range means.
fn contains(range: &IpNet, ip: IpAddr) -> bool {
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
