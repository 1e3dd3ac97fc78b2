//! Which endpoint is chosen.

use std::collections::HashSet;

use super::locality;
use crate::{
    check::{Report, values},
    cursor::Cursor,
};

/// Envoy's largest table.
const MAX_TABLE: f64 = 5_000_011.0;

/// The rules of a `loadBalancer`.
pub(super) fn check(balancer: &Cursor<'_>, finds_unhealthy: bool, report: &mut Report<'_>) {
    values::only_one(balancer, &["simple", "consistentHash"], report);
    if let Some(simple) = balancer.get("simple").filter(|simple| simple.text() == "LEAST_CONN") {
        let fix = Some("write LEAST_REQUEST".to_owned());
        report.warning(&simple, "an old name, read as LEAST_REQUEST", fix);
    }
    if let Some(hash) = balancer.get("consistentHash") {
        consistent_hash(&hash, report);
    }
    if let Some(setting) = balancer.get("localityLbSetting") {
        locality::check(&setting, finds_unhealthy, report);
    }
    values::only_one(balancer, &["warmup", "warmupDurationSecs"], report);
    values::duration(balancer, "warmupDurationSecs", report);
    let Some(warmup) = balancer.get("warmup") else { return };
    match warmup.get("duration") {
        Some(_) => values::duration(&warmup, "duration", report),
        None => report.error(&warmup, "`duration` is missing", Some("add `duration:`".to_owned())),
    }
    if let Some(percent) = warmup.get("minimumPercent")
        && values::number(&percent).is_some_and(|percent| !(0.0..=100.0).contains(&percent))
    {
        report.error(&percent, "not a number from 0 to 100", None);
    }
    if let Some(aggression) = warmup.get("aggression")
        && values::number(&aggression).is_some_and(|aggression| aggression <= 0.0)
    {
        report.error(&aggression, "not a number above 0", None);
    }
}

fn consistent_hash(hash: &Cursor<'_>, report: &mut Report<'_>) {
    let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    if values::says_something(hash, "consistentHash", &keys, report) {
        values::only_one(hash, &keys, report);
    }
    for key in ["httpHeaderName", "httpQueryParameterName"] {
        if let Some(name) = hash.get(key).filter(|name| name.text().is_empty()) {
            report.error(&name, format!("`{key}` is empty"), None);
        }
    }
    if let Some(name) = hash.get("httpHeaderName")
        && !name.text().is_empty()
        && !name.text().starts_with(':')
        && !values::is_header_name(name.text())
    {
        report.error(&name, format!("`{}` cannot be the name of a header", name.text()), None);
    }
    if let Some(cookie) = hash.get("httpCookie") {
        one_cookie(&cookie, report);
    }
    values::only_one(hash, &["minimumRingSize", "ringHash", "maglev"], report);
    if let Some(old) = hash.get("minimumRingSize") {
        let fix = Some("write `ringHash: {minimumRingSize: …}`".to_owned());
        report.warning(&old, "an old place for `ringHash.minimumRingSize`", fix);
    }
    let Some(table) = hash.get("maglev").and_then(|maglev| maglev.get("tableSize")) else { return };
    let Some(size) = values::number(&table) else { return };
    if !(1.0..MAX_TABLE).contains(&size) {
        report.error(&table, "not a number from 1 to 5000010", None);
    } else if !is_prime(size) {
        let fix = next_prime(size).map(|prime| format!("write {prime}, the next one"));
        report.error(&table, "not a prime", fix);
    }
}

fn one_cookie(cookie: &Cursor<'_>, report: &mut Report<'_>) {
    if cookie.get("name").is_none_or(|name| name.text().is_empty()) {
        report.error(cookie, "the cookie has no name", Some("add `name:`".to_owned()));
    }
    let mut names: HashSet<&str> = HashSet::new();
    for attribute in cookie.items("attributes") {
        match attribute.get("name").filter(|name| !name.text().is_empty()) {
            None => report.error(&attribute, "the attribute has no name", None),
            Some(name) if !names.insert(name.text()) => {
                report.error(&name, format!("a second attribute named `{}`", name.text()), None);
            }
            Some(_) => {}
        }
    }
}

fn next_prime(from: f64) -> Option<u64> {
    (from as u64..=MAX_TABLE as u64).find(|number| is_prime(*number as f64))
}

fn is_prime(number: f64) -> bool {
    let number = number as u64;
    number > 1
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}
