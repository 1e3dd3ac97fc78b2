//! VirtualService (`networking.istio.io`): how what is for a host is routed.

mod http;
mod matches;

use serde::Deserialize;

pub use http::{
    Abort, CorsPolicy, Delay, Delegate, DirectResponse, Fault, HeaderOperations, Headers, HttpBody,
    HttpDestination, HttpRoute, Mirror, PortSelection, Redirect, RegexRewrite, Retries, Rewrite,
    UnmatchedPreflights,
};
pub use matches::{HttpMatch, StringMatch, TcpMatch, TlsMatch};

/// The `spec` of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VirtualService {
    /// The hosts it is for: names, `*.` and a name, or addresses; short names are of its namespace. None: it is a
    /// delegate, which others refer to.
    pub hosts: Vec<String>,
    /// The gateways that heed it; `mesh` stands for everything inside the mesh, and is what an empty list means.
    pub gateways: Vec<String>,
    /// Rules for HTTP; the first that matches counts.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that nobody ends on the way; the first that matches counts.
    pub tls: Vec<TlsRoute>,
    /// Rules for all else; the first that matches counts.
    pub tcp: Vec<TcpRoute>,
    /// The namespaces whose traffic heeds it: `.` for its own, `*` for all, which is what an empty list means.
    pub export_to: Vec<String>,
}

/// A rule for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsRoute {
    /// One of these must match.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// A rule for TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpRoute {
    /// One of these must match; none: everything does.
    #[serde(rename = "match")]
    pub matches: Vec<TcpMatch>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// One of the destinations of a rule for TLS or TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteDestination {
    /// The destination.
    pub destination: Destination,
    /// Its part of the sum of all weights; the only one has all.
    pub weight: i32,
}

/// A service, or a subset of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Destination {
    /// The service's name; a short name is of the namespace of the rule.
    pub host: String,
    /// The subset, as a DestinationRule of the host names it; empty for all of the service.
    pub subset: String,
    /// The service's port; may be left out where the service has one port, else it is that of the request.
    pub port: Option<PortSelector>,
}

/// A port by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PortSelector {
    /// The number, 1 to 65535.
    pub number: u32,
}

/// A part of a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Percent {
    /// 0 to 100, in steps of 0.0001.
    pub value: f64,
}

impl VirtualService {
    /// Whether others refer to it, instead of it being for hosts of its own.
    pub fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether traffic inside the mesh heeds it.
    pub fn is_for_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|name| name == "mesh")
    }
}
