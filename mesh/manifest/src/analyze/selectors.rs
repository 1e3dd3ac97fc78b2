//! Policies whose selector selects nobody.

use super::{Inventory, finding};
use crate::{
    Step,
    finding::{Code, Finding, Level},
    istio::WorkloadSelector,
    object::{Object, Typed},
    suggest::nearest,
};

/// A warning where the files describe the namespace and no workload in it is selected.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Option<Finding> {
    let selector = match &object.spec {
        Typed::AuthorizationPolicy(policy) => policy.selector.as_ref(),
        Typed::PeerAuthentication(policy) => policy.selector.as_ref(),
        _ => None,
    }?;
    let namespace = object.metadata.namespace.as_deref()?;
    let described = match namespace == inventory.root_namespace {
        true => !inventory.workloads.is_empty(),
        false => inventory.describes(namespace),
    };
    if selector.match_labels.is_empty()
        || !described
        || inventory.selected(namespace, Some(selector)).next().is_some()
    {
        return None;
    }
    let labels: Vec<String> =
        selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let at = object.locate(&[Step::Key("spec"), Step::Key("selector"), Step::Key("matchLabels")]);
    let message =
        format!("no workload in these files has the labels {}: the policy is for nobody", labels.join(","));
    let mut finding =
        finding(Level::Warning, Code::NoMatchingWorkloads, object, at, "spec.selector.matchLabels", message);
    finding.fix = fix(selector, namespace, inventory);
    Some(finding)
}

/// The value that was probably meant, or where the labels do exist.
fn fix(selector: &WorkloadSelector, namespace: &str, inventory: &Inventory<'_>) -> Option<String> {
    let elsewhere = inventory.workloads.iter().find(|workload| selector.matches(&workload.labels));
    if let Some(workload) = elsewhere {
        return Some(format!(
            "{} in namespace {} has them: a policy is for its own namespace",
            workload.object.kind, workload.namespace
        ));
    }
    let here = || inventory.selected(namespace, None);
    selector.match_labels.iter().find_map(|(key, value)| {
        let values = here().filter_map(|workload| workload.labels.get(key)).map(String::as_str);
        if let Some(near) = nearest(value, values) {
            return Some(format!("did you mean `{key}: {near}`?"));
        }
        let keys = here().flat_map(|workload| workload.labels.keys()).map(String::as_str);
        nearest(key, keys).map(|near| format!("did you mean the label `{near}`?"))
    })
}
