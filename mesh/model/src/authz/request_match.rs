//! What a rule may ask of a request, and whatever else `istio.security` has no field for. The wire to node agents cannot
//! carry it; the one to waypoints does.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::matcher::{contains, restricts};
use super::path_match::PathMatch;
use super::{Facts, Match, Sni, StringMatch, Truth};
use crate::address::Str;
use crate::request::Request;

/// Attributes, ANDed; an empty list does not restrict. What the enforcer does not see of them is
/// [`Truth::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestMatch {
    /// The method is one of these; upper and lower case differ (RFC 9110, 9.1).
    pub methods: Vec<StringMatch>,
    /// … is none of these.
    pub not_methods: Vec<StringMatch>,
    /// The canonical path (`model::path`), without the query, is like one of these.
    pub paths: Vec<PathMatch>,
    /// … is like none of these.
    pub not_paths: Vec<PathMatch>,
    /// The host is one of these, which are in lower case.
    pub hosts: Vec<StringMatch>,
    /// … is none of these.
    pub not_hosts: Vec<StringMatch>,
    /// Each of these headers is as it says.
    pub headers: Vec<HeaderMatch>,
    /// The client's address beyond the proxies that passed the request on is in one of these ranges.
    pub remote_ips: Vec<IpNet>,
    /// … is in none of these.
    pub not_remote_ips: Vec<IpNet>,
    /// The trust domain of the client's identity is one of these.
    pub trust_domains: Vec<StringMatch>,
    /// … is none of these.
    pub not_trust_domains: Vec<StringMatch>,
    /// The server name that the client's own TLS asks for is one of these.
    pub sni: Vec<StringMatch>,
    /// … is none of these.
    pub not_sni: Vec<StringMatch>,
}

/// What a rule asks of one header. Each of its values stands for itself: they are never joined, and where a rule holds of
/// some only, it is [`Truth::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// Its value is one of these; [`StringMatch::Presence`] is met by an empty value, too.
    pub values: Vec<StringMatch>,
    /// Its value is none of these; so it is where there is no such header.
    pub not_values: Vec<StringMatch>,
}

/// An attribute by its name in the API, and whether it is as a match wants it.
type Attribute = (&'static str, fn(&RequestMatch, &Facts<'_>) -> Truth);

/// All but the headers, the cheapest first.
const ATTRIBUTES: [Attribute; 6] = [
    ("to.operation.methods", RequestMatch::method),
    ("to.operation.paths", RequestMatch::path),
    ("to.operation.hosts", RequestMatch::host),
    ("source.trustDomain", RequestMatch::trust_domain),
    ("remote.ip", RequestMatch::remote_ip),
    ("connection.sni", RequestMatch::server_name),
];

impl RequestMatch {
    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that is restricted holds.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Truth {
        let mut all = Truth::Yes;
        for (_, attribute) in ATTRIBUTES {
            all = all.and(attribute(self, facts));
            if all == Truth::No {
                return all;
            }
        }
        self.headers.iter().fold(all, |all, header| all.and(header.holds(facts)))
    }

    /// The attributes that cannot be told, by their names in the API.
    pub(super) fn unknown(&self, facts: &Facts<'_>) -> impl Iterator<Item = Str> {
        let unknown = |(name, attribute): Attribute| {
            (attribute(self, facts) == Truth::Unknown).then(|| Str::from(name))
        };
        let header = |header: &HeaderMatch| {
            let unknown = header.holds(facts) == Truth::Unknown;
            unknown.then(|| Str::from(header.to_string()))
        };
        ATTRIBUTES.into_iter().filter_map(unknown).chain(self.headers.iter().filter_map(header))
    }

    /// Everything that is restricted, by its names in the API.
    fn names(&self) -> impl Iterator<Item = Str> {
        let names = [
            ("to.operation.methods", !self.methods.is_empty() || !self.not_methods.is_empty()),
            ("to.operation.paths", !self.paths.is_empty() || !self.not_paths.is_empty()),
            ("to.operation.hosts", !self.hosts.is_empty() || !self.not_hosts.is_empty()),
            ("source.trustDomain", !self.trust_domains.is_empty() || !self.not_trust_domains.is_empty()),
            ("remote.ip", !self.remote_ips.is_empty() || !self.not_remote_ips.is_empty()),
            ("connection.sni", !self.sni.is_empty() || !self.not_sni.is_empty()),
        ];
        let headers = self.headers.iter().map(|header| Str::from(header.to_string()));
        names.into_iter().filter(|(_, restricted)| *restricted).map(|(name, _)| name.into()).chain(headers)
    }

    fn method(&self, facts: &Facts<'_>) -> Truth {
        restricts(&self.methods, &self.not_methods, |wanted| {
            asked(facts, |request| wanted.matches(request.method.as_str()).into())
        })
    }

