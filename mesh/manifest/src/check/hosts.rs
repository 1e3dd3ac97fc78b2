//! Names of hosts, gateways and namespaces, as VirtualServices and DestinationRules write them.

use std::net::IpAddr;

use super::{Report, metadata};
use crate::cursor::Cursor;

/// More hosts of one VirtualService are compared each with each, so there is an end.
const MAX_HOSTS: usize = 1000;

/// Whether `text` is a DNS name whose first label may be `*` or begin with `*-`... as Istio allows: a wildcard only in
/// front.
pub(super) fn is_wildcard_domain(text: &str) -> bool {
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let (first, rest) = text.split_once('.').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let first_ok = match first.strip_prefix('*') {
        Some("") => true,
        Some(tail) => is_label(tail.strip_prefix('-').unwrap_or(tail)),
        None => is_label(first),
    };
    first_ok && rest.is_none_or(|rest| rest.split('.').all(is_label))
}

/// A label of a DNS name, in whichever case.
fn is_label(text: &str) -> bool {
    text.len() <= 63
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A host that something is sent to.
pub(super) fn destination(host: &Cursor<'_>, report: &mut Report<'_>) {
    let text = host.text();
    if text == "*" {
        let fix = Some("name the service".to_owned());
        report.error(host, "`*` is no destination", fix);
    } else if !is_wildcard_domain(text) {
        name_expected(host, report);
    }
}

fn name_expected(host: &Cursor<'_>, report: &mut Report<'_>) {
    let fix = match host.text() {
        "" => Some(
            "write the name of a service, such as `reviews` or `reviews.shop.svc.cluster.local`".to_owned(),
        ),
        text if text.contains("://") => Some("leave the scheme out".to_owned()),
        text if text.contains(':') => Some("a port does not belong to the name".to_owned()),
        text if text.contains('/') => Some("neither namespace nor path belong to the name".to_owned()),
        _ => None,
    };
    report.error(host, format!("`{}` is not the name of a host", host.text()), fix);
}

/// The host of a DestinationRule.
pub(super) fn rule_host(host: &Cursor<'_>, report: &mut Report<'_>) {
    if !is_wildcard_domain(host.text()) {
        name_expected(host, report);
    }
}

/// The hosts of a VirtualService: names, wildcards or addresses, none within another.
pub(super) fn virtual_hosts(spec: &Cursor<'_>, for_gateways: bool, report: &mut Report<'_>) {
    let hosts = spec.items("hosts");
    if let Some(extra) = hosts.get(MAX_HOSTS) {
        return report.error(extra, format!("more than {MAX_HOSTS} hosts"), None);
    }
    let mut sound = true;
    for host in &hosts {
        let text = host.text();
        if text == "*" && !for_gateways {
            sound = false;
            let fix = "name the hosts; `*` is only possible where `gateways` names gateways and not `mesh`";
            report.error(host, "`*` as a host inside the mesh would be every host", Some(fix.to_owned()));
        } else if !is_wildcard_domain(text) && text.parse::<IpAddr>().is_err() {
            sound = false;
            name_expected(host, report);
        }
    }
    if !sound {
        return;
    }
    for (index, host) in hosts.iter().enumerate() {
        if let Some(other) = hosts[..index].iter().find(|other| overlap(other.text(), host.text())) {
            let message = format!("`{}` is named twice: `{}` is before it", host.text(), other.text());
            report.error(host, message, Some("leave one of the two out".to_owned()));
        }
    }
}

/// Whether some host is both of these.
fn overlap(left: &str, right: &str) -> bool {
    let (left, right) = (left.to_ascii_lowercase(), right.to_ascii_lowercase());
    match (left.strip_prefix('*'), right.strip_prefix('*')) {
        (Some(left), Some(right)) => left.ends_with(right) || right.ends_with(left),
        (Some(tail), None) => right.ends_with(tail),
        (None, Some(tail)) => left.ends_with(tail),
        (None, None) => left == right,
    }
}

/// Whether everything that `inner` stands for is what `outer` stands for too.
pub(super) fn within(inner: &str, outer: &str) -> bool {
    let (inner, outer) = (inner.to_ascii_lowercase(), outer.to_ascii_lowercase());
    match outer.strip_prefix('*') {
        Some(tail) => inner.strip_prefix('*').unwrap_or(&inner).ends_with(tail),
        None => inner == outer,
    }
}

/// Names of gateways: `mesh`, `NAME` or `NAMESPACE/NAME`.
pub(super) fn gateways(of: &Cursor<'_>, report: &mut Report<'_>) {
    for gateway in of.items("gateways") {
        let text = gateway.text();
        let (namespace, name) = text.split_once('/').map_or((None, text), |(ns, name)| (Some(ns), name));
        let name_ok = match namespace {
            Some(_) => metadata::is_dns_label(name),
            None => is_wildcard_domain(name) && !name.contains('*'),
        };
        if !name_ok || namespace.is_some_and(|namespace| !metadata::is_dns_label(namespace)) {
            let fix = Some("write `mesh`, `NAME` or `NAMESPACE/NAME`".to_owned());
            report.error(&gateway, format!("`{text}` is not the name of a gateway"), fix);
        } else if namespace.is_none() && text.contains('.') {
            let mut parts = text.split('.');
            let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let fix = Some(format!("write `{namespace}/{name}`"));
            report.warning(&gateway, format!("`{text}` is an old way to name a gateway"), fix);
        }
    }
}

/// The namespaces that something is exported to.
pub(super) fn export_to(root: &Cursor<'_>, spec: &Cursor<'_>, report: &mut Report<'_>) {
    let own = root.get("metadata").and_then(|metadata| metadata.get("namespace"));
    let own = own.map(|own| own.text()).unwrap_or_default();
    let list = spec.items("exportTo");
    let meant =
        |entry: &Cursor<'_>| if entry.text() == "." { own.to_owned() } else { entry.text().to_owned() };
    for (index, entry) in list.iter().enumerate() {
        let text = entry.text();
        if text == "~" {
            report.error(entry, "`~`, nobody, is only for a ServiceEntry", None);
        } else if text != "." && text != "*" && !metadata::is_dns_label(text) {
            let fix = Some("write `.` for its own namespace, `*` for all, or a namespace".to_owned());
            report.error(entry, format!("`{text}` is not a namespace"), fix);
        } else if list[..index].iter().any(|other| meant(other) == meant(entry)) {
            report.error(entry, format!("`{text}` is named twice"), None);
        } else if text == "*" && list.len() > 1 {
            let fix = Some("leave the others out, or `*`".to_owned());
            report.error(entry, "`*` is every namespace already", fix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_wildcard_domain, overlap, within};

    #[test]
    fn names_of_hosts() {
        for (text, ok) in [
            ("reviews", true),
            ("Reviews.Shop", true),
            ("reviews.shop.svc.cluster.local", true),
            ("*", true),
            ("*.shop", true),
            ("*-a.shop", true),
            ("*a.shop", true),
            ("a.*.shop", false),
            ("a*.shop", false),
            ("", false),
            ("a..b", false),
            ("-a", false),
            ("a_b", false),
            ("a:80", false),
            ("http://a", false),
        ] {
            assert_eq!(is_wildcard_domain(text), ok, "{text:?}");
        }
        assert!(!is_wildcard_domain(&"a.".repeat(200)));
    }

    #[test]
    fn hosts_overlap_where_one_name_is_both() {
        for (left, right, both, inner) in [
            ("a", "a", true, true),
            ("A", "a", true, true),
            ("a", "b", false, false),
            ("a.x", "*.x", true, true),
            ("*.x", "a.x", true, false),
            ("*.a.x", "*.x", true, true),
            ("*.x", "*.a.x", true, false),
            ("*.x", "*.y", false, false),
            ("a.x", "*", true, true),
        ] {
            assert_eq!(overlap(left, right), both, "{left} {right}");
            assert_eq!(within(left, right), inner, "{left} in {right}");
        }
    }
}
