//! What became of an object, as status conditions: in force, in force otherwise than written, or refused, and why.
//! Pure.

mod authorization;
mod routing;
mod waypoint;
pub mod write;

use std::fmt::Write as _;

use manifest::{Code, Finding, Level, Object, Typed};
use serde::Serialize;

pub use self::waypoint::{addresses, is_own_class};
use crate::compile::Compiler;
use crate::index::Name;
use crate::translate::authz::{self, Fate};

/// Whether node agents enforce an object: Istio's word for it.
const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// Whether the mesh heeds an object.
const ACCEPTED: &str = "Accepted";

/// One condition, as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Condition {
    fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: if holds { "True" } else { "False" }, reason, message: message.into() }
    }
}

/// The conditions of an object of the mesh; none for kinds that are not the mesh's.
pub fn conditions(compiler: &Compiler, object: &Object, findings: &[Finding]) -> Vec<Condition> {
    let about = object.key().to_string();
    let concerns = |finding: &&Finding| {
        finding.object.as_deref() == Some(&about)
            || (finding.is_unreadable() && finding.position.file == *object.file())
    };
    let findings: Vec<&Finding> = findings.iter().filter(concerns).collect();
    match (&object.spec, object.kind.as_str()) {
        (Typed::Unsupported, kind) => vec![Condition::new(
            ACCEPTED,
            false,
            "UnsupportedKind",
            format!("{kind} is not carried by this version of the mesh; nothing of it is in force"),
        )],
        (_, "AuthorizationPolicy") if is_security(object) => {
            let at_waypoints = authorization::at_waypoints(compiler, object, &findings);
            std::iter::once(policy(compiler, object, &findings)).chain(at_waypoints).collect()
        }
        (_, "PeerAuthentication") if is_security(object) => vec![peer_rule(compiler, object, &findings)],
        (Typed::Gateway(gateway), _) => waypoint::gateway(compiler, object, gateway),
        (_, "GatewayClass") => waypoint::class(compiler, object),
        (Typed::VirtualService(_) | Typed::DestinationRule(_), _) => {
            routing::conditions(compiler, object, &findings)
        }
        (Typed::Service(_), _) if findings.iter().any(|finding| finding.code == Code::AddressTaken) => {
            let taken = Condition::new(ACCEPTED, false, "Conflicted", told(&findings));
            std::iter::once(taken).chain(waypoint::bound(compiler, object)).collect()
        }
        (Typed::Broken, _) => vec![Condition::new(ACCEPTED, false, "Invalid", told(&findings))],
        _ => waypoint::bound(compiler, object),
    }
}

fn is_security(object: &Object) -> bool {
    object.api_version.starts_with("security.istio.io/")
}

fn policy(compiler: &Compiler, object: &Object, findings: &[&Finding]) -> Condition {
    let index = compiler.index();
    let name = name_of(object);
    let translated = authz::policy(object, &compiler.context().settings);
    let dry_run = translated.policy.as_ref().is_some_and(|policy| policy.dry_run);
    let mut message = String::new();
    let (holds, reason) = match &translated.fate {
        Fate::Enforced(unseen) => {
            let whom = index.pods_selected(&name);
            let pods = if whom == 1 { "pod" } else { "pods" };
            let _ = write!(message, "enforced by node agents for {whom} {pods}");
            for (rule, attribute) in unseen {
                let at = object.locate_rule(*rule);
                let _ = write!(
                    message,
                    "; rule {rule} ({at}): layer 7 attributes are not seen at layer 4: {attribute}"
                );
            }
            let restricted = !unseen.is_empty();
            if restricted {
                message.push_str(match translated.policy.as_ref().map(|policy| policy.action) {
                    Some(model::authz::Action::Deny) => {
                        "; there such a rule refuses whatever else it matches"
                    }
                    _ => "; there such a rule lets nothing through",
                });
            }
            (!restricted, if restricted { "UnsupportedValue" } else { "Accepted" })
        }
        Fate::Refused(reason) => {
            let _ = write!(message, "everything it is for is refused: {reason}; {}", told(findings));
            (false, "Invalid")
        }
        Fate::AtTargets => {
            message.push_str(
                "it is for what its targetRefs name, which a waypoint enforces; node agents never see it, so only a \
                 policy with a selector, or lateen.dev/require-waypoint, covers what goes around the waypoint",
            );
            (false, "UnsupportedValue")
        }
        Fate::Audit => {
            message.push_str(
                "AUDIT: node agents note nothing, and nothing is refused; waypoints note the requests that match",
            );
            (false, "UnsupportedValue")
        }
        Fate::Custom(provider) => {
            let _ = write!(
                message,
                "CUSTOM: nobody can ask the provider {provider:?} at layer 4, so what its rules match is refused"
            );
            (false, "UnsupportedValue")
        }
    };
    if dry_run {
        message.push_str("; dry run: it is only reported what it would decide");
    }
    Condition::new(ZTUNNEL_ACCEPTED, holds, reason, kept(message, findings))
}

fn peer_rule(compiler: &Compiler, object: &Object, findings: &[&Finding]) -> Condition {
    let index = compiler.index();
    let name = name_of(object);
    if matches!(object.spec, Typed::Broken) {
        let message =
            format!("it counts as STRICT for all it is for, the most it may have meant; {}", told(findings));
        return Condition::new(ZTUNNEL_ACCEPTED, false, "Invalid", message);
    }
    if let Some(other) = index.peer_rule_before(&name) {
        let message =
            format!("PeerAuthentication {other} is for the same workloads and counts instead; remove one");
        return Condition::new(ZTUNNEL_ACCEPTED, false, "Conflicted", message);
    }
    let mut message = String::from("enforced by node agents");
    let selects = index.peer_rule(&name).is_some_and(|rule| !rule.selector.is_empty());
    if selects && name.namespace == *index.root_namespace() {
        message.push_str("; with a selector it is for workloads of its own namespace only");
    }
    Condition::new(ZTUNNEL_ACCEPTED, true, "Accepted", kept(message, findings))
}

fn name_of(object: &Object) -> Name {
    Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.metadata.name)
}

/// The errors, with their places.
fn told(findings: &[&Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.level == Level::Error);
    let texts: Vec<String> = errors.map(|finding| finding.to_string().replace('\n', ";")).collect();
    if texts.is_empty() { "see the controller's findings".to_owned() } else { texts.join("; ") }
}

/// What is in force may be older than what was written last.
fn kept(mut message: String, findings: &[&Finding]) -> String {
    let errors =
        findings.iter().any(|finding| finding.level == Level::Error && finding.code != Code::DuplicateObject);
    if errors {
        let _ =
            write!(message, "; this is its last good version, the file says otherwise: {}", told(findings));
    }
    message
}

#[cfg(test)]
mod tests;
