//! Rules that another VirtualService goes on with: each of the delegate's rules, narrowed by the matches of the rule that
//! names it, as Istio merges them.

use std::collections::BTreeMap;

use manifest::istio::{HttpMatch, HttpRoute, StringMatch};
use model::route::{RuleList, RuleSource};

use super::lookup::{Lookup, Rules};
use super::references::References;
use crate::index::Name;

/// A rule to be translated, and where it was written.
pub(super) struct Expanded {
    pub(super) source: RuleSource,
    pub(super) route: HttpRoute,
    /// The delegate that is not there: the rule answers that it is missing.
    pub(super) missing: Option<String>,
}

/// A rule itself, or the rules of its delegate.
pub(super) fn expand(
    lookup: &Lookup,
    rules: &Rules,
    index: usize,
    route: &HttpRoute,
    references: &mut References<'_>,
) -> Vec<Expanded> {
    let source = source(rules, index);
    // As a rule that cannot be read it takes everything: nothing must slip past it.
    let refused = |source, why| vec![Expanded { source, route: HttpRoute::default(), missing: Some(why) }];
    let Some(delegate) = &route.delegate else {
        return match references.room.rule(route) {
            Ok(()) => vec![Expanded { source, route: route.clone(), missing: None }],
            Err(why) => refused(source, why),
        };
    };
    let name = Name::new(&delegate.namespace, &delegate.name);
    references.delegates.insert(name.clone());
    let Some(found) = lookup.delegate(&name, &rules.name.namespace) else {
        let missing = Some(format!("VirtualService {name} (delegate)"));
        return vec![Expanded { source, route: route.clone(), missing }];
    };
    references.virtual_services.insert(found.name.clone());
    if let Err(why) = references.room.delegated(route, found) {
        return refused(source, format!("{why} (delegate {name})"));
    }
    let merged = found.spec.http.iter().enumerate().filter_map(|(index, inner)| {
        let route = merge(route, inner)?;
        Some(Expanded { source: self::source(found, index), route, missing: None })
    });
    merged.collect()
}

fn source(rules: &Rules, index: usize) -> RuleSource {
    // Bounded by the size of a manifest.
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    RuleSource { resource: rules.resource.clone(), list: RuleList::Http, index }
}

/// A delegate's rule below the rule that names it; `None` where no request can fulfil both.
fn merge(root: &HttpRoute, inner: &HttpRoute) -> Option<HttpRoute> {
    let joined = |root: &str, inner: &str| match (root, inner) {
        (root, "") => root.to_owned(),
        ("", inner) => inner.to_owned(),
        (root, inner) => format!("{root}-{inner}"),
    };
    let own_mirror = inner.mirror.is_some() || !inner.mirrors.is_empty();
    let mirrors = if own_mirror { inner } else { root };
    Some(HttpRoute {
        name: joined(&root.name, &inner.name),
        matches: matches(&root.matches, &inner.matches, &joined)?,
        route: inner.route.clone(),
        redirect: inner.redirect.clone(),
        direct_response: inner.direct_response.clone(),
        delegate: None,
        rewrite: inner.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: inner.timeout.or(root.timeout),
        retries: inner.retries.clone().or_else(|| root.retries.clone()),
        fault: inner.fault.clone().or_else(|| root.fault.clone()),
        mirror: mirrors.mirror.clone(),
        mirrors: mirrors.mirrors.clone(),
        mirror_percent: inner.mirror_percent.or(root.mirror_percent),
        mirror_percentage: inner.mirror_percentage.or(root.mirror_percentage),
        cors_policy: inner.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: inner.headers.clone().or_else(|| root.headers.clone()),
    })
}

