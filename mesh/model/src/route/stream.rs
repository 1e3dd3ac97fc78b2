//! Rules for connections that are not opened (`VirtualService.spec.tls[]`) and for others (`.tcp[]`).

use std::net::SocketAddr;

use ipnet::IpNet;

use super::action::{Destination, Destinations};
use super::condition::Scope;
use super::{Cause, Routing, RuleSource};
use crate::address::Str;
use crate::request::Client;
use crate::select::Draw;

/// A rule for TLS connections that are passed on.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsRule {
    /// Where it was written.
    pub source: RuleSource,
    /// Any of these must hold. The API asks for one at least; without any, none holds.
    pub matches: Box<[TlsMatch]>,
    /// Where to.
    pub destinations: Destinations,
    /// References that do not resolve.
    pub missing: Box<[Str]>,
}

/// A rule for other connections.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRule {
    /// Where it was written.
    pub source: RuleSource,
    /// Any of these must hold; without any, the rule takes everything.
    pub matches: Box<[TcpMatch]>,
    /// Where to.
    pub destinations: Destinations,
    /// References that do not resolve.
    pub missing: Box<[Str]>,
}

/// A condition on a TLS connection (`TLSMatchAttributes`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsMatch {
    /// `sniHosts`: the server's name as the client says it is one of these.
    pub sni_hosts: Box<[SniMatch]>,
    /// The rest.
    pub tcp: TcpMatch,
}

/// A condition on a connection (`L4MatchAttributes`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TcpMatch {
    /// `port`, `sourceLabels`, `sourceNamespace`.
    pub scope: Scope,
    /// `destinationSubnets`: the address that the client wanted is in one of these; without any, in whichever.
    pub destination_subnets: Box<[IpNet]>,
}

/// A server's name, or a wildcard: `*` is any, `*.example.com` anything below, at any depth. Whatever the case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SniMatch(Str);

/// A connection to choose a destination for.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The original client.
    pub client: Client<'a>,
    /// Where it wanted to.
    pub destination: SocketAddr,
    /// The server's name that its ClientHello says, if it is TLS.
    pub server_name: Option<&'a str>,
}

/// Where a connection goes, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamDecision<'a> {
    /// What decided.
    pub cause: Cause<'a>,
    /// Where to. `Err`: nowhere; which references of the rule are missing, if that is why.
    pub destination: Result<&'a Destination, &'a [Str]>,
}

impl SniMatch {
    /// A name or a wildcard, in whichever case.
    pub fn new(host: &str) -> Self {
        Self(host.to_ascii_lowercase().into())
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &Str {
        &self.0
    }

    fn holds(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(end) => {
                let below = name.len().checked_sub(end.len()).filter(|rest| *rest > 0 || end.is_empty());
                below.is_some_and(|at| name.as_bytes()[at..].eq_ignore_ascii_case(end.as_bytes()))
            }
            None => name.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl TcpMatch {
    fn holds(&self, connection: &Connection<'_>) -> bool {
        let ip = connection.destination.ip().to_canonical();
        self.scope.covers(&connection.client, connection.destination)
            && (self.destination_subnets.is_empty()
                || self.destination_subnets.iter().any(|subnet| subnet.contains(&ip)))
    }
}

impl TlsMatch {
    fn holds(&self, connection: &Connection<'_>, name: &str) -> bool {
        self.sni_hosts.iter().any(|host| host.holds(name)) && self.tcp.holds(connection)
    }
}

/// Where a connection goes: by the first TLS rule that matches if its server's name is known, else by the first TCP rule,
/// else to the service itself, as in Istio.
pub fn select_stream<'a>(
    routing: &'a Routing,
    connection: &Connection<'_>,
    draw: Draw<'_>,
) -> StreamDecision<'a> {
    let tls = connection.server_name.and_then(|name| {
        routing.tls.iter().find(|rule| rule.matches.iter().any(|one| one.holds(connection, name)))
    });
    let tcp = || {
        let holds = |one: &TcpMatch| one.holds(connection);
        routing.tcp.iter().find(|rule| rule.matches.is_empty() || rule.matches.iter().any(holds))
    };
    let rule = tls
        .map(|rule| (&rule.source, &rule.destinations, &rule.missing))
        .or_else(|| tcp().map(|rule| (&rule.source, &rule.destinations, &rule.missing)));
    let (cause, destinations, missing) = match (rule, &routing.default) {
        (Some((source, destinations, missing)), _) => (Cause::Rule(source), destinations, missing),
        (None, Some(default)) => (Cause::Default(&routing.host), &default.destinations, &default.missing),
        (None, None) => {
            return StreamDecision { cause: Cause::NoRule(&routing.host), destination: Err(&[]) };
        }
    };
    StreamDecision { cause, destination: destinations.choose(draw).ok_or(&missing[..]) }
}

#[cfg(test)]
mod tests;
