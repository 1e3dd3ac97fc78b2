//! AuthorizationPolicy → [`Policy`], once as agents enforce it at layer 4, once as waypoints do.
//!
//! Everything that the object restricts is in the result: what the enforcer sees as itself, what it cannot see by name,
//! as [`Match::unseen`](model::authz::Match::unseen), which the engine counts against an ALLOW rule and for a DENY rule.
//! Rule `i` of the object is rule `i` of the result.

mod aliases;
mod rule;
mod source;
mod targets;

use std::fmt::Write as _;

use manifest::istio::{Action as Asked, AuthorizationPolicy};
use manifest::{BrokenScope, Object, Typed};
use model::address::Str;
use model::authz::{Action, Layer, Policy, PolicyScope, Rule};
use model::mesh::Settings;
use model::workload::PolicyName;

use super::Context;
use crate::index::Name;

/// Set, a policy only reports what it would decide.
const DRY_RUN: &str = "istio.io/dry-run";

/// What becomes of an AuthorizationPolicy at an enforcer.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// What enforcers of that layer are sent.
    pub policy: Option<Policy>,
    /// In words.
    pub fate: Fate,
}

/// What becomes of an AuthorizationPolicy at an enforcer, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is enforced. The attributes that the enforcer does not see, each once, by rule.
    Enforced(Vec<(usize, Str)>),
    /// It cannot be read; everything it is for is refused.
    Refused(String),
    /// It is for what its targets name: a waypoint's to enforce.
    AtTargets,
    /// It asks to note requests, which agents do not; nothing is refused because of it.
    Audit,
    /// It asks a provider that nobody can ask here: what its rules match is refused.
    Custom(String),
}

/// Where a policy stands, which some of its words depend on.
#[derive(Debug, Clone, Copy)]
struct Here<'a> {
    /// Its namespace: that of accounts without one.
    namespace: &'a Str,
    /// The mesh: its trust domains are one to principals.
    mesh: &'a Settings,
    /// What the enforcer sees.
    layer: Layer,
}

/// Translates an object of that kind for agents.
pub fn policy(object: &Object, mesh: &Settings) -> Translated {
    match &object.spec {
        Typed::AuthorizationPolicy(spec) if spec.targets().next().is_some() => {
            Translated { policy: None, fate: Fate::AtTargets }
        }
        Typed::AuthorizationPolicy(spec) => {
            let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
            let scope = scope(object, selects, &mesh.root_namespace);
            let translated = readable(object, spec, scope, Layer::Four, mesh);
            match spec.action {
                Asked::Audit => Translated { fate: Fate::Audit, ..translated },
                _ => translated,
            }
        }
        _ => match object.broken_scope() {
            BrokenScope::Targets => Translated { policy: None, fate: Fate::Refused(UNREADABLE.to_owned()) },
            selecting => {
                let scope = scope_of_broken(object, &selecting, &mesh.root_namespace);
                broken(object, scope, UNREADABLE)
            }
        },
    }
}

/// Translates an object of that kind for waypoints: they see requests, and judge by what is attached to targets.
pub fn for_waypoints(object: &Object, context: &Context) -> Translated {
    let mesh = &context.settings;
    match &object.spec {
        Typed::AuthorizationPolicy(spec) => {
            let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
            let scope = match spec.targets().next() {
                Some(_) => PolicyScope::Targets(targets::targets(object, spec, context).0.into()),
                None => scope(object, selects, &mesh.root_namespace),
            };
            readable(object, spec, scope, Layer::Seven, mesh)
        }
        _ => {
            let known =
                targets::of_broken(object, context).map(|targets| PolicyScope::Targets(targets.into()));
            let scope = known
                .unwrap_or_else(|| scope_of_broken(object, &object.broken_scope(), &mesh.root_namespace));
            broken(object, scope, UNREADABLE)
        }
    }
}

/// The targets of a policy that no waypoint judges by, each with the reason.
pub fn targets_left_out(object: &Object, context: &Context) -> Vec<String> {
    match &object.spec {
        Typed::AuthorizationPolicy(spec) => targets::targets(object, spec, context).1,
        _ => Vec::new(),
    }
}