/// Every match of the delegate's with every match of the root's that it is within; `None` where one is within none.
fn matches(
    root: &[HttpMatch],
    inner: &[HttpMatch],
    joined: &impl Fn(&str, &str) -> String,
) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || inner.is_empty() {
        return Some(if root.is_empty() { inner } else { root }.to_vec());
    }
    let mut merged = Vec::new();
    for inner in inner {
        let before = merged.len();
        merged
            .extend(root.iter().filter(|root| !conflict(root, inner)).map(|root| both(root, inner, joined)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn both(root: &HttpMatch, inner: &HttpMatch, joined: &impl Fn(&str, &str) -> String) -> HttpMatch {
    fn maps<V: Clone>(root: &BTreeMap<String, V>, inner: &BTreeMap<String, V>) -> BTreeMap<String, V> {
        root.iter().chain(inner).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
    let text =
        |inner: &Option<StringMatch>, root: &Option<StringMatch>| inner.clone().or_else(|| root.clone());
    let word = |inner: &str, root: &str| if inner.is_empty() { root.to_owned() } else { inner.to_owned() };
    HttpMatch {
        name: joined(&root.name, &inner.name),
        uri: text(&inner.uri, &root.uri),
        scheme: text(&inner.scheme, &root.scheme),
        method: text(&inner.method, &root.method),
        authority: text(&inner.authority, &root.authority),
        headers: maps(&root.headers, &inner.headers),
        port: inner.port.or(root.port),
        source_labels: maps(&root.source_labels, &inner.source_labels),
        gateways: if inner.gateways.is_empty() { root.gateways.clone() } else { inner.gateways.clone() },
        query_params: maps(&root.query_params, &inner.query_params),
        ignore_uri_case: inner.ignore_uri_case,
        without_headers: maps(&root.without_headers, &inner.without_headers),
        source_namespace: word(&inner.source_namespace, &root.source_namespace),
        stat_prefix: word(&inner.stat_prefix, &root.stat_prefix),
    }
}

/// Whether a delegate's match is not within the root's.
fn conflict(root: &HttpMatch, inner: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &inner.uri),
        (&root.scheme, &inner.scheme),
        (&root.method, &inner.method),
        (&root.authority, &inner.authority),
    ];
    let maps = [
        (&root.headers, &inner.headers),
        (&root.without_headers, &inner.without_headers),
        (&root.query_params, &inner.query_params),
    ];
    let by_key = |(root, inner): (&BTreeMap<String, StringMatch>, &BTreeMap<String, StringMatch>)| {
        inner.iter().any(|(key, inner)| texts_conflict(root.get(key), Some(inner)))
    };
    texts.into_iter().any(|(root, inner)| texts_conflict(root.as_ref(), inner.as_ref()))
        || maps.into_iter().any(by_key)
        || root.ignore_uri_case != inner.ignore_uri_case
        || matches!((root.port, inner.port), (Some(root), Some(inner)) if root != inner)
        || (!root.source_namespace.is_empty() && root.source_namespace != inner.source_namespace)
        || inner
            .source_labels
            .iter()
            .any(|(key, value)| root.source_labels.get(key).is_some_and(|root| root != value))
        || gateways_conflict(&root.gateways, &inner.gateways)
}

fn gateways_conflict(root: &[String], inner: &[String]) -> bool {
    !root.is_empty() && inner.iter().any(|name| !root.contains(name))
}

fn texts_conflict(root: Option<&StringMatch>, inner: Option<&StringMatch>) -> bool {
    let (Some(root), Some(inner)) = (root, inner) else { return false };
    match (root, inner) {
        // Whether one expression is within another nobody can tell; any other text beside one neither.
        (StringMatch { regex: Some(_), .. }, inner) => !inner.is_empty(),
        (root, StringMatch { regex: Some(_), .. }) => !root.is_empty(),
        (StringMatch { exact: Some(root), .. }, inner) => inner.exact.as_ref() != Some(root),
        (StringMatch { prefix: Some(root), .. }, inner) => {
            let text = inner.prefix.as_ref().or(inner.exact.as_ref());
            text.is_none_or(|text| !text.starts_with(root.as_str()))
        }
        (_, _) => true,
    }
}
