//! Single values of a policy: addresses, ports, paths, identities, and the attributes that `when` can name.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Values;
use crate::{check::Report, cursor::Cursor, istio::Action, suggest::nearest};

/// The attributes that `when` can name, as a whole or with a key in brackets.
const ATTRIBUTES: [(&str, Values); 12] = [
    ("source.ip", Values::Ip),
    ("remote.ip", Values::Ip),
    ("source.namespace", Values::Text),
    ("source.principal", Values::Principal),
    ("source.serviceAccount", Values::ServiceAccount),
    ("source.trustDomain", Values::Text),
    ("request.auth.principal", Values::Text),
    ("request.auth.audiences", Values::Text),
    ("request.auth.presenter", Values::Text),
    ("destination.ip", Values::Ip),
    ("destination.port", Values::Port),
    ("connection.sni", Values::Text),
];

/// The attributes that have a key in brackets.
const KEYED: [&str; 3] = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];

/// A condition: a known attribute, at least one value, and values that fit it.
pub(super) fn condition(when: &Cursor<'_>, action: Action, report: &mut Report<'_>) {
    let Some(key) = when.get("key").filter(|key| !key.text().is_empty()) else {
        let fix = Some("add `key:`, such as `key: source.namespace`".to_owned());
        return report.error(when, "the condition has no `key`", fix);
    };
    let name = key.text();
    let wanted = attribute(&key, report);
    let values: Vec<Cursor<'_>> = ["values", "notValues"].iter().flat_map(|key| when.items(key)).collect();
    if values.is_empty() {
        let fix = Some("add `values: [\"…\"]` or `notValues: [\"…\"]`".to_owned());
        report.error(when, format!("the condition on `{name}` has no values"), fix);
    }
    for entry in &values {
        value(entry, wanted.unwrap_or(Values::Text), report);
    }
    let identity =
        name == "source.namespace" || name == "source.principal" || name.starts_with("request.auth.");
    if action == Action::Custom && identity {
        report.error(&key, format!("`{name}` is not possible with CUSTOM"), None);
    }
}

/// What the values of the attribute that `key` names must be; a finding when there is no such attribute.
fn attribute(key: &Cursor<'_>, report: &mut Report<'_>) -> Option<Values> {
    let name = key.text();
    if let Some((_, wanted)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) {
        return Some(*wanted);
    }
    if let Some(prefix) = KEYED.iter().find(|prefix| name.starts_with(**prefix)) {
        // NAME[KEY], where a claim may have several keys: `request.auth.claims[a][b]`.
        let open = name.find('[');
        if open.is_none_or(|open| !name.ends_with(']') || open + 2 >= name.len()) {
            let fix = Some(format!("write `{prefix}[NAME]`"));
            report.error(key, format!("`{name}` has no key in brackets"), fix);
        }
        return None;
    }
    let fix = match name {
        "destination.namespace" => Some("a policy is for the namespace in its metadata".to_owned()),
        _ if name.starts_with("destination.labels") => Some("use the policy's selector".to_owned()),
        _ => {
            let bare = name.split('[').next().unwrap_or(name);
            let known = ATTRIBUTES.iter().map(|(known, _)| *known).chain(KEYED);
            nearest(bare, known).map(|word| match KEYED.contains(&word) {
                true => format!("did you mean `{word}[NAME]`?"),
                false => format!("did you mean `{word}`?"),
            })
        }
    };
    report.error(key, format!("there is no attribute `{name}`"), fix);
    None
}

/// One value of a list.
pub(super) fn value(value: &Cursor<'_>, wanted: Values, report: &mut Report<'_>) {
    let text = value.text();
    if text.is_empty() {
        return report.error(
            value,
            "an empty value",
            Some("write the value, or leave the item out".to_owned()),
        );
    }
    match wanted {
        Values::Text => {}
        Values::Ip => ip(value, report),
        Values::Port => port(value, report),
        Values::Path => path(value, report),
        Values::Principal => principal(value, report),
        Values::ServiceAccount => service_account(value, report),
    }
}

