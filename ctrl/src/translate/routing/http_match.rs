//! What a rule for HTTP applies to, in the model's words.

use std::collections::BTreeMap;

use manifest::istio::{HttpMatch as Written, StringMatch};
use model::route::regex::{Allowance, InvalidRegex};
use model::route::{HeaderKey, HeaderMatch, HttpMatch, PathMatch, QueryMatch, Regex, Scope, TextMatch};

use super::layer4;

/// One match.
///
/// # Errors
/// What of it cannot be read, in words.
pub(super) fn http_match(written: &Written, regexes: &mut Allowance) -> Result<HttpMatch, String> {
    Ok(HttpMatch {
        name: layer4::word(&written.name),
        scope: Scope {
            port: layer4::port(written.port)?,
            source_labels: layer4::labels(&written.source_labels),
            source_namespace: layer4::word(&written.source_namespace),
        },
        path: written.uri.as_ref().map(|uri| path(uri, regexes)).transpose()?.flatten(),
        ignore_path_case: written.ignore_uri_case,
        scheme: something(written.scheme.as_ref(), |pattern| regexes.regex(pattern))?,
        method: something(written.method.as_ref(), |pattern| regexes.regex(pattern))?,
        authority: something(written.authority.as_ref(), |pattern| regexes.ignoring_case(pattern))?,
        headers: headers(&written.headers, regexes)?,
        without_headers: headers(&written.without_headers, regexes)?,
        query: query(&written.query_params, regexes)?,
        stat_prefix: layer4::word(&written.stat_prefix),
    })
}

fn headers(
    all: &BTreeMap<String, StringMatch>,
    regexes: &mut Allowance,
) -> Result<Box<[HeaderMatch]>, String> {
    let one = |(name, value): (&String, &StringMatch)| {
        let key = HeaderKey::parse(name).ok_or_else(|| format!("`{name}` cannot be the name of a header"))?;
        let value = match key {
            HeaderKey::Authority => text_by(value, |pattern| regexes.ignoring_case(pattern))?,
            _ => text(value, regexes)?,
        };
        Ok(HeaderMatch { key, value })
    };
    all.iter().map(one).collect()
}

fn query(all: &BTreeMap<String, StringMatch>, regexes: &mut Allowance) -> Result<Box<[QueryMatch]>, String> {
    let one = |(name, value): (&String, &StringMatch)| {
        Ok(QueryMatch { name: name.as_str().into(), value: text(value, regexes)? })
    };
    all.iter().map(one).collect()
}

/// The path; `None` where nothing is said of it.
fn path(written: &StringMatch, regexes: &mut Allowance) -> Result<Option<PathMatch>, String> {
    Ok(match (&written.exact, &written.prefix, &written.regex) {
        (Some(exact), _, _) => Some(PathMatch::Exact(exact.as_str().into())),
        (None, Some(prefix), _) => Some(PathMatch::Prefix(prefix.as_str().into())),
        (None, None, Some(regex)) => {
            Some(PathMatch::Regex(regexes.regex(regex).map_err(|error| error.to_string())?))
        }
        (None, None, None) => None,
    })
}

type Compiled = Result<Regex, InvalidRegex>;

/// A text that is always there; `None` where nothing is said of it.
fn something(
    written: Option<&StringMatch>,
    regex: impl FnOnce(&str) -> Compiled,
) -> Result<Option<TextMatch>, String> {
    written.filter(|written| !written.is_empty()).map(|written| text_by(written, regex)).transpose()
}

/// A text that may not be there: where nothing is said of it, and for the expression `*`, it only has to be.
pub(super) fn text(written: &StringMatch, regexes: &mut Allowance) -> Result<TextMatch, String> {
    text_by(written, |pattern| regexes.regex(pattern))
}

fn text_by(written: &StringMatch, regex: impl FnOnce(&str) -> Compiled) -> Result<TextMatch, String> {
    Ok(match (&written.exact, &written.prefix, &written.regex) {
        (Some(exact), _, _) => TextMatch::Exact(exact.as_str().into()),
        (None, Some(prefix), _) => TextMatch::Prefix(prefix.as_str().into()),
        (None, None, Some(any)) if any == "*" => TextMatch::Present,
        (None, None, Some(pattern)) => TextMatch::Regex(regex(pattern).map_err(|error| error.to_string())?),
        (None, None, None) => TextMatch::Present,
    })
}
