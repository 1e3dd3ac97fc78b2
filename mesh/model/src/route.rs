//! Routing at layer 7: what becomes of a request, and which rule says so.
//!
//! One [`Routing`] per host, compiled by the controller and replaced as a whole (design decision D4). All of this is
//! pure; what a waypoint does with a request is a list of calls:
//!
//! ```text
//!  select    the rule, and of it the destination, redirect or answer      ─► Decision, with its Cause
//!  cors      a preflight is answered, a response gets its headers         ─► Cors
//!  fault     a delay or an answer that the rule injects                   ─► Fault
//!  head      path, authority and headers as they are sent on, or back     ─► Changes
//!  timeout   how long all of it may take, and each try                    ─► Timeouts
//!  retry     whether a try that failed is made again, and after how long  ─► Verdict
//!  mirror    who is sent a copy
//!  stream    the same choice for a connection that is not HTTP
//! ```
//!
//! The semantics are those of Istio's VirtualService as Envoy executes it; where they differ on purpose, the item says
//! so. Randomness is the caller's [`Draw`](crate::select::Draw).

pub mod action;
pub mod condition;
pub mod cors;
pub mod fault;
pub mod head;
pub mod headers;
pub mod index;
pub mod mirror;
pub mod redirect;
pub mod regex;
pub mod retry;
pub mod select;
pub mod stream;
pub mod template;
pub mod text;
pub mod timeout;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use self::action::{Action, Destination, Destinations, DirectResponse, Forward, Weighted};
pub use self::condition::{HeaderKey, HeaderMatch, HttpMatch, PathMatch, QueryMatch, Scope};
pub use self::cors::Cors;
pub use self::fault::Fault;
pub use self::headers::{HeaderChanges, Operations};
pub use self::mirror::Mirror;
pub use self::redirect::Redirect;
pub use self::regex::Regex;
pub use self::retry::{RetryOn, RetryPolicy};
pub use self::select::{Decision, Forwarding, Outcome, select};
pub use self::stream::{TcpRule, TlsRule};
pub use self::text::TextMatch;
use crate::address::{NamespacedHostname, Str};
use crate::traffic;

/// What becomes of all traffic to one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The host: a service, or a host that a VirtualService alone defines, possibly a wildcard (`*.example.com`).
    pub host: NamespacedHostname,
    /// Rules for HTTP requests; the first that matches decides.
    pub http: Box<[HttpRule]>,
    /// Rules for TLS connections that are passed on unopened.
    pub tls: Box<[TlsRule]>,
    /// Rules for other connections.
    pub tcp: Box<[TcpRule]>,
    /// Where traffic goes for which there are no rules: the service itself. `None` where the host is no service.
    pub default: Option<Box<Forward>>,
    /// Subsets and traffic policies of the hosts that the rules name. A host that is not here has the defaults.
    pub destinations: BTreeMap<NamespacedHostname, Arc<traffic::Destination>>,
}

impl Routing {
    /// That of a service for which there are no rules: to its endpoints. What a waypoint has of a service that it was told
    /// no routing of.
    pub fn by_default(host: NamespacedHostname) -> Self {
        Self {
            default: Some(Box::new(Forward::to_service(host.clone()))),
            host,
            http: Box::default(),
            tls: Box::default(),
            tcp: Box::default(),
            destinations: BTreeMap::new(),
        }
    }

    /// Whether it says no more than [`Routing::by_default`], so that nobody has to be told of it.
    pub fn is_by_default(&self) -> bool {
        self.http.is_empty()
            && self.tls.is_empty()
            && self.tcp.is_empty()
            && self.destinations.is_empty()
            && self.default.as_deref().is_some_and(|to| *to == Forward::to_service(self.host.clone()))
    }
}

/// A rule for HTTP requests (`VirtualService.spec.http[]`).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// Where it was written.
    pub source: RuleSource,
    /// `name`: what the access log calls the route.
    pub name: Option<Str>,
    /// Any of these must hold; without any, the rule takes everything.
    pub matches: Box<[HttpMatch]>,
    /// What is done.
    pub action: Action,
    /// `headers`: what is changed in request and response, whatever the action.
    pub headers: HeaderChanges,
    /// `fault`.
    pub fault: Option<Box<Fault>>,
    /// `corsPolicy`.
    pub cors: Option<Box<Cors>>,
}

/// Which object a rule comes from and where in it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleSource {
    /// The object.
    pub resource: Arc<ResourceName>,
    /// The list in it: `http`, `tls` or `tcp`.
    pub list: RuleList,
    /// The place in that list, from 0.
    pub index: u32,
}

/// Names an object that a person wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName {
    /// `VirtualService`, `HTTPRoute`, …
    pub kind: Str,
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

/// The lists of rules that an object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleList {
    /// Of HTTP rules.
    Http,
    /// Of rules for TLS that is passed on.
    Tls,
    /// Of rules for TCP.
    Tcp,
}

impl fmt::Display for RuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            RuleList::Http => "http",
            RuleList::Tls => "tls",
            RuleList::Tcp => "tcp",
        };
        write!(f, "{} {list}[{}]", self.resource, self.index)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What decided (D3): said in the access log, in traces and by `lateen explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'a> {
    /// A rule.
    Rule(&'a RuleSource),
    /// No rule is for this traffic: it goes to the service itself.
    Default(&'a NamespacedHostname),
    /// There are rules for this traffic, and none of them matched.
    NoRule(&'a NamespacedHostname),
}

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(source) => source.fmt(f),
            Self::Default(host) => write!(f, "default routing of {host}"),
            Self::NoRule(host) => write!(f, "no rule for {host} matched"),
        }
    }
}

/// A share of all requests, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fraction(u32);

/// The whole, in millionths.
const WHOLE: u32 = 1_000_000;

impl Fraction {
    /// No request.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(WHOLE);

    /// So many millionths, at most all.
    pub fn millionths(share: u32) -> Self {
        Self(share.min(WHOLE))
    }

    /// A percentage as the API has it (`percentage.value`), to the ten-thousandth of a percent, rest cut off as Istio
    /// does; `None` unless it lies in 0 to 100.
    pub fn percent(value: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&value) {
            return None;
        }
        // From 0 to 1,000,000.
        Some(Self((value * 10_000.0) as u32))
    }

    /// The share in millionths.
    pub fn as_millionths(self) -> u32 {
        self.0
    }

    /// Whether this request is among them.
    pub fn drawn(self, draw: crate::select::Draw<'_>) -> bool {
        match self.0 {
            0 => false,
            WHOLE => true,
            share => draw(WHOLE) < share,
        }
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
