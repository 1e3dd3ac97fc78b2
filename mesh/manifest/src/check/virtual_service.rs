//! The rules of a VirtualService: what Istio's webhook refuses is refused. A mistake in one rule is an error of the whole
//! object, because a rule that is left out sends its requests elsewhere.

mod http;
mod layer4;
mod matches;

use super::{Report, hosts, unsupported, values};
use crate::{compatibility, cursor::Cursor, istio::VirtualService};

/// All rules of the kind.
pub(super) fn check(root: &Cursor<'_>, service: &VirtualService, report: &mut Report<'_>) {
    let Some(spec) = root.get("spec") else {
        let fix = Some("add `spec:` with `hosts:` and `http:`".to_owned());
        return report.error(root, "`spec` is missing", fix);
    };
    unsupported::check(&spec, &compatibility::VIRTUAL_SERVICE, report);
    if service.is_delegate() {
        delegate(&spec, report);
    }
    let for_gateways = gateways_only(service);
    hosts::gateways(&spec, report);
    hosts::virtual_hosts(&spec, for_gateways, report);
    hosts::export_to(root, &spec, report);
    if service.http.is_empty() && service.tls.is_empty() && service.tcp.is_empty() {
        let fix = Some("add `http:`, `tls:` or `tcp:` with at least one rule".to_owned());
        report.error_at_key(&spec, "no rule", fix);
    }
    for (rule, typed) in spec.items("http").iter().zip(&service.http) {
        http::check(rule, typed, service.is_delegate(), for_gateways, report);
    }
    for rule in spec.items("tls") {
        layer4::tls(&rule, &service.hosts, report);
    }
    for rule in spec.items("tcp") {
        layer4::tcp(&rule, report);
    }
}

/// Whether nothing inside the mesh heeds it.
fn gateways_only(service: &VirtualService) -> bool {
    !service.gateways.is_empty() && !service.is_for_mesh()
}

/// What others refer to has nothing but rules for HTTP.
fn delegate(spec: &Cursor<'_>, report: &mut Report<'_>) {
    for key in ["gateways", "tls", "tcp"] {
        if let Some(there) = spec.get(key).filter(|there| !there.is_empty()) {
            let message = format!("a VirtualService without `hosts` is a delegate, which has no `{key}`");
            report.error_at_key(&there, message, Some("add `hosts:`, or leave this out".to_owned()));
        }
    }
}

/// The destinations of a rule, with their weights; `each` looks at what else an entry has.
fn destinations(rule: &Cursor<'_>, report: &mut Report<'_>, each: impl Fn(&Cursor<'_>, &mut Report<'_>)) {
    let all = rule.items("route");
    let mut sum = 0.0;
    for entry in &all {
        match entry.get("destination") {
            Some(destination) => one_destination(&destination, report),
            None => {
                let fix = Some("add `destination:` with `host:`".to_owned());
                report.error(entry, "the entry has no destination", fix);
            }
        }
        values::not_negative(entry, &["weight"], report);
        sum += entry.get("weight").and_then(|weight| values::number(&weight)).unwrap_or_default();
        each(entry, report);
    }
    let Some(list) = rule.get("route") else { return };
    if all.len() > 1 && sum == 0.0 {
        let fix = Some("give each its `weight`; they are parts of their sum".to_owned());
        report.error_at_key(&list, "several destinations, and no weights", fix);
    } else if sum > f64::from(u32::MAX) {
        report.error_at_key(&list, "the weights are more than 4294967295 together", None);
    }
}

/// A destination: a host, and whatever else it names.
fn one_destination(destination: &Cursor<'_>, report: &mut Report<'_>) {
    match destination.get("host") {
        Some(host) => hosts::destination(&host, report),
        None => {
            let fix = Some("add `host:` with the name of a service".to_owned());
            report.error(destination, "the destination has no host", fix);
        }
    }
    if let Some(subset) = destination.get("subset").filter(|subset| !subset.text().is_empty()) {
        super::metadata::dns_label(&subset, "a subset", report);
    }
    if let Some(port) = destination.get("port") {
        match port.get("number") {
            Some(number) => values::port(&number, report),
            None => report.error(&port, "the port has no number", Some("write `{number: 80}`".to_owned())),
        }
    }
}
