//! The rules of a PeerAuthentication.

use super::{Report, selector};
use crate::cursor::Cursor;

/// As Istio: modes for single ports need a selector that selects something.
pub(super) fn check(root: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(spec) = root.get("spec") else { return };
    selector::nothing_is_empty(&spec, report);
    selector::selector(&spec, report);
    let Some(ports) = spec.get("portLevelMtls") else { return };
    if ports.is_empty() {
        let fix = Some("name a port, or leave the field out".to_owned());
        report.error_at_key(&ports, "`portLevelMtls` is empty", fix);
    }
    let selects = spec
        .get("selector")
        .and_then(|selector| selector.get("matchLabels"))
        .is_some_and(|labels| !labels.is_empty());
    if !selects {
        let fix = Some("add `selector.matchLabels`, or set `mtls.mode` for all ports".to_owned());
        report.error_at_key(&ports, "`portLevelMtls` needs a selector that names labels", fix);
    }
}
