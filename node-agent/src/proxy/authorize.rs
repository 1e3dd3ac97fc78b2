//! Whether a connection may be delivered: the policies that apply to this pod, asked of the one engine in `model`.

use model::Identity;
use model::address::{AppAddress, PeerAddress};
use model::authz::{Decision, Subject};
use model::mesh::Mesh;

use super::pod::Pod;
use super::state::State;

/// What the text of a policy's refusal begins with, and that of the end of a connection that a changed policy refuses. The far
/// end knows them by these words (`lateen-cause`), as its access log has them.
pub(crate) const REFUSED: &str = "connection closed due to policy rejection: ";
pub(crate) const NO_LONGER: &str = "connection closed due to policy change: ";

/// What a text says of the policy, where it is one of these.
pub(crate) fn by_policy(text: &str) -> Option<&str> {
    [REFUSED, NO_LONGER].iter().find_map(|words| text.split_once(words)).map(|(_, cause)| cause)
}

/// What can be said of a connection now.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// It was judged.
    Decided(Decision),
    /// Something it is to be judged by has not arrived.
    NotKnown(String),
}

/// Judges a connection by what is known now.
pub(crate) fn judge(
    state: &State,
    pod: &Pod,
    peer: PeerAddress,
    identity: Option<&Identity>,
    delivered: AppAddress,
) -> Judgement {
    judge_in(&state.read(), pod, peer, identity, delivered)
}

/// Judges a connection, waiting for policies that have not arrived; what does not arrive in time refuses it.
pub(crate) async fn judge_in_time(
    state: &State,
    pod: &Pod,
    peer: PeerAddress,
    identity: Option<&Identity>,
    delivered: AppAddress,
) -> Judgement {
    let mut last = None;
    let decided = state
        .wait_for(|mesh| match judge_in(mesh, pod, peer, identity, delivered) {
            Judgement::Decided(decision) => Some(decision),
            Judgement::NotKnown(why) => {
                last = Some(why);
                None
            }
        })
        .await;
    match decided {
        Some(decision) => Judgement::Decided(decision),
        None => Judgement::NotKnown(last.unwrap_or_default()),
    }
}

fn judge_in(
    mesh: &Mesh,
    pod: &Pod,
    peer: PeerAddress,
    identity: Option<&Identity>,
    delivered: AppAddress,
) -> Judgement {
    let Some(local) = pod.workload(mesh) else {
        return Judgement::NotKnown(format!(
            "the controller does not know pod {}/{}",
            pod.namespace, pod.name
        ));
    };
    let subject = Subject { source: peer.addr(), identity, destination: delivered.addr() };
    match mesh.judge(local, &subject) {
        Ok(decision) => Judgement::Decided(decision),
        Err(missing) => Judgement::NotKnown(missing.to_string()),
    }
}
