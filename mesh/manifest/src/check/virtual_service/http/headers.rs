//! Changes of headers, of a rule and of one of its destinations.

use model::route::headers::is_framing;

use crate::{
    check::{Report, values},
    cursor::Cursor,
};

/// Names and values, in both directions.
pub(super) fn check(of: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(headers) = of.get("headers") else { return };
    for direction in ["request", "response"] {
        let Some(operations) = headers.get(direction) else { continue };
        for key in ["set", "add"] {
            for (name, value) in operations.get(key).iter().flat_map(Cursor::fields) {
                name_of(name, &value, direction == "request", report);
                values::header_value(&value, report);
            }
        }
        for name in operations.items("remove") {
            name_of(name.text(), &name, false, report);
        }
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn name_of(name: &str, at: &Cursor<'_>, authority: bool, report: &mut Report<'_>) {
    if authority && is_authority(name) {
        return;
    }
    if name.starts_with(':') || is_authority(name) {
        let fix = match is_authority(name) {
            true => Some("`rewrite.authority` changes that of the request".to_owned()),
            false => None,
        };
        report.error_at_key(at, format!("`{name}` is not a header that can be changed here"), fix);
    } else if !values::is_header_name(name) {
        report.error_at_key(at, format!("`{name}` cannot be the name of a header"), None);
    } else if is_framing(name) {
        report.error_at_key(at, format!("`{name}` frames messages and cannot be changed"), None);
    }
}

/// The authority is changed in one place.
pub(super) fn authority_once(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let rewritten = rule.get("rewrite").and_then(|rewrite| rewrite.get("authority"));
    let rewritten = rewritten.filter(|authority| !authority.text().is_empty());
    let request = rule.get("headers").and_then(|headers| headers.get("request"));
    let operations =
        request.iter().flat_map(|request| ["set", "add"].into_iter().filter_map(|key| request.get(key)));
    let set: Vec<Cursor<'_>> = operations
        .flat_map(|headers| {
            headers.fields().filter(|(name, _)| is_authority(name)).map(|(_, at)| at).collect::<Vec<_>>()
        })
        .collect();
    let extra = if rewritten.is_some() { set.first() } else { set.get(1) };
    if let Some(extra) = extra {
        let fix = Some("change it in one place".to_owned());
        report.error_at_key(extra, "the authority is changed twice", fix);
    }
}
