//! What a rule for HTTP applies to, in the model's words.

use manifest::istio::{HttpMatch as Written, StringMatch};
use model::route::{HeaderKey, HeaderMatch, HttpMatch, PathMatch, QueryMatch, Regex, Scope, TextMatch};

use super::layer4;

/// One match.
///
/// # Errors
/// What of it cannot be read, in words.
pub(super) fn http_match(written: &Written) -> Result<HttpMatch, String> {
    let headers = |all: &std::collections::BTreeMap<String, StringMatch>| {
        let one = |(name, value): (&String, &StringMatch)| {
            let key =
                HeaderKey::parse(name).ok_or_else(|| format!("`{name}` cannot be the name of a header"))?;
            Ok(HeaderMatch { key, value: text(value)? })
        };
        all.iter().map(one).collect::<Result<Box<[_]>, String>>()
    };
    let query = |(name, value): (&String, &StringMatch)| {
        Ok(QueryMatch { name: name.as_str().into(), value: text(value)? })
    };
    Ok(HttpMatch {
        name: layer4::word(&written.name),
        scope: Scope {
            port: layer4::port(written.port)?,
            source_labels: layer4::labels(&written.source_labels),
            source_namespace: layer4::word(&written.source_namespace),
        },
        path: written.uri.as_ref().map(path).transpose()?.flatten(),
        ignore_path_case: written.ignore_uri_case,
        scheme: something(written.scheme.as_ref(), Regex::new)?,
        method: something(written.method.as_ref(), Regex::new)?,
        authority: something(written.authority.as_ref(), Regex::ignoring_case)?,
        headers: headers(&written.headers)?,
        without_headers: headers(&written.without_headers)?,
        query: written.query_params.iter().map(query).collect::<Result<_, String>>()?,
        stat_prefix: layer4::word(&written.stat_prefix),
    })
}

/// The path; `None` where nothing is said of it.
fn path(written: &StringMatch) -> Result<Option<PathMatch>, String> {
    Ok(match (&written.exact, &written.prefix, &written.regex) {
        (Some(exact), _, _) => Some(PathMatch::Exact(exact.as_str().into())),
        (None, Some(prefix), _) => Some(PathMatch::Prefix(prefix.as_str().into())),
        (None, None, Some(regex)) => {
            Some(PathMatch::Regex(Regex::new(regex).map_err(|error| error.to_string())?))
        }
        (None, None, None) => None,
    })
}

type Compile = fn(&str) -> Result<Regex, model::route::regex::InvalidRegex>;

/// A text that is always there; `None` where nothing is said of it.
fn something(written: Option<&StringMatch>, regex: Compile) -> Result<Option<TextMatch>, String> {
    written.filter(|written| !written.is_empty()).map(|written| text_by(written, regex)).transpose()
}

/// A text that may not be there: where nothing is said of it, and for the expression `*`, it only has to be.
pub(super) fn text(written: &StringMatch) -> Result<TextMatch, String> {
    text_by(written, Regex::new)
}

fn text_by(written: &StringMatch, regex: Compile) -> Result<TextMatch, String> {
    Ok(match (&written.exact, &written.prefix, &written.regex) {
        (Some(exact), _, _) => TextMatch::Exact(exact.as_str().into()),
        (None, Some(prefix), _) => TextMatch::Prefix(prefix.as_str().into()),
        (None, None, Some(any)) if any == "*" => TextMatch::Present,
        (None, None, Some(pattern)) => TextMatch::Regex(regex(pattern).map_err(|error| error.to_string())?),
        (None, None, None) => TextMatch::Present,
    })
}
