//! The rules of Kubernetes' own kinds that an API server would enforce and that matter here: without them a
//! mistake would only show as a pod that is never reached.

use std::collections::HashSet;

use super::{Report, metadata};
use crate::{
    cursor::Cursor,
    node::{Node, Value},
    scalar::Scalar,
};

/// A Service: ports with numbers in range and, when several, distinct names.
pub(super) fn service(root: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(spec) = root.get("spec") else {
        return report.error(root, "`spec` is missing", None);
    };
    let ports = spec.items("ports");
    let mut names: HashSet<&str> = HashSet::new();
    for port in &ports {
        match port.get("port") {
            Some(number) => port_number(&number, report),
            None => {
                report.error(port, "the port has no `port`", Some("add `port:` with its number".to_owned()))
            }
        }
        if let Some(target) = port.get("targetPort") {
            port_number(&target, report);
        }
        protocol(port, report);
        let name = port.get("name").map(|name| name.text()).unwrap_or_default();
        if ports.len() > 1 && name.is_empty() {
            report.error(port, "of several ports each needs a name", Some("add `name:`".to_owned()));
        } else if !name.is_empty() && !names.insert(name) {
            report.error(port, format!("a second port named `{name}`"), None);
        }
    }
}

fn protocol(port: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(protocol) = port.get("protocol") else { return };
    if !["TCP", "UDP", "SCTP"].contains(&protocol.text()) {
        let message = format!("`{}` is not one of TCP, UDP, SCTP", protocol.text());
        report.error(
            &protocol,
            message,
            Some("an application's protocol goes into `appProtocol`".to_owned()),
        );
    }
}

/// A number from 1 to 65535; names of ports are left to who resolves them.
fn port_number(port: &Cursor<'_>, report: &mut Report<'_>) {
    if let Value::Scalar(Scalar::Int(number), _) = port.node.value
        && !(1..=65535).contains(&number)
    {
        report.error(port, format!("{number} is not a port number from 1 to 65535"), None);
    }
}

/// A ConfigMap or a Secret: keys become names of files.
pub(super) fn data(root: &Cursor<'_>, report: &mut Report<'_>) {
    for field in ["data", "binaryData", "stringData"] {
        let Some(values) = root.get(field) else { continue };
        for (key, value) in values.fields().filter(|(key, _)| !is_data_key(key)) {
            let message = format!(
                "`{key}` cannot be a key here: up to 253 letters, digits, `-`, `_` and `.`, not beginning with `..`"
            );
            report.error_at_key(&value, message, None);
        }
    }
}

fn is_data_key(key: &str) -> bool {
    let chars = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !key.is_empty() && key.len() <= 253 && key.bytes().all(chars) && key != "." && !key.starts_with("..")
}

/// A Pod.
pub(super) fn pod(root: &Cursor<'_>, report: &mut Report<'_>) {
    match root.get("spec") {
        Some(spec) => pod_spec(&spec, report),
        None => report.error(root, "`spec` is missing", None),
    }
}

/// What holds a template and a selector that must select its own pods.
pub(super) fn workload(root: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(spec) = root.get("spec") else {
        return report.error(root, "`spec` is missing", None);
    };
    template(&spec, report);
    for claim in spec.items("volumeClaimTemplates") {
        if let Some(name) = claim.get("metadata").and_then(|metadata| metadata.get("name")) {
            volume_name(&name, report);
        }
    }
    let Some(wanted) = spec.get("selector").and_then(|selector| selector.get("matchLabels")) else {
        if spec.get("selector").is_none() {
            let fix = Some("add `selector.matchLabels` with the labels of the template".to_owned());
            report.error_at_key(&spec, "`selector` is missing", fix);
        }
        return;
    };
    let labels = spec
        .get("template")
        .and_then(|template| template.get("metadata")?.get("labels"))
        .map(|labels| labels.node);
    for (key, value) in wanted.fields().take(metadata::MAX_LABELS) {
        if labels.and_then(|labels| labels.get(key)).and_then(Node::text) != value.node.text() {
            let message = format!(
                "the selector wants `{key}: {}`, which the template's labels do not have",
                value.text()
            );
            report.error(
                &value,
                message,
                Some("selector and `template.metadata.labels` must agree".to_owned()),
            );
        }
    }
}

/// A Job.
pub(super) fn job(root: &Cursor<'_>, report: &mut Report<'_>) {
    match root.get("spec") {
        Some(spec) => template(&spec, report),
        None => report.error(root, "`spec` is missing", None),
    }
}

/// A CronJob.
pub(super) fn cron_job(root: &Cursor<'_>, report: &mut Report<'_>) {
    match root.get("spec").and_then(|spec| spec.get("jobTemplate")?.get("spec")) {
        Some(spec) => template(&spec, report),
        None => report.error(root, "`spec.jobTemplate.spec` is missing", None),
    }
}

fn template(spec: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(template) = spec.get("template") else {
        return report.error_at_key(spec, "`template` is missing", None);
    };
    if let Some(labels) = template.get("metadata").and_then(|metadata| metadata.get("labels")) {
        metadata::check_labels(&labels, report);
    }
    match template.get("spec") {
        Some(spec) => pod_spec(&spec, report),
        None => report.error_at_key(&template, "the template has no `spec`", None),
    }
}

fn volume_name(name: &Cursor<'_>, report: &mut Report<'_>) {
    metadata::dns_label(name, "a volume", report);
}

fn pod_spec(spec: &Cursor<'_>, report: &mut Report<'_>) {
    let containers = spec.items("containers");
    if containers.is_empty() {
        report.error_at_key(spec, "no `containers`", Some("a pod needs at least one container".to_owned()));
    }
    for volume in spec.items("volumes") {
        match volume.get("name") {
            Some(name) => volume_name(&name, report),
            None => report.error(&volume, "the volume has no name", Some("add `name:`".to_owned())),
        }
        let claim = volume.get("persistentVolumeClaim").and_then(|claim| claim.get("claimName"));
        if let Some(claim) = claim {
            metadata::dns_subdomain(&claim, report);
        }
    }
    let mut names: HashSet<&str> = HashSet::new();
    for container in spec.items("initContainers").iter().chain(&containers) {
        let name = container.get("name").map(|name| name.text()).unwrap_or_default();
        if name.is_empty() {
            report.error(container, "the container has no name", Some("add `name:`".to_owned()));
        } else if !metadata::is_dns_label(name) {
            report.error(container, format!("`{name}` cannot be a container's name"), None);
        } else if !names.insert(name) {
            report.error(container, format!("a second container named `{name}`"), None);
        }
        for port in container.items("ports") {
            match port.get("containerPort") {
                Some(number) => port_number(&number, report),
                None => report.error(&port, "the port has no `containerPort`", None),
            }
            protocol(&port, report);
        }
    }
}
