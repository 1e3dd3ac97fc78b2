//! `lateen why`: what the mesh decided of a request or connection, and by which policy and rule; asked of ctrl, which asks
//! every proxy for what it remembers.

use std::process::ExitCode;

use pages::decisions::{Decisions, End, Record};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::args::{VersionFormat, WhyArgs};
use crate::ca::encoded;
use crate::ctrl::{Answer, AskError, ask_all};
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::place::Place;
use crate::table::align;
use crate::{Outcome, complain, say};

/// Runs `why`.
pub(crate) fn run(place: &Place, namespace: Option<&str>, args: &WhyArgs) -> Outcome {
    // A request is looked for wherever it went, unless said otherwise.
    let anywhere = args.all_namespaces || (args.request.is_some() && namespace.is_none());
    let namespace = if anywhere { None } else { Some(namespace.unwrap_or(DEFAULT_NAMESPACE)) };
    let told = joined(&ask_all(place, "GET", &path(args, namespace))?, args.limit)?;
    let Decisions { records, silent } = &told;
    for one in silent {
        complain(&format!("{} does not say what it decided: {}", one.proxy, one.reason));
    }
    match args.output {
        Some(VersionFormat::Json) => say(&format!("{:#}", json!(told))),
        None if records.is_empty() => complain(
            "nothing of that kind is remembered; proxies keep the newest requests and connections, what was refused longest",
        ),
        None => say(table(records).trim_end()),
    }
    Ok(if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What several controllers say, each of its own proxies: the newest first.
fn joined(answers: &[Answer], limit: u16) -> Result<Decisions, AskError> {
    let mut all = Decisions::default();
    for answer in answers {
        let Decisions { records, silent } = answer.read()?;
        all.records.extend(records);
        all.silent.extend(silent);
    }
    all.records.sort_by_key(|record| std::cmp::Reverse(record.begun_micros));
    all.records.truncate(usize::from(limit));
    Ok(all)
}

fn path(args: &WhyArgs, namespace: Option<&str>) -> String {
    let mut path = format!("/decisions?limit={}", args.limit);
    let mut add = |name: &str, value: &str| path.push_str(&format!("&{name}={}", encoded(value)));
    if let Some(namespace) = namespace {
        add("namespace", namespace);
    }
    if let Some(request) = &args.request {
        add("request", request);
    }
    if let Some(since) = args.since {
        add("since", &since.to_string());
    }
    if args.denied {
        add("refused", "");
    }
    path
}

/// One line a record; what decided is the last column, for it may be long.
fn table(records: &[Record]) -> String {
    let header = ["TIME", "PROXY", "CLIENT", "SERVER", "REQUEST", "RESULT", "WHY"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(records.iter().map(|record| {
        vec![
            time(record.begun_micros),
            record.proxy.clone(),
            end(&record.client),
            server(record),
            request(record),
            result(record),
            why(record),
        ]
    }));
    align(&rows)
}

fn time(micros: u64) -> String {
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000);
    at.ok().and_then(|at| at.format(format).ok()).unwrap_or_default()
}

/// `pod.namespace`, or the identity, or the address.
fn end(end: &End) -> String {
    match (end.name.as_str(), end.identity.as_str()) {
        ("", "") => end.address.clone(),
        ("", identity) => identity.to_owned(),
        (name, _) => format!("{name}.{}", end.namespace),
    }
}

fn server(record: &Record) -> String {
    match end(&record.server) {
        unknown if unknown.is_empty() => record.service.clone(),
        known => known,
    }
}

fn request(record: &Record) -> String {
    match &record.request {
        None => record.direction.clone(),
        Some(request) => format!("{} {}{}", request.method, request.authority, request.path),
    }
}

fn result(record: &Record) -> String {
    let status = record.request.as_ref().map_or(0, |request| request.status);
    let (verdict, flags) = (&record.verdict, record.flags.as_str());
    match (status, flags) {
        (0, "-" | "") => verdict.clone(),
        (0, flags) => format!("{verdict} {flags}"),
        (status, "-" | "") => format!("{verdict} {status}"),
        (status, flags) => format!("{verdict} {status} {flags}"),
    }
}

fn why(record: &Record) -> String {
    let detail = if record.verdict == "failed" { record.detail.as_str() } else { "" };
    let parts = [record.policy.as_str(), record.route.as_str(), detail];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_who_asked_what_and_why_not() {
        let record = json!({
            "begunMicros": 45_296_789_000u64, "proxy": "waypoint/shop/way-1", "verdict": "denied", "flags": "-",
            "client": {"namespace": "shop", "name": "cart"}, "server": {}, "service": "reviews.shop.svc.cluster.local",
            "request": {"method": "GET", "authority": "reviews", "path": "/admin", "status": 403},
            "policy": "explicitly denied by: shop/no-admin (rule 0)", "route": "VirtualService shop/reviews http[1]",
        });
        let text = table(&[serde_json::from_value(record).unwrap()]);
        let row = text.lines().nth(1).unwrap();
        for part in [
            "12:34:56.789",
            "cart.shop",
            "reviews.shop.svc.cluster.local",
            "GET reviews/admin",
            "denied 403",
            "explicitly denied by: shop/no-admin (rule 0); VirtualService shop/reviews http[1]",
        ] {
            assert!(row.contains(part), "{part} in {row}");
        }
    }
}
