//! The second lock of a node that starts: whoever makes nodes may have them registered with a taint, which keeps pods off
//! until this agent captures what starts there. The agent takes it away, once.

use std::{future::Future, time::Duration};

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

/// The taint's key: Istio's, so that nodes made for it need no change.
const TAINT: &str = "cni.istio.io/not-ready";
/// Between two looks or attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes the taint off the node as soon as `ready`.
pub(super) async fn lift(client: Client, node: String, ready: impl Future<Output = ()>) {
    ready.await;
    let nodes = Api::<Node>::all(client);
    let mut told = false;
    loop {
        let outcome = match nodes.get(&node).await {
            Ok(found) => match without(&found) {
                Some(patch) => {
                    nodes.patch(&node, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| true)
                }
                None => Ok(false),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(lifted) => {
                if lifted {
                    info!(node, taint = TAINT, "pods may start on this node");
                }
                return;
            }
            // Somebody else has changed the node meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) if !told => {
                told = true;
                warn!(%error, node, taint = TAINT, "the node's taint cannot be looked at; trying again");
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// The change that leaves every other taint; refused if the node was changed since. `None`: it has none of ours.
fn without(node: &Node) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let others: Vec<&Taint> = taints.iter().filter(|taint| taint.key != TAINT).collect();
    (others.len() != taints.len()).then(|| {
        json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": others}})
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::without;

    #[test]
    fn only_our_taint_goes() {
        let node = |taints| {
            serde_json::from_value(
                json!({"metadata": {"name": "n", "resourceVersion": "7"}, "spec": {"taints": taints}}),
            )
            .expect("a node")
        };
        let ours = json!({"key": "cni.istio.io/not-ready", "effect": "NoSchedule"});
        let other = json!({"key": "gpu", "effect": "NoExecute", "value": "x"});
        assert_eq!(
            without(&node(json!([ours, other]))),
            Some(json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}}))
        );
        assert_eq!(without(&node(json!([ours]))).expect("a change")["spec"]["taints"], json!([]));
        assert_eq!(without(&node(json!([other]))), None);
        assert_eq!(without(&node(json!(null))), None);
    }
}
