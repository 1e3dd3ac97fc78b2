//! Whether a request or connection may pass: every policy for the target that was asked for, and every one that selects the
//! workload chosen, judged by who the original client is. The workload's agent judges again only what does not come from
//! a waypoint that it is bound to.
//!
//! Where a rule leads to another service behind this waypoint, that one's policies have to let it pass as well; and where it
//! leads out of the namespace whose rule it is, those there judge the head as it goes, which is the rule's work.

use std::net::SocketAddr;
use std::sync::Arc;

use model::address::NamespacedHostname;
use model::authz::decide::RuleName;
use model::authz::{Addressee, Cause, Decision, Facts, Sni, Subject};
use model::mesh::Mesh;
use model::request::Request;
use model::service::Service;
use model::workload::Workload;
use thiserror::Error;

use crate::listen::Inbound;
use crate::route::Endpoint;
use crate::target;
use crate::worker::Worker;

/// It may not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("connection closed due to policy rejection: {cause}")]
pub(crate) struct Denied {
    /// The resource and rule that decided, or what is missing.
    pub(crate) cause: String,
    /// Envoy's word for it (`%RESPONSE_CODE_DETAILS%`).
    pub(crate) details: String,
}

/// It may.
#[derive(Debug)]
pub(crate) struct Passed {
    /// What was decided, by which policy and rule.
    pub(crate) decision: Decision,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judged<'a> {
    /// A connection of which no more is seen than the server's name in its own TLS.
    Connection(Sni<'a>),
    /// A request.
    Request {
        /// As it came.
        came: &'a Request<'a>,
        /// As it goes, where it [`leads_away`].
        goes: Option<&'a Request<'a>>,
    },
}

/// Whether a request goes to a service or workload of another namespace than that of the service asked for, whose rules it goes
/// by. What goes through another waypoint is that one's to judge.
pub(crate) fn leads_away(inbound: &Inbound, endpoint: &Endpoint) -> bool {
    let Some(asked) = inbound.target.service.as_ref().filter(|_| !endpoint.waypoint) else { return false };
    let home = asked.key.namespace();
    endpoint.service.as_ref().is_some_and(|service| service.key.namespace() != home)
        || endpoint.workload.as_ref().is_some_and(|workload| **workload.namespace() != *home)
}

/// Judges what is to go to an endpoint, or to none where it is answered here.
///
/// # Errors
/// A policy denies it, or one that it is to be judged by has not arrived within 5 s.
pub(crate) async fn judge(
    worker: &Worker,
    inbound: &Inbound,
    endpoint: Option<&Endpoint>,
    judged: Judged<'_>,
) -> Result<Passed, Denied> {
    let state = &worker.waypoint.state;
    let mut last = None;
    let mut decide = |mesh: &Mesh| match decide(worker, mesh, inbound, endpoint, judged) {
        Ok(decision) => Some(decision),
        Err(missing) => {
            last = Some(missing);
            None
        }
    };
    // Nearly always everything is there, and nothing is waited for.
    let decided = decide(&state.read());
    let decided = match decided {
        Some(decided) => Some(decided),
        None => Box::pin(state.wait_for(decide)).await,
    };
    let decision = decided.ok_or_else(|| denied(last.unwrap_or_default(), None))?;
    verdict(&decision).map(|()| Passed { decision })
}

/// Judges what is carried already again whenever a rule changes, until one denies it. What has not arrived does not count
/// against it yet.
pub(crate) async fn until_denied(
    worker: &Worker,
    inbound: &Inbound,
    endpoint: &Endpoint,
    judged: Judged<'_>,
) -> Denied {
    let mut changes = worker.waypoint.state.changes();
    // It may have changed since it was judged.
    let mut judged_by = None;
    loop {
        let rules = changes.borrow_and_update().rules;
        if judged_by != Some(rules) {
            judged_by = Some(rules);
            if let Err(denied) = judge_again(worker, inbound, endpoint, judged) {
                return denied;
            }
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn judge_again(
    worker: &Worker,
    inbound: &Inbound,
    endpoint: &Endpoint,
    judged: Judged<'_>,
) -> Result<(), Denied> {
    let mesh = worker.waypoint.state.read();
    let decided = decide(worker, &mesh, inbound, Some(endpoint), judged);
    decided.map_or(Ok(()), |decision| verdict(&decision))
}

fn decide(
    worker: &Worker,
    mesh: &Mesh,
    inbound: &Inbound,
    endpoint: Option<&Endpoint>,
    judged: Judged<'_>,
) -> Result<Decision, String> {
    let to = Addressee {
        gateway: &worker.waypoint.own.gateway,
        service: inbound.target.service.as_ref().map(|service| &service.key),
        service_entry: None,
        endpoint: endpoint.and_then(chosen),
    };
    let came = facts(inbound, judged);
    let decision = mesh.judge_for(&to, came).map_err(|missing| missing.to_string())?;
    let Some(endpoint) = endpoint.filter(|_| decision.allows()) else { return Ok(decision) };
    let service = led_to(mesh, inbound, endpoint);
    let goes = match judged {
        Judged::Request { goes: Some(goes), .. } => Facts::from(goes),
        _ if service.is_some() => came,
        _ => return Ok(decision),
    };
    let to = Addressee { service, ..to };
    let there = mesh.judge_for(&to, goes.to(Some(endpoint.asked))).map_err(|missing| missing.to_string())?;
    Ok(decision.and(there))
}

fn facts<'a>(inbound: &'a Inbound, judged: Judged<'a>) -> Facts<'a> {
    match judged {
        Judged::Request { came, .. } => Facts::from(came),
        Judged::Connection(sni) => {
            let subject = Subject {
                source: inbound.client.peer.addr(),
                identity: Some(&inbound.client.identity),
                destination: inbound.target.destination,
            };
            Facts::from(&subject).with_sni(sni)
        }
    }
}

/// The service that a rule leads to instead of the one asked for, if this waypoint stands in front of it.
fn led_to<'a>(mesh: &Mesh, inbound: &Inbound, endpoint: &'a Endpoint) -> Option<&'a NamespacedHostname> {
    let asked = inbound.target.service.as_ref()?;
    let another = |service: &&Arc<Service>| service.key != asked.key && !endpoint.waypoint;
    let service = endpoint.service.as_ref().filter(another)?;
    target::is_bound(mesh, &inbound.own, service).then_some(&service.key)
}

/// The workload that answers. Behind another waypoint it is not chosen yet: that one judges for it.
fn chosen(endpoint: &Endpoint) -> Option<(&Workload, SocketAddr)> {
    let workload = endpoint.workload.as_deref().filter(|_| !endpoint.waypoint)?;
    Some((workload, endpoint.address))
}

fn verdict(decision: &Decision) -> Result<(), Denied> {
    for rule in &decision.dry_run {
        tracing::info!(target: "rbac", %rule, action = %rule.action, "dry run: the rule matches");
    }
    for rule in &decision.audited {
        tracing::info!(target: "rbac", %rule, "audit: the rule matches");
    }
    if decision.allows() {
        return Ok(());
    }
    let rule = match &decision.cause {
        Cause::DeniedBy { rule, .. } => Some(rule),
        _ => None,
    };
    Err(denied(decision.cause.to_string(), rule))
}

fn denied(cause: String, rule: Option<&RuleName>) -> Denied {
    let matched = match rule {
        Some(RuleName { policy, rule, .. }) => {
            format!("ns[{}]-policy[{}]-rule[{rule}]", policy.namespace, policy.name)
        }
        None => String::from("none"),
    };
    Denied { cause, details: format!("rbac_access_denied_matched_policy[{matched}]") }
}

#[cfg(test)]
mod tests {
    use model::authz::{Action, Policy, Rule, decide};

    use super::*;
    use crate::tests::fixtures::nobody;

    #[test]
    fn refusals_name_their_rule_as_envoy_does() {
        let deny = Policy { action: Action::Deny, rules: [Rule::default()].into(), ..nobody("shop") };
        let subject = Subject {
            source: ([10, 0, 0, 1], 1).into(),
            identity: None,
            destination: ([10, 0, 0, 2], 80).into(),
        };
        for (policy, matched) in [(deny, "ns[shop]-policy[nobody]-rule[0]"), (nobody("shop"), "none")] {
            let denied = verdict(&decide(&[policy], &subject)).expect_err("nobody may");
            assert_eq!(denied.details, format!("rbac_access_denied_matched_policy[{matched}]"));
        }
    }
}
