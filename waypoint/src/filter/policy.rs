//! Whether a request or connection may go to an endpoint: the policies that select its workload, judged by who the
//! original client is. Its agent judges again only what does not come from a waypoint that it is bound to.

use model::authz::{Decision, Subject};
use model::mesh::Mesh;
use thiserror::Error;

use crate::listen::Inbound;
use crate::route::Endpoint;
use crate::worker::Worker;

/// It may not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("connection closed due to policy rejection: {cause}")]
pub(crate) struct Denied {
    /// The resource and rule that decided, or what is missing.
    pub(crate) cause: String,
}

/// Judges a connection to an endpoint.
///
/// # Errors
/// A policy denies it, or one that it is to be judged by has not arrived within 5 s.
pub(crate) async fn judge_connection(
    worker: &Worker,
    inbound: &Inbound,
    endpoint: &Endpoint,
) -> Result<(), Denied> {
    // Another waypoint judges for itself, by who we are.
    if endpoint.waypoint || endpoint.workload.is_none() {
        return Ok(());
    }
    let state = &worker.waypoint.state;
    let mut last = None;
    let mut decide = |mesh: &Mesh| match judge(mesh, inbound, endpoint) {
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
        None => state.wait_for(decide).await,
    };
    let decision = decided.ok_or_else(|| Denied { cause: last.unwrap_or_default() })?;
    for rule in &decision.dry_run {
        tracing::info!(target: "rbac", %rule, action = %rule.action, "dry run: the rule matches");
    }
    match decision.allows() {
        true => Ok(()),
        false => Err(Denied { cause: decision.cause.to_string() }),
    }
}

fn judge(mesh: &Mesh, inbound: &Inbound, endpoint: &Endpoint) -> Result<Decision, String> {
    let Some(workload) = &endpoint.workload else { return Err(String::from("the endpoint is not known")) };
    let subject = Subject {
        source: inbound.client.peer.addr(),
        identity: Some(&inbound.client.identity),
        destination: endpoint.address,
    };
    mesh.judge(workload, &subject).map_err(|missing| missing.to_string())
}
