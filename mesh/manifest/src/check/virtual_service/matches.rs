//! What rules of a VirtualService apply to.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    check::{Report, hosts, metadata, values},
    cursor::Cursor,
};

/// Headers that stand for parts of the request line.
const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];

/// A match of a rule for HTTP.
pub(super) fn http(one: &Cursor<'_>, for_gateways: bool, report: &mut Report<'_>) {
    for key in ["uri", "scheme", "method", "authority"] {
        let Some(text) = one.get(key) else { continue };
        if kind(&text, report) == 0 {
            let fix = Some(format!("leave `{key}` out to match any"));
            report.warning(&text, format!("`{key}` says nothing, so it matches any"), fix);
        }
        // An empty prefix of the path is every path, as in Envoy; of anything else it is refused there.
        compared(&text, key == "uri", report);
    }
    for key in ["headers", "withoutHeaders"] {
        for (name, value) in one.get(key).iter().flat_map(Cursor::fields) {
            header(name, &value, key, for_gateways, report);
        }
    }
    for (name, value) in one.get("queryParams").iter().flat_map(Cursor::fields) {
        if name.is_empty() {
            report.error_at_key(&value, "a parameter without a name", None);
        }
        if kind(&value, report) == 0 && !value.node.is_null() {
            let fix = Some("write `{regex: \".*\"}` for any value".to_owned());
            report.warning(&value, "it says nothing, so it matches any value that is there", fix);
        }
        compared(&value, false, report);
    }
    if let Some(port) = one.get("port") {
        values::port(&port, report);
    }
    client(one, report);
}

/// A match of a rule for TLS or TCP, but for its names.
pub(super) fn layer4(one: &Cursor<'_>, report: &mut Report<'_>) {
    for subnet in one.items("destinationSubnets") {
        let text = subnet.text();
        if text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
            let fix = Some("such as `10.1.2.3`, `10.1.0.0/16` or `fd00::/8`".to_owned());
            report.error(&subnet, format!("`{text}` is neither an address nor a CIDR"), fix);
        }
    }
    if let Some(port) = one.get("port") {
        values::port(&port, report);
    }
    client(one, report);
}

/// What a match wants of the client, and at which gateway it counts.
fn client(one: &Cursor<'_>, report: &mut Report<'_>) {
    if let Some(labels) = one.get("sourceLabels") {
        metadata::check_labels(&labels, report);
    }
    if let Some(namespace) = one.get("sourceNamespace").filter(|namespace| !namespace.text().is_empty()) {
        metadata::dns_label(&namespace, "a namespace", report);
    }
    hosts::gateways(one, report);
}

/// How many ways to compare a text are named; more than one is told.
fn kind(text: &Cursor<'_>, report: &mut Report<'_>) -> usize {
    let ways = ["exact", "prefix", "regex"];
    values::only_one(text, &ways, report);
    ways.iter().filter(|key| text.get(key).is_some()).count()
}

/// What a text is compared with.
pub(in crate::check) fn compared(text: &Cursor<'_>, empty_prefix: bool, report: &mut Report<'_>) {
    if let Some(prefix) = text.get("prefix").filter(|prefix| prefix.text().is_empty() && !empty_prefix) {
        let fix = Some("leave it out to match any".to_owned());
        report.error(&prefix, "an empty prefix", fix);
    }
    if let Some(regex) = text.get("regex") {
        values::regex(&regex, report);
    }
}

fn header(name: &str, value: &Cursor<'_>, key: &str, for_gateways: bool, report: &mut Report<'_>) {
    if name.starts_with("@request.auth.claims") {
        let message = match for_gateways {
            true => "routing by claims of a token is not supported yet",
            false => "routing by claims of a token is for gateways only",
        };
        return report.error_at_key(value, message, None);
    }
    if !PSEUDO.contains(&name) && !values::is_header_name(name) {
        return report.error_at_key(value, format!("`{name}` cannot be the name of a header"), None);
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        let fix = Some(format!("write `{}`", name.to_ascii_lowercase()));
        report.warning(value, "names of headers are compared in lower case", fix);
    }
    if value.node.is_null() && key == "headers" {
        let fix = Some("write `{}` to ask only whether it is there".to_owned());
        return report.error_at_key(value, "nothing is said about the header", fix);
    }
    kind(value, report);
    // Istio takes the expression `*`, which is none, for any value.
    let any = value.get("regex").is_some_and(|regex| regex.text() == "*") && key == "withoutHeaders";
    if !any {
        compared(value, false, report);
    }
}
