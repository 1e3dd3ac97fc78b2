//! The rules of an AuthorizationPolicy. What Istio refuses is refused; a mistake in a rule is always an
//! error, because a rule read without its mistake would let through more, or block more, than was meant.

mod attribute;

use super::{Report, selector};
use crate::{
    cursor::Cursor,
    istio::{Action, AuthorizationPolicy},
};

/// Each list field of a source and what its values must be.
const SOURCE: [(&str, Values); 14] = [
    ("principals", Values::Principal),
    ("notPrincipals", Values::Principal),
    ("requestPrincipals", Values::Text),
    ("notRequestPrincipals", Values::Text),
    ("namespaces", Values::Text),
    ("notNamespaces", Values::Text),
    ("serviceAccounts", Values::ServiceAccount),
    ("notServiceAccounts", Values::ServiceAccount),
    ("trustDomains", Values::Text),
    ("notTrustDomains", Values::Text),
    ("ipBlocks", Values::Ip),
    ("notIpBlocks", Values::Ip),
    ("remoteIpBlocks", Values::Ip),
    ("notRemoteIpBlocks", Values::Ip),
];

/// Each list field of an operation and what its values must be.
const OPERATION: [(&str, Values); 8] = [
    ("hosts", Values::Text),
    ("notHosts", Values::Text),
    ("ports", Values::Port),
    ("notPorts", Values::Port),
    ("methods", Values::Text),
    ("notMethods", Values::Text),
    ("paths", Values::Path),
    ("notPaths", Values::Path),
];

/// What the values of a list must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Values {
    Text,
    Principal,
    ServiceAccount,
    Ip,
    Port,
    Path,
}

/// All rules of the kind.
pub(super) fn check(root: &Cursor<'_>, policy: &AuthorizationPolicy, report: &mut Report<'_>) {
    dry_run(root, policy.action, report);
    let Some(spec) = root.get("spec") else { return };
    selector::nothing_is_empty(&spec, report);
    selector::targets(root, &spec, report);
    selector::selector(&spec, report);
    action(&spec, policy, report);
    for rule in spec.items("rules") {
        one_rule(&rule, policy.action, report);
    }
}

fn dry_run(root: &Cursor<'_>, action: Action, report: &mut Report<'_>) {
    let annotations = root.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let Some(value) = annotations.and_then(|annotations| annotations.get("istio.io/dry-run")) else { return };
    match value.text() {
        "true" | "false" => {}
        text => {
            report.error(&value, format!("`{text}` is neither \"true\" nor \"false\""), None);
        }
    }
    if value.text() == "true" && matches!(action, Action::Audit | Action::Custom) {
        report.error_at_key(&value, format!("{} has no dry run", action.as_str()), None);
    }
}

fn action(spec: &Cursor<'_>, policy: &AuthorizationPolicy, report: &mut Report<'_>) {
    let at = spec.get("action").unwrap_or_else(|| spec.clone());
    let name = policy.action.as_str();
    if policy.rules.is_empty() && matches!(policy.action, Action::Deny | Action::Custom) {
        let fix = "to match every request, write a rule that says nothing: `rules: [{}]`".to_owned();
        report.error(&at, format!("{name} without rules never takes effect"), Some(fix));
    }
    let provider = policy.provider.as_ref().map(|provider| provider.name.as_str());
    match (policy.action, provider) {
        (Action::Custom, None | Some("")) => {
            let fix = "name the extension provider under `provider.name`".to_owned();
            report.error(&at, "CUSTOM without a provider", Some(fix));
        }
        (Action::Custom, Some(_)) | (_, None) => {}
        (_, Some(_)) => {
            let at = spec.get("provider").unwrap_or(at);
            let fix = "leave it out, or set `action: CUSTOM`".to_owned();
            report.error_at_key(&at, format!("`provider` has no meaning with {name}"), Some(fix));
        }
    }
}

fn one_rule(rule: &Cursor<'_>, action: Action, report: &mut Report<'_>) {
    for key in ["from", "to", "when"] {
        if let Some(list) = rule.get(key).filter(Cursor::is_empty) {
            let fix = format!("leave `{key}` out to match any, or give it an item");
            report.error_at_key(&list, format!("`{key}` is empty"), Some(fix));
        }
    }
    for from in rule.items("from") {
        match from.get("source") {
            Some(source) => one_of_lists(&source, &SOURCE, "source", report),
            None => report.error(
                &from,
                "`source` is missing",
                Some("write `- source:` and its fields".to_owned()),
            ),
        }
        if let Some(source) = from.get("source") {
            service_accounts_stand_alone(&source, report);
            custom_source(&source, action, report);
        }
    }
    for to in rule.items("to") {
        match to.get("operation") {
            Some(operation) => one_of_lists(&operation, &OPERATION, "operation", report),
            None => {
                let fix = "write `- operation:` and its fields".to_owned();
                report.error(&to, "`operation` is missing", Some(fix));
            }
        }
    }
    for when in rule.items("when") {
        attribute::condition(&when, action, report);
    }
}

/// A source or operation: at least one field, and every value of every field as it must be.
fn one_of_lists(of: &Cursor<'_>, lists: &[(&str, Values)], name: &str, report: &mut Report<'_>) {
    let mut says_something = false;
    for (key, wanted) in lists {
        let Some(list) = of.get(key) else { continue };
        if list.is_empty() {
            let message = format!("`{key}` is an empty list, which counts as if it were not there");
            report.warning(&list, message, Some(format!("leave `{key}` out, or give it a value")));
            continue;
        }
        says_something = true;
        for value in list.own_items() {
            attribute::value(&value, *wanted, report);
        }
    }
    if !says_something {
        let first = lists.first().map(|(key, _)| *key).unwrap_or_default();
        let fix = format!("give it a field such as `{first}`, or leave the whole item out to match any");
        report.error_at_key(of, format!("`{name}` is empty"), Some(fix));
    }
}

fn service_accounts_stand_alone(source: &Cursor<'_>, report: &mut Report<'_>) {
    let set = |keys: [&str; 2]| keys.into_iter().find_map(|key| source.get(key));
    let accounts = set(["serviceAccounts", "notServiceAccounts"]);
    let others = set(["principals", "notPrincipals"]).or_else(|| set(["namespaces", "notNamespaces"]));
    if let (Some(accounts), Some(_)) = (accounts, others) {
        let message = "`serviceAccounts` cannot stand beside `principals` or `namespaces`";
        report.error_at_key(
            &accounts,
            message,
            Some("say it all with `serviceAccounts: [NAMESPACE/NAME]`".to_owned()),
        );
    }
}

fn custom_source(source: &Cursor<'_>, action: Action, report: &mut Report<'_>) {
    if action != Action::Custom {
        return;
    }
    for (key, _) in SOURCE.iter().filter(|(_, wanted)| *wanted != Values::Ip) {
        if let Some(list) = source.get(key) {
            report.error_at_key(&list, format!("`{key}` is not possible with CUSTOM"), None);
        }
    }
}
