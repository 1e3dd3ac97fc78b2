//! Waiting until what was applied runs: what is ready is said once, what is not with the reason, if there is one.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams};
use serde_json::Value;

use crate::cluster::objects::Reference;
use crate::cluster::{Cluster, ClusterError, failed};

use super::progress::Progress;

/// Between two looks.
const LOOKS: Duration = Duration::from_millis(500);

/// How far a Deployment or DaemonSet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rollout {
    /// All of its pods are of its newest form and ready.
    Ready(String),
    /// Not yet.
    Waiting(String),
}

/// Reads it off the object.
pub(super) fn rollout(object: &Value) -> Rollout {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Rollout::Waiting("not looked at yet".to_owned());
    }
    let (wanted, updated, ready) = match object["kind"].as_str() {
        Some("DaemonSet") => (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        _ => (
            object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        ),
    };
    // Those of the form before are there until the new ones are ready.
    let leaving = match object["kind"].as_str() {
        Some("Deployment") => number("/status/replicas") > updated,
        _ => false,
    };
    match updated >= wanted && ready >= wanted && !leaving {
        true => Rollout::Ready(format!("{ready}/{wanted}")),
        false => Rollout::Waiting(format!("{} of {wanted}", ready.min(updated))),
    }
}

/// Why a pod is not ready, in the words of who holds it up.
pub(super) fn hindrance(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .filter(|one| one.type_ == "PodScheduled" && one.status == "False")
        .find_map(|one| one.message.clone());
    if let Some(message) = unscheduled {
        return Some(format!("{name} has no node: {message}"));
    }
    let containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers.filter(|one| !one.ready).find_map(|one| container(name, one))
}

fn container(pod: &str, container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let text = match (ended, &waiting.message) {
            (Some(ended), _) => format!("{reason}, ended with {}; see its log", ended.exit_code),
            (None, Some(message)) => format!("{reason}: {message}"),
            (None, None) => reason.to_owned(),
        };
        return Some(format!("{pod}: {text}"));
    }
    state.running.as_ref().map(|_| format!("{pod}: runs and is not ready; see its log"))
}

/// Waits for all Deployments and DaemonSets among the objects.
///
/// # Errors
/// One is not ready in time: with what its pods say.
pub(super) async fn wait(
    cluster: &Cluster,
    objects: &[Value],
    timeout: u64,
    progress: &mut Progress,
) -> Result<(), ClusterError> {
    let workloads = objects.iter().filter(|one| one["kind"] == "Deployment" || one["kind"] == "DaemonSet");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(timeout);
    for workload in workloads {
        let Some(reference) = Reference::of(workload) else { continue };
        loop {
            let now = reference.get(&cluster.client).await?;
            let now = now.map(|object| serde_json::to_value(object).unwrap_or_default()).unwrap_or_default();
            let waiting = match rollout(&now) {
                Rollout::Ready(how) => {
                    progress.done(&reference.shown(), &format!("ready  {how}"));
                    break;
                }
                Rollout::Waiting(how) => how,
            };
            let reasons = hindrances(cluster, &reference.namespace, &now).await?;
            let reason = reasons.first().cloned().unwrap_or_default();
            progress.waiting(&format!("{}: {waiting} {reason}", reference.shown()));
            if tokio::time::Instant::now() >= deadline {
                return Err(ClusterError::Refused {
                    doing: format!("{} is not ready after {timeout} s ({waiting})", reference.shown()),
                    reason: match &reasons[..] {
                        [] => format!("see: kubectl describe -n {} {}", reference.namespace, reference.kind),
                        reasons => reasons.join("; "),
                    },
                });
            }
            tokio::time::sleep(LOOKS).await;
        }
    }
    Ok(())
}

/// What holds up the pods of a workload, each reason once.
async fn hindrances(
    cluster: &Cluster,
    namespace: &str,
    workload: &Value,
) -> Result<Vec<String>, ClusterError> {
    let Some(app) = workload.pointer("/spec/selector/matchLabels/app").and_then(Value::as_str) else {
        return Ok(Vec::new());
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let list = pods
        .list(&ListParams::default().labels(&format!("app={app}")).limit(100))
        .await
        .map_err(|error| failed(format!("pods of {namespace}"), &error))?;
    let mut reasons: Vec<String> = list.items.iter().filter_map(hindrance).collect();
    reasons.truncate(5);
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::{Rollout, hindrance, rollout};

    #[test]
    fn ready_is_what_is_new_and_available() {
        let deployment = |status: Value| json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
        let daemons =
            |status: Value| json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": status});
        let ready = |text: &str| Rollout::Ready(text.to_owned());
        let waiting = |text: &str| Rollout::Waiting(text.to_owned());
        for (object, wanted) in [
            (deployment(json!({"observedGeneration": 1})), waiting("not looked at yet")),
            (
                deployment(
                    json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}),
                ),
                waiting("1 of 2"),
            ),
            (
                deployment(
                    json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}),
                ),
                waiting("2 of 2"),
            ),
            (
                deployment(
                    json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                ),
                ready("2/2"),
            ),
            (
                daemons(
                    json!({"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 1}),
                ),
                waiting("1 of 3"),
            ),
            (
                daemons(
                    json!({"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3}),
                ),
                ready("3/3"),
            ),
            // A cluster without nodes that it is for.
            (daemons(json!({"observedGeneration": 1})), ready("0/0")),
        ] {
            assert_eq!(rollout(&object), wanted, "{object}");
        }
    }

    #[test]
    fn who_waits_says_for_what() {
        let pod = |status: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).expect("a pod")
        };
        let containers = |state: Value, last: Value| {
            pod(json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "state": state, "lastState": last}]}))
        };
        let scheduling =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}]});
        for (pod, wanted) in [
            (pod(json!({})), None),
            (pod(scheduling), Some("p has no node: 0/2 nodes")),
            (
                containers(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}), json!({})),
                Some("p: ErrImagePull: not found"),
            ),
            (
                containers(
                    json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                    json!({"terminated": {"exitCode": 3}}),
                ),
                Some("p: CrashLoopBackOff, ended with 3; see its log"),
            ),
            (containers(json!({"running": {}}), json!({})), Some("p: runs and is not ready; see its log")),
        ] {
            assert_eq!(hindrance(&pod).as_deref(), wanted);
        }
    }
}
