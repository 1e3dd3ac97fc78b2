//! Rules of a VirtualService for TLS and TCP.

use super::{destinations, matches};
use crate::{
    check::{Report, hosts},
    cursor::Cursor,
};

/// A rule for TLS: names that it is for, within the hosts of the VirtualService, and destinations.
pub(super) fn tls(rule: &Cursor<'_>, hosts: &[String], report: &mut Report<'_>) {
    let all = rule.items("match");
    if all.is_empty() {
        let fix = Some("add `match:` with `sniHosts:`".to_owned());
        report.error(rule, "a rule for TLS without a match", fix);
    }
    for one in &all {
        let names = one.items("sniHosts");
        if names.is_empty() {
            let fix = Some("add `sniHosts:` with the names that clients ask for".to_owned());
            report.error(one, "the match names no `sniHosts`", fix);
        }
        for name in &names {
            server_name(name, hosts, report);
        }
        matches::layer4(one, report);
    }
    route(rule, "TLS", report);
}

fn server_name(name: &Cursor<'_>, all: &[String], report: &mut Report<'_>) {
    let text = name.text();
    if !hosts::is_wildcard_domain(text) {
        if text.parse::<std::net::IpAddr>().is_ok() {
            return report.warning(name, "clients do not ask for addresses, only for names", None);
        }
        return report.error(name, format!("`{text}` is not the name of a host"), None);
    }
    if !all.iter().any(|host| hosts::within(text, host)) {
        let message = format!("`{text}` is none of the hosts of the VirtualService: {}", all.join(", "));
        report.error(name, message, Some("add it to `hosts`".to_owned()));
    }
}

/// A rule for TCP.
pub(super) fn tcp(rule: &Cursor<'_>, report: &mut Report<'_>) {
    for one in rule.items("match") {
        matches::layer4(&one, report);
    }
    route(rule, "TCP", report);
}

fn route(rule: &Cursor<'_>, of: &str, report: &mut Report<'_>) {
    if rule.items("route").is_empty() {
        let fix = Some("add `route:` with a destination".to_owned());
        report.error(rule, format!("a rule for {of} without a destination"), fix);
    }
    destinations(rule, report, |_, _| {});
}
