//! What a rule asks of a request (`HTTPMatchRequest`), and whether it holds.
//!
//! All parts of a condition must hold. Paths are compared in their canonical form, without the query. A header that is
//! repeated fulfils a condition if one of its values does, as in Envoy 1.40; older ones joined them by commas first, which
//! let a second value hide the first.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::HeaderName;

use super::regex::Regex;
use super::text::{TextMatch, starts_ignoring_case};
use crate::address::Str;
use crate::request::{Client, Request};

/// A condition on a request: all of it must hold, and what it does not mention is not asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMatch {
    /// `name`, for the access log.
    pub name: Option<Str>,
    /// `port`, `sourceLabels`, `sourceNamespace`.
    pub scope: Scope,
    /// `uri`; `{}` says nothing.
    pub path: Option<PathMatch>,
    /// `ignoreUriCase`: for exact paths and prefixes; a regex says `(?i)` itself.
    pub ignore_path_case: bool,
    /// `scheme`.
    pub scheme: Option<TextMatch>,
    /// `method`.
    pub method: Option<TextMatch>,
    /// `authority`, whatever its case; with the port, if the client sends one. Its regex is
    /// [`Regex::ignoring_case`].
    pub authority: Option<TextMatch>,
    /// `headers`.
    pub headers: Box<[HeaderMatch]>,
    /// `withoutHeaders`: none of these may hold. A header that is not there counts as empty, unless it is only asked
    /// whether it is there.
    pub without_headers: Box<[HeaderMatch]>,
    /// `queryParams`.
    pub query: Box<[QueryMatch]>,
    /// `statPrefix`.
    pub stat_prefix: Option<Str>,
}

/// Which clients and ports a condition is for. Where none of a host's rules is for a client and port, its rules do not
/// count for them at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// `port`: the one that the client wanted.
    pub port: Option<u16>,
    /// `sourceLabels`: the client's workload has all of these.
    pub source_labels: BTreeMap<Str, Str>,
    /// `sourceNamespace`, by the client's identity.
    pub source_namespace: Option<Str>,
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// All of it.
    Exact(Str),
    /// How it begins: text, not segments, so that `/api` takes `/apis`.
    Prefix(Str),
    /// All of it, by a regular expression.
    Regex(Regex),
}

/// A condition on a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Which one.
    pub key: HeaderKey,
    /// What is asked of a value of it.
    pub value: TextMatch,
}

/// What a header's name in a condition stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderKey {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority` or `host`.
    Authority,
    /// `:path`: path and query.
    Path,
    /// Any other.
    Name(HeaderName),
}

/// A condition on a parameter of the query. The first of that name counts; names and values are compared as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name.
    pub name: Str,
    /// What is asked of its value, which is empty where there is no `=`.
    pub value: TextMatch,
}

impl Scope {
    /// Whether this is for a client and the port that it wanted.
    pub fn covers(&self, client: &Client<'_>, destination: SocketAddr) -> bool {
        let label = |(key, value): (&Str, &Str)| {
            client.labels.is_some_and(|labels| labels.get(key).is_some_and(|has| has == value))
        };
        let namespace =
            |wanted: &Str| client.identity.is_some_and(|identity| **identity.namespace() == **wanted);
        self.port.is_none_or(|port| port == destination.port())
            && self.source_labels.iter().all(label)
            && self.source_namespace.as_ref().is_none_or(namespace)
    }
}

impl HttpMatch {
    /// Whether the request fulfils what is asked of it, apart from the [`Scope`].
    pub fn holds(&self, request: &Request<'_>) -> bool {
        let text = |condition: &Option<TextMatch>, value: &str| {
            condition.as_ref().is_none_or(|condition| condition.holds(value.as_bytes()))
        };
        self.path_holds(request.path)
            && text(&self.method, request.method.as_str())
            && text(&self.scheme, request.scheme)
            && self.authority.as_ref().is_none_or(|one| one.holds_ignoring_case(request.authority.as_bytes()))
            && self.headers.iter().all(|header| header.holds(request))
            && self.without_headers.iter().all(|header| header.is_without(request))
            && self.query.iter().all(|parameter| parameter.holds(request.query))
    }

    fn path_holds(&self, path: &str) -> bool {
        match &self.path {
            None => true,
            Some(PathMatch::Exact(exact)) if self.ignore_path_case => path.eq_ignore_ascii_case(exact),
            Some(PathMatch::Exact(exact)) => path == &**exact,
            Some(PathMatch::Prefix(prefix)) if self.ignore_path_case => {
                starts_ignoring_case(path.as_bytes(), prefix.as_bytes())
            }
            Some(PathMatch::Prefix(prefix)) => path.starts_with(&**prefix),
            Some(PathMatch::Regex(regex)) => regex.matches(path.as_bytes()),
        }
    }

    /// How much of a path that fulfils this a rewrite replaces, in bytes: the prefix, or all of it. Where nothing is
    /// asked of the path, that is its first `/`, as Istio then matches by that prefix.
    pub(super) fn matched_length(&self, path: &str) -> usize {
        match &self.path {
            None => path.len().min(1),
            Some(PathMatch::Prefix(prefix)) => prefix.len(),
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => path.len(),
        }
    }
}

impl HeaderKey {
    /// Reads a name. Istio ignores conditions on `uri`, `scheme`, `method` and `authority` under these names; for
    /// those there are fields of their own.
    ///
    /// `None` if no header can have it, or if it is a pseudo-header that there is not.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Some(Self::Method),
            ":scheme" => Some(Self::Scheme),
            ":authority" | "host" => Some(Self::Authority),
            ":path" => Some(Self::Path),
            other => HeaderName::try_from(other).ok().map(Self::Name),
        }
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Name(name) => name.as_str(),
        }
    }

    /// Whether a value of it fulfils a condition; `None` if there is no value.
    fn any(&self, request: &Request<'_>, condition: &TextMatch) -> Option<bool> {
        match self {
            Self::Method => Some(condition.holds(request.method.as_str().as_bytes())),
            Self::Scheme => Some(condition.holds(request.scheme.as_bytes())),
            Self::Authority => Some(condition.holds_ignoring_case(request.authority.as_bytes())),
            Self::Path => Some(condition.holds(path_and_query(request).as_bytes())),
            Self::Name(name) => {
                let mut values = request.headers.get_all(name).iter().peekable();
                values.peek()?;
                Some(values.any(|value| condition.holds(value.as_bytes())))
            }
        }
    }
}

impl HeaderMatch {
    /// A header that is not there fulfils nothing.
    fn holds(&self, request: &Request<'_>) -> bool {
        self.key.any(request, &self.value).unwrap_or(false)
    }

    fn is_without(&self, request: &Request<'_>) -> bool {
        let empty = || self.value != TextMatch::Present && self.value.holds(b"");
        !self.key.any(request, &self.value).unwrap_or_else(empty)
    }
}

impl QueryMatch {
    fn holds(&self, query: Option<&str>) -> bool {
        let mut parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
        let found = parameters.find_map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (name == &*self.name).then_some(value)
        });
        found.is_some_and(|value| self.value.holds(value.as_bytes()))
    }
}

/// The path and, if there is one, the query.
pub(super) fn path_and_query(request: &Request<'_>) -> String {
    match request.query {
        Some(query) => format!("{}?{query}", request.path),
        None => request.path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
