//! A rule of a VirtualService for HTTP.

mod actions;
mod headers;

use super::{destinations, matches, one_destination};
use crate::{
    check::{Report, values},
    cursor::Cursor,
    istio::HttpRoute,
};

/// What Envoy retries after, as `retryOn` names it.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// All rules of a rule for HTTP.
pub(super) fn check(
    rule: &Cursor<'_>,
    typed: &HttpRoute,
    in_delegate: bool,
    for_gateways: bool,
    report: &mut Report<'_>,
) {
    what_is_done(rule, typed, in_delegate, report);
    for one in rule.items("match") {
        matches::http(&one, for_gateways, report);
    }
    headers::authority_once(rule, report);
    headers::check(rule, report);
    destinations(rule, report, headers::check);
    mirrors(rule, report);
    values::duration(rule, "timeout", report);
    retries(rule, report);
    actions::rewrite(rule, report);
    actions::redirect(rule, report);
    actions::direct_response(rule, report);
    actions::fault(rule, report);
    actions::cors(rule, report);
    if let Some(delegate) = rule.get("delegate")
        && delegate.get("name").is_none_or(|name| name.text().is_empty())
    {
        let fix = Some("add `name:` of a VirtualService without `hosts`".to_owned());
        report.error(&delegate, "the delegate has no name", fix);
    }
}

/// One thing is done with a request, and only what goes with it stands beside.
fn what_is_done(rule: &Cursor<'_>, typed: &HttpRoute, in_delegate: bool, report: &mut Report<'_>) {
    let not_beside = |what: &str, keys: &[&str], report: &mut Report<'_>| {
        for (key, at) in keys.iter().filter_map(|key| rule.get(key).map(|at| (key, at))) {
            if !at.is_empty() {
                let fix = Some("keep the one that is meant".to_owned());
                report.error_at_key(&at, format!("`{key}` cannot stand beside `{what}`"), fix);
            }
        }
    };
    if typed.delegate.is_some() {
        if in_delegate {
            let fix = Some("name that VirtualService in the first one".to_owned());
            return report.error_at_key(
                &rule.get("delegate").unwrap_or_else(|| rule.clone()),
                "a delegate cannot delegate",
                fix,
            );
        }
        return not_beside("delegate", &["route", "redirect", "directResponse"], report);
    }
    if typed.redirect.is_some() {
        not_beside("redirect", &["route", "directResponse", "fault", "rewrite"], report);
    } else if typed.direct_response.is_some() {
        not_beside("directResponse", &["route", "fault", "rewrite"], report);
    } else if typed.route.is_empty() {
        let fix = Some("add `route:`, `redirect:`, `directResponse:` or `delegate:`".to_owned());
        report.error(rule, "the rule does not say what is done", fix);
    }
}

fn mirrors(rule: &Cursor<'_>, report: &mut Report<'_>) {
    values::only_one(rule, &["mirror", "mirrors"], report);
    values::only_one(rule, &["mirrorPercent", "mirrorPercentage"], report);
    if let Some(mirror) = rule.get("mirror") {
        one_destination(&mirror, report);
    } else if let Some(alone) = rule.get("mirrorPercentage").or_else(|| rule.get("mirrorPercent")) {
        let fix = Some("add `mirror:`; each of `mirrors` has a `percentage` of its own".to_owned());
        report.warning(&alone, "there is no `mirror` that it is for", fix);
    }
    for mirror in rule.items("mirrors") {
        match mirror.get("destination") {
            Some(destination) => one_destination(&destination, report),
            None => report.error(&mirror, "the mirror has no destination", None),
        }
        values::percentage(&mirror, "percentage", report);
    }
    values::whole_percent(rule, "mirrorPercent", report);
    values::percentage(rule, "mirrorPercentage", report);
}

fn retries(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(retries) = rule.get("retries") else { return };
    values::not_negative(&retries, &["attempts"], report);
    let attempts = retries.get("attempts").and_then(|attempts| values::number(&attempts)).unwrap_or_default();
    let others = ["perTryTimeout", "retryOn", "retryRemoteLocalities"];
    if attempts == 0.0
        && let Some(other) = others.iter().find_map(|key| retries.get(key))
    {
        let fix = Some("set `attempts`, or leave everything else out".to_owned());
        report.error_at_key(&other, "with 0 attempts it is never tried again", fix);
    }
    values::duration(&retries, "perTryTimeout", report);
    values::duration(&retries, "backoff", report);
    let Some(on) = retries.get("retryOn").filter(|on| !on.text().is_empty()) else { return };
    for word in on.text().split(',') {
        let status = word.parse::<u16>().is_ok_and(|status| (100..600).contains(&status));
        if !status && !RETRY_ON.contains(&word) {
            let near = crate::suggest::nearest(word.trim(), RETRY_ON);
            let fix = match (word.trim() == word, near) {
                (false, _) => Some("write the list without spaces".to_owned()),
                (true, Some(near)) => Some(format!("did you mean `{near}`?")),
                (true, None) => Some(format!("a status such as 503, or {}", RETRY_ON.join(", "))),
            };
            report.error(&on, format!("`{word}` is nothing that a request is tried again after"), fix);
        }
    }
}
