//! The rules of a Gateway, as far as a waypoint needs them.

use super::Report;
use crate::{cursor::Cursor, suggest::nearest};

const PROTOCOLS: [&str; 6] = ["HTTP", "HTTPS", "TLS", "TCP", "UDP", "HBONE"];

/// A class, and listeners with distinct names, ports and protocols that exist.
pub(super) fn check(root: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(spec) = root.get("spec") else {
        return report.error(
            root,
            "`spec` is missing",
            Some("add `spec:` with `gatewayClassName:`".to_owned()),
        );
    };
    if spec.get("gatewayClassName").is_none_or(|class| class.text().is_empty()) {
        let fix = Some("add `gatewayClassName: istio-waypoint` for a waypoint".to_owned());
        report.error_at_key(&spec, "the Gateway names no class", fix);
    }
    let listeners = spec.items("listeners");
    for (index, listener) in listeners.iter().enumerate() {
        one_listener(listener, &listeners[..index], report);
    }
}

fn one_listener(listener: &Cursor<'_>, before: &[Cursor<'_>], report: &mut Report<'_>) {
    let name = |listener: &Cursor<'_>| listener.get("name").map(|name| name.text().to_owned());
    match name(listener).filter(|name| !name.is_empty()) {
        None => report.error(listener, "the listener has no name", Some("add `name:`".to_owned())),
        Some(own) if before.iter().any(|other| name(other).as_ref() == Some(&own)) => {
            report.error(listener, format!("a second listener named `{own}`"), None);
        }
        Some(_) => {}
    }
    match listener.get("port") {
        None => report.error(listener, "the listener has no port", Some("add `port:`".to_owned())),
        Some(port) if port.node.to_json() == 0 => report.error(&port, "0 is not a port", None),
        Some(_) => {}
    }
    match listener.get("protocol") {
        None => report.error(listener, "the listener has no protocol", Some("add `protocol:`".to_owned())),
        Some(protocol) => {
            let text = protocol.text();
            // Implementations may name protocols of their own, with a domain in front.
            if !PROTOCOLS.contains(&text) && !text.contains('/') {
                let fix = nearest(text, PROTOCOLS).map(|word| format!("did you mean `{word}`?"));
                report.error(&protocol, format!("`{text}` is not one of {}", PROTOCOLS.join(", ")), fix);
            }
        }
    }
}
