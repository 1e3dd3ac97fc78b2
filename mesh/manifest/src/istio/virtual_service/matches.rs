//! What a rule of a VirtualService applies to. All fields of a match that are set must hold.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A text compared in one of three ways; in `headers` and `withoutHeaders` one that says nothing means that the
/// header is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StringMatch {
    /// The whole text.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// An expression in RE2's syntax that the whole text must fit.
    pub regex: Option<String>,
}

impl StringMatch {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.exact.is_none() && self.prefix.is_none() && self.regex.is_none()
    }
}

/// What a rule for HTTP applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpMatch {
    /// A name, for logs.
    pub name: String,
    /// The path.
    pub uri: Option<StringMatch>,
    /// `http` or `https`, as the client sees it.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority: `Host` or `:authority`.
    pub authority: Option<StringMatch>,
    /// Headers, by name in lower case.
    pub headers: BTreeMap<String, StringMatch>,
    /// The port of the host that is asked.
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that heed this match, instead of those of the VirtualService.
    pub gateways: Vec<String>,
    /// Parameters of the query, by name.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Whether `uri` is compared without case; exact and prefix only.
    pub ignore_uri_case: bool,
    /// Headers that must not be there with such a value.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// The client's namespace.
    pub source_namespace: String,
    /// A prefix of statistics.
    pub stat_prefix: String,
}

/// What a rule for TCP applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpMatch {
    /// Addresses or CIDRs that the connection is for.
    pub destination_subnets: Vec<String>,
    /// The port of the host that is asked.
    pub port: Option<u32>,
    /// Addresses that the connection comes from.
    pub source_subnet: String,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that heed this match, instead of those of the VirtualService.
    pub gateways: Vec<String>,
    /// The client's namespace.
    pub source_namespace: String,
}

/// What a rule for TLS applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsMatch {
    /// Names that the client asks for in its first message; `*.` and a name for all below it.
    pub sni_hosts: Vec<String>,
    /// Addresses or CIDRs that the connection is for.
    pub destination_subnets: Vec<String>,
    /// The port of the host that is asked.
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that heed this match, instead of those of the VirtualService.
    pub gateways: Vec<String>,
    /// The client's namespace.
    pub source_namespace: String,
}