const UNREADABLE: &str = "it does not fit its schema";

fn readable(
    object: &Object,
    spec: &AuthorizationPolicy,
    scope: PolicyScope,
    layer: Layer,
    mesh: &Settings,
) -> Translated {
    let action = match spec.action {
        Asked::Allow => Action::Allow,
        Asked::Deny | Asked::Custom => Action::Deny,
        Asked::Audit => Action::Audit,
    };
    let name = name_of(object);
    let here = Here { namespace: &name.namespace, mesh, layer };
    let rules = spec.rules.iter().map(|rule| rule::rule(rule, action, here));
    let (mut rules, mut fate) = match rules.collect::<Result<Box<[Rule]>, String>>() {
        Ok(rules) => {
            let unseen = unseen(&rules);
            (rules, Fate::Enforced(unseen))
        }
        // What only notes does not refuse because it cannot be read.
        Err(reason) if action == Action::Audit => (Box::default(), Fate::Refused(reason)),
        Err(reason) => return broken(object, scope, &reason),
    };
    if spec.action == Asked::Custom {
        let provider = spec.provider.as_ref().map(|provider| provider.name.clone()).unwrap_or_default();
        rule::restrict(&mut rules, &format!("provider {provider}").into());
        fate = Fate::Custom(provider);
    }
    let dry_run = is_dry_run(object);
    Translated { policy: Some(Policy { name, scope, action, rules, dry_run, invalid: None }), fate }
}

/// One that refuses everything that an unreadable policy is for.
fn broken(object: &Object, scope: PolicyScope, reason: &str) -> Translated {
    let policy = Policy {
        name: name_of(object),
        scope,
        action: Action::Deny,
        // On the wire this is what refuses everything; the model's own word for it is `invalid`.
        rules: [Rule::default()].into(),
        dry_run: is_dry_run(object),
        invalid: Some(reason.into()),
    };
    Translated { policy: Some(policy), fate: Fate::Refused(reason.to_owned()) }
}

/// Targets that cannot be told may be anything of the namespace.
fn scope_of_broken(object: &Object, said: &BrokenScope, root_namespace: &str) -> PolicyScope {
    let selects = matches!(said, BrokenScope::Selector(labels) if !labels.is_empty());
    scope(object, selects, root_namespace)
}

/// The name under which a policy is sent. One that Kubernetes would not take (the policy is refused for it, and denies
/// what it is for) is spelt so that it can neither be mistaken for one of a converted PeerAuthentication, nor for two
/// names: its odd bytes as `..` and two digits, which no good name has.
pub fn policy_name(name: &Name) -> PolicyName {
    let spell = |text: &str| {
        let mut spelt = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' => spelt.push(char::from(byte)),
                odd => {
                    // Writing to a string cannot fail.
                    let _ = write!(spelt, "..{odd:02x}");
                }
            }
        }
        Str::from(spelt)
    };
    PolicyName { namespace: spell(&name.namespace), name: spell(&name.name) }
}

fn name_of(object: &Object) -> PolicyName {
    policy_name(&Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.metadata.name))
}

fn scope(object: &Object, selects: bool, root_namespace: &str) -> PolicyScope {
    match object.metadata.namespace.as_deref() {
        _ if selects => PolicyScope::Workload,
        Some(namespace) if namespace == root_namespace => PolicyScope::Global,
        _ => PolicyScope::Namespace,
    }
}

fn is_dry_run(object: &Object) -> bool {
    object.annotation(DRY_RUN) == Some("true")
}

fn unseen(rules: &[Rule]) -> Vec<(usize, Str)> {
    let of = |(index, rule): (usize, &Rule)| -> Vec<(usize, Str)> {
        rule.unseen().into_iter().map(|name| (index, Str::from(name))).collect()
    };
    rules.iter().enumerate().flat_map(of).collect()
}

#[cfg(test)]
mod tests;
