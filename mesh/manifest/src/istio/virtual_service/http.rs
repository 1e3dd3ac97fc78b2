//! A rule of a VirtualService for HTTP: what is done with the requests that it matches.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{Destination, HttpMatch, Percent, StringMatch};
use crate::istio::Duration;

/// A rule for HTTP. One of `route`, `redirect`, `direct_response` and `delegate` says what is done.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRoute {
    /// A name, for logs.
    pub name: String,
    /// One of these must match; none: everything does.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where to.
    pub route: Vec<HttpDestination>,
    /// The client is sent elsewhere.
    pub redirect: Option<Redirect>,
    /// The answer itself.
    pub direct_response: Option<DirectResponse>,
    /// The VirtualService whose rules go on.
    pub delegate: Option<Delegate>,
    /// Changes of the path and the authority.
    pub rewrite: Option<Rewrite>,
    /// How long the whole answer may take.
    pub timeout: Option<Duration>,
    /// Whether it is tried again.
    pub retries: Option<Retries>,
    /// Faults on purpose.
    pub fault: Option<Fault>,
    /// Another destination that is sent the same, its answer thrown away.
    pub mirror: Option<Destination>,
    /// Several of them.
    pub mirrors: Vec<Mirror>,
    /// How much of it is mirrored; the older form, in whole numbers.
    pub mirror_percent: Option<u32>,
    /// How much of it is mirrored.
    pub mirror_percentage: Option<Percent>,
    /// Which pages of other origins may ask.
    pub cors_policy: Option<CorsPolicy>,
    /// Changes of headers.
    pub headers: Option<Headers>,
}

/// One of the destinations of a rule for HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpDestination {
    /// The destination.
    pub destination: Destination,
    /// Its part of the sum of all weights; the only one has all.
    pub weight: i32,
    /// Changes of headers of what goes there.
    pub headers: Option<Headers>,
}

/// A VirtualService without hosts, whose rules are put in the place of the one that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; empty for that of who refers to it.
    pub namespace: String,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Headers {
    /// Of the request.
    pub request: Option<HeaderOperations>,
    /// Of the answer.
    pub response: Option<HeaderOperations>,
}

/// Changes of headers of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HeaderOperations {
    /// In the place of what was there.
    pub set: BTreeMap<String, String>,
    /// Beside what was there.
    pub add: BTreeMap<String, String>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// The client is sent elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Redirect {
    /// The whole path.
    pub uri: String,
    /// The authority.
    pub authority: String,
    /// The port.
    pub port: Option<u32>,
    /// Where the port comes from.
    pub derive_port: Option<PortSelection>,
    /// `http` or `https`.
    pub scheme: String,
    /// The status; 301 where none is said.
    pub redirect_code: Option<u32>,
    /// In the place of the prefix that matched.
    pub prefix_rewrite: String,
}

/// Where the port of a redirect comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PortSelection {
    /// 80 for http, 443 for https.
    #[default]
    FromProtocolDefault,
    /// That of the request.
    FromRequestPort,
}

/// The answer itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DirectResponse {
    /// Its status.
    pub status: u32,
    /// Its body.
    pub body: Option<HttpBody>,
}

/// A body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpBody {
    /// As text.
    pub string: Option<String>,
    /// As bytes, in Base64.
    pub bytes: Option<String>,
}

impl HttpBody {
    /// The body's bytes; `None` where they are not Base64.
    pub fn content(&self) -> Option<Vec<u8>> {
        match (&self.string, &self.bytes) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(coded)) => STANDARD.decode(coded).ok(),
            (None, None) => Some(Vec::new()),
        }
    }
}

/// Changes of the path and the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rewrite {
    /// In the place of the path, or of the prefix that matched.
    pub uri: String,
    /// In the place of the authority.
    pub authority: String,
    /// Changes the path by an expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// Changes a text by an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegexRewrite {
    /// What is looked for, in RE2's syntax.
    #[serde(rename = "match")]
    pub matched: String,
    /// What is put there; `\1` is the first group.
    pub rewrite: String,
}

/// Whether it is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retries {
    /// How often; 0 is never.
    pub attempts: i32,
    /// How long each try may take.
    pub per_try_timeout: Option<Duration>,
    /// After what, separated by commas.
    pub retry_on: String,
    /// Whether endpoints of other localities may be tried.
    pub retry_remote_localities: Option<bool>,
    /// Whether endpoints that were tried are left out.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// How long is waited before the second retry, at most; 25 ms where nothing is said.
    pub backoff: Option<Duration>,
}

/// Faults on purpose.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Fault {
    /// Waiting before the request goes on.
    pub delay: Option<Delay>,
    /// Answering in the place of the destination.
    pub abort: Option<Abort>,
}

/// Waiting before the request goes on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Delay {
    /// Of how many requests; the older form, in whole numbers.
    pub percent: Option<i32>,
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// Istio has a name for it and nothing else.
    pub exponential_delay: Option<Duration>,
    /// Of how many requests; none where nothing is said.
    pub percentage: Option<Percent>,
}

/// Answering in the place of the destination.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Abort {
    /// With this status.
    pub http_status: Option<i32>,
    /// With this status of gRPC, by name, such as `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    /// Istio has a name for it and nothing else.
    pub http2_error: Option<String>,
    /// Of how many requests; none where nothing is said.
    pub percentage: Option<Percent>,
}

/// Another destination that is sent the same.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Mirror {
    /// The destination.
    pub destination: Destination,
    /// Of how many requests; all where nothing is said.
    pub percentage: Option<Percent>,
}

/// Which pages of other origins may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CorsPolicy {
    /// Origins, compared as they are; the older form of `allow_origins`.
    pub allow_origin: Vec<String>,
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Headers that may be sent.
    pub allow_headers: Vec<String>,
    /// Headers of the answer that the page may see.
    pub expose_headers: Vec<String>,
    /// How long the answer to a preflight may be remembered.
    pub max_age: Option<Duration>,
    /// Whether requests may carry credentials.
    pub allow_credentials: Option<bool>,
    /// What becomes of a preflight whose origin does not match.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of a preflight whose origin does not match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum UnmatchedPreflights {
    /// As [`Self::Forward`].
    #[default]
    Unspecified,
    /// It goes on to the destination.
    Forward,
    /// It is answered with 200 and without any header of CORS.
    Ignore,
}
