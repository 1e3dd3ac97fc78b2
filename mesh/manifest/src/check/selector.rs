//! Whom a policy is for: `selector`, `targetRef` and `targetRefs`, as Istio allows them.

use super::{Report, metadata};
use crate::cursor::Cursor;

/// Istio's limit of targets.
const MAX_TARGETS: usize = 16;

/// What a policy can be attached to: group, kind.
const TARGETS: [(&str, &str); 4] = [
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
];

/// The rules of a `selector`.
pub(super) fn selector(spec: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(labels) = spec.get("selector").and_then(|selector| selector.get("matchLabels")) else { return };
    for (key, value) in labels.fields() {
        if key.is_empty() {
            report.error_at_key(&value, "a label without a key", None);
        }
        if key.contains('*') || value.text().contains('*') {
            let fix = Some(
                "name the label's whole value; leave the selector out to select every workload".to_owned(),
            );
            report.error(&value, "`*` is not a wildcard in a selector", fix);
        }
    }
    if !labels.fields().any(|(key, value)| key.contains('*') || value.text().contains('*')) {
        metadata::check_labels(&labels, report);
    }
}

/// A field of a policy's `spec` that is there but says nothing: Kubernetes would drop it, and a policy without
/// its selector is for more workloads than was meant.
pub(super) fn nothing_is_empty(spec: &Cursor<'_>, report: &mut Report<'_>) {
    for (key, value) in spec.fields().filter(|(_, value)| value.node.is_null()) {
        let fix = format!("give `{key}` a value, or leave it out");
        report.error(&value, format!("`{key}` is empty"), Some(fix));
    }
}

/// The rules of `targetRef` and `targetRefs`, and of a selector beside them.
pub(super) fn targets(root: &Cursor<'_>, spec: &Cursor<'_>, report: &mut Report<'_>) {
    let present: Vec<Cursor<'_>> =
        ["selector", "targetRef", "targetRefs"].iter().filter_map(|key| spec.get(key)).collect();
    if let [_, second, ..] = present.as_slice() {
        let message = "only one of `selector`, `targetRef` and `targetRefs` can be set";
        report.error_at_key(
            second,
            message,
            Some("keep the one that says whom the policy is for".to_owned()),
        );
    }
    let many = spec.items("targetRefs");
    if let Some(extra) = many.get(MAX_TARGETS) {
        report.error(extra, format!("more than {MAX_TARGETS} targets"), None);
    }
    for target in spec.get("targetRef").iter().chain(&many) {
        one_target(root, target, report);
    }
}

fn one_target(root: &Cursor<'_>, target: &Cursor<'_>, report: &mut Report<'_>) {
    let text = |key: &str| target.get(key).map(|value| value.text()).unwrap_or_default();
    for key in ["kind", "name"] {
        if text(key).is_empty() {
            report.error(target, format!("the target has no `{key}`"), Some(format!("add `{key}:`")));
        }
    }
    let own = root.get("metadata").and_then(|metadata| metadata.get("namespace"));
    if let Some(namespace) = target.get("namespace").filter(|namespace| !namespace.text().is_empty())
        && own.is_some_and(|own| own.text() != namespace.text())
    {
        let fix = Some("put the policy into the namespace of its target".to_owned());
        report.error(&namespace, "a target in another namespace is not possible", fix);
    }
    let (group, kind) = (text("group"), text("kind"));
    if !kind.is_empty() && !TARGETS.contains(&(group, kind)) {
        let right = TARGETS.iter().find(|(_, other)| *other == kind);
        let fix = match right {
            Some((group, _)) => format!("write `group: {}`", if group.is_empty() { "\"\"" } else { *group }),
            None => "a policy can be attached to a Gateway, GatewayClass, Service or ServiceEntry".to_owned(),
        };
        let at = target.get("kind").unwrap_or_else(|| target.clone());
        let group = if group.is_empty() { "the core group".to_owned() } else { format!("group `{group}`") };
        report.error(&at, format!("a policy cannot be attached to {kind} of {group}"), Some(fix));
    }
}
