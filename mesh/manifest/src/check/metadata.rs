//! Names, namespaces, labels: what Kubernetes lets an object be called.

use super::Report;
use crate::cursor::Cursor;

/// More than anybody has, and few enough to compare each with each.
pub(super) const MAX_LABELS: usize = 1000;

/// The rules of `metadata`, for every kind.
pub(crate) fn check(root: &Cursor<'_>, mut report: Report<'_>) {
    let report = &mut report;
    let Some(metadata) = root.get("metadata") else {
        let fix = Some("add `metadata:` with a `name:`".to_owned());
        return report.error(root, "`metadata` is missing", fix);
    };
    name(root, &metadata, report);
    if let Some(namespace) = metadata.get("namespace").filter(|namespace| namespace.node.text().is_some()) {
        dns_label(&namespace, "a namespace", report);
    }
    if let Some(labels) = metadata.get("labels") {
        check_labels(&labels, report);
    }
    if let Some(annotations) = metadata.get("annotations") {
        for (key, value) in annotations.fields() {
            qualified_name(key, &value, report);
        }
    }
}

fn name(root: &Cursor<'_>, metadata: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(name) = metadata.get("name").filter(|name| name.node.text() != Some("")) else {
        let fix = match metadata.get("generateName") {
            Some(_) => "give it a fixed name: `generateName` works only where an API server makes one up",
            None => "add `name:` under `metadata`",
        };
        let mut at = metadata.clone();
        at.path.push_str(".name");
        return report.error_at_key(&at, "the object has no name", Some(fix.to_owned()));
    };
    if name.node.text().is_none() {
        return;
    }
    let core = root.get("apiVersion").is_some_and(|version| version.text() == "v1");
    match root.get("kind").map(|kind| kind.text()).unwrap_or_default() {
        "Namespace" if core => dns_label(&name, "a namespace", report),
        "Service" if core => service_name(&name, report),
        // RBAC's names are path segments: `system:node` is one.
        kind if kind.contains("Role") => {}
        _ => dns_subdomain(&name, report),
    }
}

pub(super) fn dns_label(name: &Cursor<'_>, what: &str, report: &mut Report<'_>) {
    let text = name.text();
    if !is_dns_label(text) {
        let message = format!(
            "`{text}` cannot be the name of {what}: up to 63 of a–z, 0–9 and `-`, no `-` at either end"
        );
        report.error(name, message, dns_fix(text));
    }
}

fn service_name(name: &Cursor<'_>, report: &mut Report<'_>) {
    let text = name.text();
    if !is_dns_label(text) || text.starts_with(|first: char| first.is_ascii_digit()) {
        let message = format!(
            "`{text}` cannot be the name of a Service: up to 63 of a–z, 0–9 and `-`, beginning with a letter"
        );
        report.error(name, message, dns_fix(text));
    }
}

pub(super) fn dns_subdomain(name: &Cursor<'_>, report: &mut Report<'_>) {
    let text = name.text();
    let ok = text.len() <= 253
        && text.split('.').all(|part| is_dns_chars(part) && !part.starts_with('-') && !part.ends_with('-'));
    if !ok {
        let message = format!(
            "`{text}` cannot be a name: up to 253 of a–z, 0–9, `-` and `.`, no `-` or `.` at either end"
        );
        report.error(name, message, dns_fix(text));
    }
}

/// Whether `text` is a DNS-1123 label.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_chars(text) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_dns_chars(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The name in lower case, with `-` for what may not stand in it, when that is all it takes.
fn dns_fix(text: &str) -> Option<String> {
    let fixed: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .collect();
    let fixed = fixed.trim_matches(['-', '.']);
    let label_like = fixed.split('.').all(is_dns_label) && fixed != text;
    label_like.then(|| format!("for example `{fixed}`"))
}

/// Keys and values of labels.
pub(super) fn check_labels(labels: &Cursor<'_>, report: &mut Report<'_>) {
    if labels.node.entries().len() > MAX_LABELS {
        return report.error_at_key(labels, format!("more than {MAX_LABELS} labels"), None);
    }
    for (key, value) in labels.fields() {
        qualified_name(key, &value, report);
        if value.node.text().is_some_and(|text| !is_label_value(text)) {
            let message = format!(
                "`{}` cannot be a label's value: up to 63 letters, digits, `-`, `_` and `.`, a letter or digit at either end",
                value.text()
            );
            report.error(&value, message, None);
        }
    }
}

fn qualified_name(key: &str, value: &Cursor<'_>, report: &mut Report<'_>) {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_dns_label));
    if !prefix_ok || name.is_empty() || !is_label_value(name) {
        let message = format!(
            "`{key}` cannot be a key here: an optional DNS name and `/`, then up to 63 letters, digits, `-`, `_` and `.`"
        );
        report.error_at_key(value, message, None);
    }
}

fn is_label_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && ends(text.chars().next())
        && ends(text.chars().last())
}
