//! A rule for HTTP, in the model's words.

mod actions;
mod headers;

use std::sync::Arc;

use manifest::istio::{HttpRoute, Mirror as WrittenMirror, Percent};
use model::address::Str;
use model::route::action::PathRewrite;
use model::route::{
    Action, Destinations, Forward, Fraction, HeaderChanges, HttpRule, Mirror, RetryOn, RetryPolicy,
};

use super::delegate::Expanded;
use super::http_match::http_match;
use super::layer4;
use super::lookup::mesh_matches;
use super::references::{References, Written};

/// The rule; `None` where it is for gateways alone. One that cannot be read takes everything and answers that it cannot:
/// what it would have taken is not known, and nothing must slip past it.
pub(super) fn rule(expanded: &Expanded, references: &mut References<'_>) -> Option<HttpRule> {
    let route = &expanded.route;
    let matches = mesh_matches(route)?;
    let regexes = &mut references.room.regexes;
    let matches: Result<Box<[_]>, String> = matches.into_iter().map(|one| http_match(one, regexes)).collect();
    let rest = matches.and_then(|matches| Ok((matches, translated(expanded, references)?)));
    let (matches, rest) = rest.unwrap_or_else(|reason| {
        let missing = [references.miss(&expanded.source, reason)].into();
        let action = Action::Forward(Box::new(Forward { missing, ..Forward::default() }));
        (Box::default(), Rest { action, headers: HeaderChanges::default(), fault: None, cors: None })
    });
    Some(HttpRule {
        source: expanded.source.clone(),
        name: layer4::word(&route.name),
        matches,
        action: rest.action,
        headers: rest.headers,
        fault: rest.fault,
        cors: rest.cors,
    })
}

/// All of a rule but what it applies to.
struct Rest {
    action: Action,
    headers: HeaderChanges,
    fault: Option<Box<model::route::Fault>>,
    cors: Option<Box<model::route::Cors>>,
}

fn translated(expanded: &Expanded, references: &mut References<'_>) -> Result<Rest, String> {
    let route = &expanded.route;
    let action = match (&route.redirect, &route.direct_response, &expanded.missing) {
        (_, _, Some(missing)) => {
            let missing = [references.miss(&expanded.source, missing.clone())].into();
            Action::Forward(Box::new(Forward { missing, ..Forward::default() }))
        }
        (Some(redirect), _, None) => Action::Redirect(Box::new(actions::redirect(redirect)?)),
        (None, Some(response), None) => Action::Respond(Box::new(actions::direct_response(response)?)),
        (None, None, None) => Action::Forward(Box::new(forward(expanded, references)?)),
    };
    let regexes = &mut references.room.regexes;
    Ok(Rest {
        action,
        headers: headers::changes(route.headers.as_ref())?,
        fault: route.fault.as_ref().map(actions::fault).transpose()?.flatten().map(Box::new),
        cors: route.cors_policy.as_ref().map(|cors| actions::cors(cors, regexes)).transpose()?.map(Box::new),
    })
}

fn forward(expanded: &Expanded, references: &mut References<'_>) -> Result<Forward, String> {
    let (route, source) = (&expanded.route, &expanded.source);
    let mut written = Vec::new();
    for one in &route.route {
        let headers = headers::changes(one.headers.as_ref())?;
        written.push(Written { destination: &one.destination, weight: one.weight, headers });
    }
    let (destinations, mut missing): (Destinations, Vec<Str>) = references.all(source, written);
    let mut mirrors = Vec::new();
    for (destination, share) in mirrored(route)? {
        match references.one(destination, HeaderChanges::default()) {
            Ok(destination) => mirrors.push(Mirror { destination, share }),
            Err(what) => missing.push(references.miss(source, what)),
        }
    }
    let (rewrite_path, rewrite_authority) = match &route.rewrite {
        None => (None, None),
        Some(rewrite) => {
            let path = match &rewrite.uri_regex_rewrite {
                Some(regex) => {
                    let substitution = references.room.regexes.substitution(&regex.matched, &regex.rewrite);
                    Some(PathRewrite::Regex(substitution.map_err(|error| error.to_string())?))
                }
                None => layer4::word(&rewrite.uri).map(PathRewrite::Replace),
            };
            (path, layer4::word(&rewrite.authority))
        }
    };
    Ok(Forward {
        destinations,
        missing: missing.into(),
        rewrite_path,
        rewrite_authority,
        timeout: route.timeout.map(|timeout| timeout.0),
        retry: retry(route)?,
        mirrors: mirrors.into(),
    })
}

/// Who is sent copies, and of how many requests.
fn mirrored(route: &HttpRoute) -> Result<Vec<(&manifest::istio::Destination, Fraction)>, String> {
    let mut all = Vec::new();
    if let Some(mirror) = &route.mirror {
        let share = match (route.mirror_percentage, route.mirror_percent) {
            (Some(percent), _) => fraction(percent)?,
            (None, Some(percent)) => whole(f64::from(percent))?,
            (None, None) => Fraction::ALL,
        };
        all.push((mirror, share));
    }
    for WrittenMirror { destination, percentage } in &route.mirrors {
        all.push((destination, percentage.map_or(Ok(Fraction::ALL), fraction)?));
    }
    all.retain(|(_, share)| *share != Fraction::NONE);
    Ok(all)
}

/// A part of a hundred.
pub(super) fn fraction(percent: Percent) -> Result<Fraction, String> {
    whole(percent.value)
}

/// The same, as a number.
pub(super) fn whole(percent: f64) -> Result<Fraction, String> {
    Fraction::percent(percent).ok_or_else(|| format!("{percent} is not a part of a hundred"))
}

/// Istio's default where nothing is said; never with 0 attempts.
fn retry(route: &HttpRoute) -> Result<Option<Arc<RetryPolicy>>, String> {
    let Some(written) = &route.retries else { return Ok(Some(RetryPolicy::shared_default())) };
    let attempts = u32::try_from(written.attempts).unwrap_or_default();
    if attempts == 0 {
        return Ok(None);
    }
    let mut policy = RetryPolicy { attempts, ..RetryPolicy::default() };
    if !written.retry_on.is_empty() {
        let (on, codes) = RetryOn::parse(&written.retry_on).map_err(|error| error.to_string())?;
        (policy.on, policy.status_codes) = (on, codes);
    }
    policy.per_try_timeout = written.per_try_timeout.map(|timeout| timeout.0);
    policy.backoff = written.backoff.map_or(policy.backoff, |backoff| backoff.0);
    policy.remote_localities = written.retry_remote_localities.unwrap_or_default();
    policy.ignore_previous_hosts = written.retry_ignore_previous_hosts;
    Ok(Some(Arc::new(policy)))
}