    fn path(&self, facts: &Facts<'_>) -> Truth {
        restricts(&self.paths, &self.not_paths, |wanted| {
            asked(facts, |request| wanted.matches(request.path).into())
        })
    }

    fn host(&self, facts: &Facts<'_>) -> Truth {
        restricts(&self.hosts, &self.not_hosts, |wanted| {
            asked(facts, |request| host_is(wanted, request.authority))
        })
    }

    fn trust_domain(&self, facts: &Facts<'_>) -> Truth {
        restricts(&self.trust_domains, &self.not_trust_domains, |wanted| {
            facts.identity.is_some_and(|identity| wanted.matches(identity.trust_domain())).into()
        })
    }

    fn remote_ip(&self, facts: &Facts<'_>) -> Truth {
        restricts(&self.remote_ips, &self.not_remote_ips, |range| came_from(range, facts))
    }

    fn server_name(&self, facts: &Facts<'_>) -> Truth {
        restricts(&self.sni, &self.not_sni, |wanted| match facts.sni {
            Sni::Unseen => Truth::Unknown,
            Sni::Absent => Truth::No,
            Sni::Name(name) => wanted.matches(name).into(),
        })
    }
}

impl HeaderMatch {
    /// Of a header by its name in lower case; nothing where no header has such a name.
    pub fn new(name: &str, values: Vec<StringMatch>, not_values: Vec<StringMatch>) -> Option<Self> {
        let name = HeaderName::from_lowercase(name.as_bytes()).ok()?;
        Some(Self { name, values, not_values })
    }

    fn holds(&self, facts: &Facts<'_>) -> Truth {
        asked(facts, |request| {
            let among = |wanted: &[StringMatch]| self.among(request.headers, wanted);
            let wanted = if self.values.is_empty() { Truth::Yes } else { among(&self.values) };
            wanted.and(among(&self.not_values).not())
        })
    }

    /// Whether the header's value is one of these. Of several that disagree nobody knows which one the application goes
    /// by: no rule lets such a request through for one of them, and none is walked around by a second.
    fn among(&self, headers: &HeaderMap, wanted: &[StringMatch]) -> Truth {
        let is_one = |value: &HeaderValue| {
            let is = |one: &StringMatch| *one == StringMatch::Presence || one.matches_bytes(value.as_bytes());
            wanted.iter().any(is)
        };
        let mut values = headers.get_all(&self.name).iter().map(is_one);
        match values.next() {
            None => Truth::No,
            Some(first) if values.all(|other| other == first) => first.into(),
            Some(_) => Truth::Unknown,
        }
    }
}

/// The attribute's name in the API.
impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "when[request.headers[{}]]", self.name)
    }
}

impl Match {
    /// What is left of a match where nothing can be said of requests: the names of what is asked of them, as what
    /// cannot be seen. It lets through no more than the match itself, and refuses no less.
    pub fn at_layer_4(&self) -> Cow<'_, Self> {
        let Some(request) = &self.request else { return Cow::Borrowed(self) };
        let mut unseen = self.unseen.clone();
        unseen.extend(request.names());
        Cow::Owned(Self { unseen, request: None, ..self.clone() })
    }
}

/// Whether something holds of the request, if it can be seen.
fn asked<'a>(facts: &Facts<'a>, holds: impl FnOnce(&'a Request<'a>) -> Truth) -> Truth {
    facts.request.map_or(Truth::Unknown, holds)
}

/// Hosts are compared with what was sent, as Istio does. Where a client adds a port or a dot that the rule does not speak
/// of, the rule neither lets through nor can be walked around: unknown.
fn host_is(wanted: &StringMatch, authority: &str) -> Truth {
    let bare = bare_host(authority);
    let as_sent = wanted.matches(authority);
    if !as_sent && bare != authority && wanted.matches(bare) { Truth::Unknown } else { as_sent.into() }
}

/// The host without its port and the dot of the root.
fn bare_host(authority: &str) -> &str {
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if digits(port) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether the original client's address is in a range. As long as nobody says how many proxies are to be believed, each
/// address of `X-Forwarded-For` may be it, and the client's own: where they disagree, or where what it names is no address or
/// too many, it is unknown.
fn came_from(range: &IpNet, facts: &Facts<'_>) -> Truth {
    let own = contains(range, facts.source.ip());
    let Some(request) = facts.request else { return own.into() };
    let agrees = |named: &[IpAddr]| named.iter().all(|ip| contains(range, *ip) == own);
    if request.forwarded().is_some_and(agrees) { own.into() } else { Truth::Unknown }
}

#[cfg(test)]
mod tests;
