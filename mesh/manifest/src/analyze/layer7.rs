//! Attributes that only a waypoint can see, in policies for workloads that have none. The policy is enforced
//! nevertheless, on the safe side; what that means is said here, because it is rarely what was meant.

use super::{Inventory, finding};
use crate::{
    cursor::Cursor,
    finding::{Code, Finding, Level},
    istio::{Action, AuthorizationPolicy},
    object::{Object, Typed},
    position::Position,
};

const SOURCE: [&str; 4] =
    ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"];
const OPERATION: [&str; 6] = ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"];
const WHEN: [&str; 4] = ["request.", "remote.ip", "connection.sni", "experimental."];

/// One finding for each rule with such an attribute: a warning where a workload without a waypoint is
/// selected, information where the files do not show any workload.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Typed::AuthorizationPolicy(policy) = &object.spec else { return Vec::new() };
    if policy.targets().next().is_some() {
        return Vec::new();
    }
    let Some((level, whom)) = concerned(object, policy, inventory) else { return Vec::new() };
    let Some(spec) = Cursor::root(object.tree()).get("spec") else { return Vec::new() };
    let rules = spec.items("rules");
    let one = |rule: &Cursor<'_>| {
        let attribute = first_attribute(rule)?;
        let name = attribute.path.rsplit('.').next().unwrap_or_default().to_owned();
        let shown = if name == "key" { attribute.text() } else { name.as_str() };
        let message =
            format!("`{shown}` can only be seen by a waypoint, and {whom}: {}", consequence(policy.action));
        let at = Position::new(object.file(), attribute.key_at);
        let fix = "put a waypoint in front: a Gateway of class istio-waypoint with the annotation \
                   istio.io/for-service-account, or the label istio.io/use-waypoint";
        let finding = finding(level, Code::IneffectivePolicy, object, at, &attribute.path, message);
        Some(finding.with_fix(fix))
    };
    rules.iter().filter_map(one).collect()
}

/// Whether somebody without a waypoint is selected, and how to say so.
fn concerned(
    object: &Object,
    policy: &AuthorizationPolicy,
    inventory: &Inventory<'_>,
) -> Option<(Level, String)> {
    let namespace = object.metadata.namespace.as_deref()?;
    let mut selected = inventory.selected(namespace, policy.selector.as_ref()).peekable();
    if selected.peek().is_none() {
        let described = inventory.describes(namespace);
        return (!described).then(|| (Level::Info, "these files show none".to_owned()));
    }
    let without = selected.find(|workload| !inventory.has_waypoint(workload))?;
    Some((Level::Warning, format!("none stands in front of {}", without.object.key())))
}

/// What layer 4 makes of such a rule.
const fn consequence(action: Action) -> &'static str {
    match action {
        Action::Allow => "at layer 4 this rule matches nothing, so what only it allows is refused",
        Action::Deny => {
            "at layer 4 this rule refuses every connection that the rest of it matches, whatever is asked on it"
        }
        Action::Audit => "at layer 4 this rule notes every connection that the rest of it matches",
        Action::Custom => "at layer 4 nobody is asked, so what the rest of the rule matches is refused",
    }
}

fn first_attribute<'a>(rule: &Cursor<'a>) -> Option<Cursor<'a>> {
    let set = |of: &Cursor<'a>, keys: &[&str]| {
        keys.iter().find_map(|key| of.get(key).filter(|list| !list.is_empty()))
    };
    let from = rule.items("from").into_iter().find_map(|from| set(&from.get("source")?, &SOURCE));
    let to = || rule.items("to").into_iter().find_map(|to| set(&to.get("operation")?, &OPERATION));
    let when = || {
        let keys = rule.items("when").into_iter().filter_map(|when| when.get("key"));
        keys.into_iter().find(|key| WHEN.iter().any(|prefix| key.text().starts_with(prefix)))
    };
    from.or_else(to).or_else(when)
}
