//! Names that lead nowhere: namespaces, accounts in principals, waypoints, targets.

use std::{collections::HashSet, sync::Arc};

use super::{Inventory, finding};
use crate::{
    Step,
    cursor::Cursor,
    finding::{Code, Finding, Level},
    object::{Object, Typed},
    position::Position,
    suggest::nearest,
    waypoint::{Asked, FOR_ACCOUNT, USE_WAYPOINT, asked},
};

/// Namespaces that exist without being declared.
const BUILT_IN: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "istio-system"];

/// What one object names.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(waypoint(object, inventory));
    match &object.spec {
        Typed::AuthorizationPolicy(_) => {
            findings.extend(targets(object, inventory));
            findings.extend(identities(object, inventory));
        }
        Typed::Gateway(_) => findings.extend(account(object, inventory)),
        _ => {}
    }
    findings
}

/// Namespaces that are used but not declared, once each; only where the files declare namespaces at all.
pub(super) fn undeclared_namespaces(objects: &[Arc<Object>], inventory: &Inventory<'_>) -> Vec<Finding> {
    if inventory.namespaces.is_empty() {
        return Vec::new();
    }
    let mut said = HashSet::new();
    let mut findings = Vec::new();
    for object in objects {
        let Some(namespace) = object.metadata.namespace.as_deref() else { continue };
        if exists(namespace, inventory) || matches!(object.spec, Typed::Other) || !said.insert(namespace) {
            continue;
        }
        let at = object.locate(&[Step::Key("metadata"), Step::Key("namespace")]);
        let message = format!("namespace `{namespace}` is not among these files");
        findings.push(missing(
            object,
            at,
            "metadata.namespace",
            message,
            near_namespace(namespace, inventory),
        ));
    }
    findings
}

fn missing(object: &Object, at: Position, field: &str, message: String, fix: Option<String>) -> Finding {
    let mut finding = finding(Level::Warning, Code::ReferencedResourceNotFound, object, at, field, message);
    finding.fix = fix;
    finding
}

fn exists(namespace: &str, inventory: &Inventory<'_>) -> bool {
    BUILT_IN.contains(&namespace)
        || namespace == inventory.root_namespace
        || inventory.namespaces.contains_key(namespace)
}

fn near_namespace(namespace: &str, inventory: &Inventory<'_>) -> Option<String> {
    let known = inventory.namespaces.keys().copied();
    nearest(namespace, known).map(|near| format!("did you mean `{near}`?"))
}

/// The label that asks for a waypoint.
fn waypoint(object: &Object, inventory: &Inventory<'_>) -> Option<Finding> {
    let own = match &object.spec {
        Typed::Namespace(_) => object.metadata.name.as_str(),
        Typed::Service(_) | Typed::Pod(_) => object.metadata.namespace.as_deref()?,
        _ => return None,
    };
    let Some(Asked::For { namespace, name }) = asked(&object.metadata.labels, own) else { return None };
    if !inventory.describes(namespace) || inventory.named("Gateway", namespace, name).is_some() {
        return None;
    }
    let at = object.locate(&[Step::Key("metadata"), Step::Key("labels"), Step::Key(USE_WAYPOINT)]);
    let field = format!("metadata.labels[{USE_WAYPOINT:?}]");
    let message =
        format!("there is no Gateway `{name}` in namespace {namespace}: no waypoint takes this traffic");
    Some(missing(
        object,
        at,
        &field,
        message,
        Some(format!("add the Gateway {namespace}/{name}, or remove the label")),
    ))
}

/// The account that a waypoint says it is for.
fn account(object: &Object, inventory: &Inventory<'_>) -> Option<Finding> {
    let name = object.annotation(FOR_ACCOUNT)?;
    let namespace = object.metadata.namespace.as_deref()?;
    if !inventory.describes(namespace) || inventory.accounts.contains(&(namespace, name)) {
        return None;
    }
    let at = object.locate(&[Step::Key("metadata"), Step::Key("annotations"), Step::Key(FOR_ACCOUNT)]);
    let field = format!("metadata.annotations[{FOR_ACCOUNT:?}]");
    let message =
        format!("there is no service account `{name}` in namespace {namespace}: the waypoint is for nobody");
    Some(missing(object, at, &field, message, near_account(namespace, name, inventory)))
}

fn near_account(namespace: &str, name: &str, inventory: &Inventory<'_>) -> Option<String> {
    let known = inventory.accounts.iter().filter(|(of, _)| *of == namespace).map(|(_, name)| *name);
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// What a policy is attached to.
fn targets(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Some(namespace) = object.metadata.namespace.as_deref() else { return Vec::new() };
    if !inventory.describes(namespace) {
        return Vec::new();
    }
    let Some(spec) = Cursor::root(object.tree()).get("spec") else { return Vec::new() };
    let all = spec.get("targetRef").into_iter().chain(spec.items("targetRefs"));
    all.filter_map(|target| {
        let kind = target.get("kind")?.text();
        let name = target.get("name")?;
        let gone =
            matches!(kind, "Service" | "Gateway") && inventory.named(kind, namespace, name.text()).is_none();
        gone.then(|| {
            let at = Position::new(object.file(), name.at);
            let message = format!("there is no {kind} `{}` in namespace {namespace}", name.text());
            missing(object, at, &name.path, message, None)
        })
    })
    .collect()
}

/// Namespaces and accounts in the sources of a policy.
fn identities(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Some(spec) = Cursor::root(object.tree()).get("spec") else { return Vec::new() };
    let mut findings = Vec::new();
    for source in
        spec.items("rules").iter().flat_map(|rule| rule.items("from")).filter_map(|from| from.get("source"))
    {
        for key in ["namespaces", "notNamespaces"] {
            for value in source.items(key) {
                findings.extend(namespace_named(object, &value, value.text(), inventory));
            }
        }
        for key in ["principals", "notPrincipals"] {
            for value in source.items(key) {
                findings.extend(principal_named(object, &value, inventory));
            }
        }
    }
    findings
}

fn namespace_named(
    object: &Object,
    at: &Cursor<'_>,
    name: &str,
    inventory: &Inventory<'_>,
) -> Option<Finding> {
    let known = inventory.namespaces.is_empty() || exists(name, inventory) || inventory.describes(name);
    if known || name.contains('*') {
        return None;
    }
    let position = Position::new(object.file(), at.at);
    let message = format!("namespace `{name}` is not among these files");
    Some(missing(object, position, &at.path, message, near_namespace(name, inventory)))
}

fn principal_named(object: &Object, value: &Cursor<'_>, inventory: &Inventory<'_>) -> Option<Finding> {
    let text = value.text();
    let (_, rest) = text.split_once("/ns/").filter(|_| !text.contains('*'))?;
    let (namespace, account) = rest.split_once("/sa/")?;
    if let Some(finding) = namespace_named(object, value, namespace, inventory) {
        return Some(finding);
    }
    let known = account == "default" || inventory.accounts.contains(&(namespace, account));
    if known || !inventory.describes(namespace) {
        return None;
    }
    let position = Position::new(object.file(), value.at);
    let message = format!("there is no service account `{account}` in namespace {namespace}");
    Some(missing(object, position, &value.path, message, near_account(namespace, account, inventory)))
}
