//! Conditions on requests.

use std::collections::BTreeMap;

use model::address::Str;
use model::route::regex::Allowance;
use model::route::{HeaderKey, HeaderMatch, HttpMatch, PathMatch, QueryMatch, Regex, Scope, TextMatch};
use proto::routing as wire;
use wire::path_match::Kind as PathKind;
use wire::text_match::Kind;

use super::parts::{each, invalid, name, optional, optional_name, optional_port, required, text};
use super::{FieldError, Reason, Strings};

/// Whether the case of a text says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Counts,
    Ignored,
}

pub(super) fn http_match(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::HttpMatch,
) -> Result<HttpMatch, FieldError> {
    let mut condition = |field, wire: Option<&wire::TextMatch>, case| {
        optional(field, wire, |one| text_match(strings, regexes, one, case))
    };
    let scheme = condition("scheme", wire.scheme.as_ref(), Case::Counts)?;
    let method = condition("method", wire.method.as_ref(), Case::Counts)?;
    let authority = condition("authority", wire.authority.as_ref(), Case::Ignored)?;
    Ok(HttpMatch {
        name: wire.name.as_deref().map(|name| strings.get(name)),
        scope: scope(strings, wire.scope.as_ref()).map_err(|error| error.within("scope"))?,
        path: optional("path", wire.path.as_ref(), |one| path_match(strings, regexes, one))?,
        ignore_path_case: wire.ignore_path_case,
        scheme,
        method,
        authority,
        headers: each("headers", &wire.headers, |one| header_match(strings, regexes, one))?,
        without_headers: each("without_headers", &wire.without_headers, |one| {
            header_match(strings, regexes, one)
        })?,
        query: each("query", &wire.query, |one| query_match(strings, regexes, one))?,
        stat_prefix: wire.stat_prefix.as_deref().map(|prefix| strings.get(prefix)),
    })
}

/// A scope that is missing takes everybody.
pub(super) fn scope(strings: &mut Strings, wire: Option<&wire::Scope>) -> Result<Scope, FieldError> {
    let Some(wire) = wire else { return Ok(Scope::default()) };
    Ok(Scope {
        port: optional_port("port", wire.port)?,
        source_labels: labels(strings, &wire.source_labels),
        source_namespace: optional_name(strings, "source_namespace", wire.source_namespace.as_ref())?,
    })
}

pub(super) fn labels(strings: &mut Strings, wire: &BTreeMap<String, String>) -> BTreeMap<Str, Str> {
    wire.iter().map(|(key, value)| (strings.get(key), strings.get(value))).collect()
}

fn regex(regexes: &mut Allowance, pattern: &str, case: Case) -> Result<Regex, FieldError> {
    let read = match case {
        Case::Counts => regexes.regex(pattern),
        Case::Ignored => regexes.ignoring_case(pattern),
    };
    read.map_err(|error| invalid("regex", error))
}

/// A condition on a text whose case counts.
pub(super) fn plain_text(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::TextMatch,
) -> Result<TextMatch, FieldError> {
    text_match(strings, regexes, wire, Case::Counts)
}

fn text_match(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::TextMatch,
    case: Case,
) -> Result<TextMatch, FieldError> {
    match required("kind", wire.kind.as_ref())? {
        Kind::Exact(text) => Ok(TextMatch::Exact(strings.get(text))),
        Kind::Prefix(text) => Ok(TextMatch::Prefix(strings.get(text))),
        Kind::Regex(pattern) => regex(regexes, pattern, case).map(TextMatch::Regex),
        Kind::Present(true) => Ok(TextMatch::Present),
        Kind::Present(false) => Err(FieldError::new("present", Reason::Missing)),
    }
}

fn path_match(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::PathMatch,
) -> Result<PathMatch, FieldError> {
    match required("kind", wire.kind.as_ref())? {
        PathKind::Exact(text) => Ok(PathMatch::Exact(strings.get(text))),
        PathKind::Prefix(text) => Ok(PathMatch::Prefix(strings.get(text))),
        PathKind::Regex(pattern) => regex(regexes, pattern, Case::Counts).map(PathMatch::Regex),
    }
}

fn header_match(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::HeaderMatch,
) -> Result<HeaderMatch, FieldError> {
    let form = Reason::Form { text: wire.name.clone(), form: "a header's name" };
    let key = HeaderKey::parse(&wire.name).ok_or(FieldError::new("name", form))?;
    let case = if key == HeaderKey::Authority { Case::Ignored } else { Case::Counts };
    let value = required("value", wire.value.as_ref())?;
    let value = text_match(strings, regexes, value, case).map_err(|error| error.within("value"))?;
    Ok(HeaderMatch { key, value })
}

fn query_match(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::QueryMatch,
) -> Result<QueryMatch, FieldError> {
    let value = required("value", wire.value.as_ref())?;
    Ok(QueryMatch {
        name: name(strings, "name", &wire.name)?,
        value: plain_text(strings, regexes, value).map_err(|error| error.within("value"))?,
    })
}

pub(super) fn http_match_to_wire(one: &HttpMatch) -> wire::HttpMatch {
    let header = |header: &HeaderMatch| wire::HeaderMatch {
        name: header.key.as_str().to_owned(),
        value: Some(text_match_to_wire(&header.value)),
    };
    let parameter = |one: &QueryMatch| wire::QueryMatch {
        name: text(&one.name),
        value: Some(text_match_to_wire(&one.value)),
    };
    wire::HttpMatch {
        name: one.name.as_ref().map(text),
        scope: scope_to_wire(&one.scope),
        path: one.path.as_ref().map(path_match_to_wire),
        ignore_path_case: one.ignore_path_case,
        scheme: one.scheme.as_ref().map(text_match_to_wire),
        method: one.method.as_ref().map(text_match_to_wire),
        authority: one.authority.as_ref().map(text_match_to_wire),
        headers: one.headers.iter().map(header).collect(),
        without_headers: one.without_headers.iter().map(header).collect(),
        query: one.query.iter().map(parameter).collect(),
        stat_prefix: one.stat_prefix.as_ref().map(text),
    }
}

pub(super) fn scope_to_wire(scope: &Scope) -> Option<wire::Scope> {
    (*scope != Scope::default()).then(|| wire::Scope {
        port: scope.port.unwrap_or_default().into(),
        source_labels: labels_to_wire(&scope.source_labels),
        source_namespace: scope.source_namespace.as_ref().map(text),
    })
}

pub(super) fn labels_to_wire(labels: &BTreeMap<Str, Str>) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (text(key), text(value))).collect()
}

pub(super) fn text_match_to_wire(one: &TextMatch) -> wire::TextMatch {
    let kind = match one {
        TextMatch::Exact(exact) => Kind::Exact(text(exact)),
        TextMatch::Prefix(prefix) => Kind::Prefix(text(prefix)),
        TextMatch::Regex(regex) => Kind::Regex(text(regex.pattern())),
        TextMatch::Present => Kind::Present(true),
    };
    wire::TextMatch { kind: Some(kind) }
}

fn path_match_to_wire(one: &PathMatch) -> wire::PathMatch {
    let kind = match one {
        PathMatch::Exact(exact) => PathKind::Exact(text(exact)),
        PathMatch::Prefix(prefix) => PathKind::Prefix(text(prefix)),
        PathMatch::Regex(regex) => PathKind::Regex(text(regex.pattern())),
    };
    wire::PathMatch { kind: Some(kind) }
}