fn ip(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    let (address, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else {
        let fix = Some("such as `10.1.2.3`, `10.1.0.0/16` or `fd00::/8`".to_owned());
        return report.error(value, format!("`{text}` is neither an address nor a CIDR"), fix);
    };
    let Some(length) = length else { return };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let canonical = length.len() == 1 || !length.starts_with('0');
    match length.parse::<u8>() {
        Ok(length) if length <= most && canonical => {
            if let Ok(net) = IpNet::new(address, length)
                && net.trunc().addr() != address
            {
                let message = format!("`{text}` means the whole network {}", net.trunc());
                report.warning(
                    value,
                    message,
                    Some(format!("write `{}`, or `{address}` for the one address", net.trunc())),
                );
            }
        }
        _ => {
            let fix = Some(format!("a length from 0 to {most}"));
            report.error(value, format!("`{text}` is not a CIDR: `/{length}` is not a prefix length"), fix);
        }
    }
}

fn port(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits || text.parse::<u16>().is_err() {
        let fix =
            Some("a number from 0 to 65535 in quotes, such as \"8080\"; one item for each port".to_owned());
        report.error(value, format!("`{text}` is not a port number"), fix);
    }
}

/// `{*}` stands for one segment and `{**}` for anything that follows; nothing else can stand in braces, and such a template
/// has no other wildcard. What no canonical path has (`docs/decisions/0012`) is never matched.
fn path(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    if text.contains("{*}") || text.contains("{**}") {
        template(value, report);
    }
    let odd = ["//", "/./", "/../", "?", "#", "\\", "%2F", "%2f", "%5C", "%5c"];
    if let Some(odd) = odd.iter().find(|odd| text.contains(**odd)) {
        let message = format!("`{text}`: no path has `{odd}` when it is compared, so this matches none");
        let fix = "write the path without query, `//`, dot segments and escaped slashes".to_owned();
        report.warning(value, message, Some(fix));
    }
}

fn template(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    let (start, end) = text.split_once("{**}").map_or((text, None), |(start, end)| (start, Some(end)));
    let literals: Vec<&str> = start.split("{*}").collect();
    let many = start.len() < text.len();
    let varies = end.is_some_and(|end| end.contains("{*}") || end.contains("{**}"));
    let (message, fix) = if varies {
        (": nothing that varies can follow `{**}`", "let `{**}` come last, and only once")
    } else if literals.iter().chain(&end).any(|literal| literal.contains(['{', '}', '*'])) {
        let fix = "use only `{*}` for one segment and `{**}` for several, as in `/shops/{*}/items`";
        (" is not a path template", fix)
    } else if !are_segments(&literals, many) {
        let fix = "put a slash before `{*}` and `{**}`, and behind `{*}`, as in `/shops/{*}/items/{**}`";
        (": `{*}` and `{**}` stand for whole segments", fix)
    } else {
        return;
    };
    report.error(value, format!("`{text}`{message}"), Some(fix.to_owned()));
}

/// Whether what stands between `{*}`, and before `{**}` if there is one, parts segments.
fn are_segments(literals: &[&str], many: bool) -> bool {
    let last = literals.len() - 1;
    literals.iter().enumerate().all(|(place, literal)| {
        let ends = place == last && !many;
        (literal.starts_with('/') || place > 0 && ends && literal.is_empty())
            && (ends || literal.ends_with('/'))
    })
}

fn principal(value: &Cursor<'_>, report: &mut Report<'_>) {
    if let Some(bare) = value.text().strip_prefix("spiffe://") {
        let message = "a principal is written without `spiffe://`; with it, it matches nobody";
        report.error(value, message, Some(format!("write `{bare}`")));
    }
}

/// `NAMESPACE/NAME`, or `NAME` in the policy's own namespace.
fn service_account(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    let ok = text.len() <= 320
        && !text.contains('*')
        && text.split('/').count() <= 2
        && text.split('/').all(|part| !part.is_empty());
    if !ok {
        let fix = Some("write `NAMESPACE/NAME`, or `NAME` for one of the policy's namespace; wildcards need `principals`".to_owned());
        report.error(value, format!("`{text}` is not a service account"), fix);
    }
}
