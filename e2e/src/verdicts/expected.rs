//! What is to come of a request.

use super::policies::{Action, Case, Policy, ROOT, Truth};
use super::way::{Enforcer, Judge, LOBBY, Way, Waypoint, judges};
use super::{Binding, Cell, Client, Request};

/// What is to come of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The server answers. It is asked by this waypoint, or by the client itself.
    Answer(Option<Waypoint>),
    /// It is refused.
    Refusal {
        /// What the client sees.
        how: How,
        /// In whose log the cause is, and whose decision it is.
        by: By,
        /// What the log says, in part.
        cause: String,
    },
}

/// What a client sees of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// 403 with `RBAC: access denied`.
    Forbidden,
    /// 503: a waypoint on the way was refused further on.
    Unavailable,
    /// The connection ends without an answer.
    Reset,
}

/// Who refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The pod's agent.
    Agent,
    /// A waypoint.
    Waypoint(Waypoint),
    /// Whoever was to go by a waypoint that has no replica.
    NoReplica,
}

/// What is to come of a request where these policies are in force.
pub fn expected(case: &Case, cell: Cell) -> Expected {
    let (judges, way) = judges(cell.client, cell.target, cell.binding);
    for judge in &judges {
        if let Some(cause) = refusal(case, judge, cell.binding, cell.request) {
            let by = match judge.enforcer {
                Enforcer::Agent => By::Agent,
                Enforcer::Waypoint(waypoint) => By::Waypoint(waypoint),
            };
            return Expected::Refusal { how: how(cell, by), by, cause };
        }
    }
    match way {
        Way::Straight => Expected::Answer((cell.client == Client::Waypoint).then_some(LOBBY)),
        Way::By(waypoint) => Expected::Answer(Some(waypoint)),
        Way::NoReplica(Waypoint { namespace, name }) => {
            let cause = format!(
                "unknown waypoint: {namespace}/{name}.{namespace}.svc.cluster.local has no ready replica"
            );
            Expected::Refusal { how: how(cell, By::NoReplica), by: By::NoReplica, cause }
        }
    }
}

fn how(cell: Cell, by: By) -> How {
    match by {
        By::Waypoint(_) if cell.request != Request::Bytes => How::Forbidden,
        // The friend's connection is with the waypoint that asks further on.
        By::Agent | By::NoReplica if cell.client == Client::Waypoint => How::Unavailable,
        _ => How::Reset,
    }
}

/// Why a judge refuses, if it does: because of a DENY rule that matches or might; else because there are ALLOW policies, and
/// none has a rule that matches for sure.
fn refusal(case: &Case, judge: &Judge, binding: Binding, request: Request) -> Option<String> {
    if case.strict && judge.peer.is_none() {
        return Some(format!("explicitly denied by: {ROOT}/istio_converted_static_strict (rule 0)"));
    }
    let mut applying: Vec<(&Policy, &str, Truth)> = Vec::new();
    for policy in &case.policies {
        if let Some(namespace) = policy.applies(judge, binding) {
            applying.push((policy, namespace, policy.matches(judge, request)));
        }
    }
    let denied =
        applying.iter().find(|(policy, _, truth)| policy.action == Action::Deny && *truth > Truth::No);
    if let Some((policy, namespace, truth)) = denied {
        let unseen = if *truth == Truth::Unknown { ", which restricts" } else { ")" };
        return Some(format!("explicitly denied by: {namespace}/{} (rule 0{unseen}", policy.name));
    }
    let mut allowing = applying.iter().filter(|(policy, ..)| policy.action == Action::Allow).peekable();
    let (policy, namespace, _) = *allowing.peek()?;
    if allowing.any(|(.., truth)| *truth == Truth::Yes) {
        return None;
    }
    Some(format!("allow policies exist, but none allowed (considered: {namespace}/{}", policy.name))
}
