//! Asking the controllers of a cluster over forwarded ports. What answers is believed, also that something was revoked, so
//! it has to be a controller: labels are anybody's, the namespace of the mesh is not.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{self, ClusterArgs, failed};

use super::{Answer, AskError, PATIENCE, page, request};

/// Where each serves its pages, on its pod's loopback: `ADMIN_ADDR` of the chart.
const PORT: u16 = 15_000;
/// What everything of ours has.
const OURS: &str = "app.kubernetes.io/part-of=lateen";
/// The label `app` of the control plane that is called default; those of other revisions have their names behind it.
const APP: &str = "lateen-ctrl";

/// Asks every controller that runs.
pub(super) fn ask(args: &ClusterArgs, method: &str, path: &str) -> Result<Vec<Answer>, AskError> {
    run(async {
        let (pods, names) = controllers(args).await?;
        let mut answers = Vec::new();
        for name in &names {
            answers.push(ask_pod(&pods, name, method, path).await?);
        }
        Ok(answers)
    })
}

/// Asks one of them.
pub(super) fn ask_one(args: &ClusterArgs, method: &str, path: &str) -> Result<Answer, AskError> {
    run(async {
        let (pods, names) = controllers(args).await?;
        ask_pod(&pods, &names[0], method, path).await
    })
}

fn run<T>(work: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(AskError::Unreachable)?.block_on(work)
}

/// Pods of the namespace in which the mesh is installed, and the names of the controllers that run, those of the default
/// revision before others; at least one.
async fn controllers(args: &ClusterArgs) -> Result<(Api<Pod>, Vec<String>), AskError> {
    let cluster = cluster::connect(args).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &args.istio_namespace);
    let list = pods
        .list(&ListParams::default().labels(OURS))
        .await
        .map_err(|error| failed("the pods of ctrl", &error))?;
    let mut found: Vec<_> = list.items.iter().filter_map(controller).collect();
    found.sort_unstable();
    let names: Vec<String> = found.into_iter().map(|(_, name)| name.to_owned()).collect();
    match names.is_empty() {
        true => {
            let namespace = args.istio_namespace.clone();
            Err(AskError::NotInstalled { cluster: cluster.name, namespace })
        }
        false => Ok((pods, names)),
    }
}

/// What of the revision a pod's controller has behind its name, and the pod's name; nothing for a pod that is no
/// controller, or not one that runs. It is as the chart makes it: with the account that only the controller's pods are
/// meant to have, and made by its Deployment, whose ReplicaSets have names of their own.
fn controller(pod: &Pod) -> Option<(&str, &str)> {
    let (metadata, spec, status) = (&pod.metadata, pod.spec.as_ref()?, pod.status.as_ref()?);
    let labels = metadata.labels.as_ref()?;
    let app = labels.get("app")?.as_str();
    let revision = app.strip_prefix(APP).filter(|rest| rest.is_empty() || rest.starts_with('-'))?;
    let set = format!("{app}-{}", labels.get("pod-template-hash")?);
    let mut owners =
        metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    let owned = owners.any(|owner| owner.kind == "ReplicaSet" && owner.name == set);
    let runs = status.phase.as_deref() == Some("Running") && metadata.deletion_timestamp.is_none();
    let ours = owned && spec.service_account_name.as_deref() == Some(app);
    Some((revision, metadata.name.as_deref()?)).filter(|_| runs && ours)
}

async fn ask_pod(pods: &Api<Pod>, name: &str, method: &str, path: &str) -> Result<Answer, AskError> {
    let unanswered = |reason: String| AskError::Forward { pod: name.to_owned(), reason };
    let exchange = async {
        let mut forwarder = pods
            .portforward(name, &[PORT])
            .await
            .map_err(|error| unanswered(cluster::refusal(&error).unwrap_or_else(|| error.to_string())))?;
        let mut stream =
            forwarder.take_stream(PORT).ok_or_else(|| unanswered("the port is not forwarded".to_owned()))?;
        let mut answer = Vec::new();
        let talk = async {
            stream.write_all(request(method, path).as_bytes()).await?;
            stream.read_to_end(&mut answer).await
        };
        talk.await.map_err(|error| unanswered(error.to_string()))?;
        forwarder.abort();
        Ok::<_, AskError>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| unanswered(format!("nothing came within {} s", PATIENCE.as_secs())))??;
    if answer.is_empty() {
        return Err(unanswered(format!("nothing answers there on port {PORT}; an older version does not")));
    }
    Ok(Answer { ctrl: name.to_owned(), page: page(&answer)? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {
                "name": "lateen-ctrl-77-x",
                "deletionTimestamp": null,
                "labels": {"app": "lateen-ctrl", "pod-template-hash": "77"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "lateen-ctrl-77", "uid": "1", "controller": true
                }],
            },
            "spec": {"serviceAccountName": "lateen-ctrl", "containers": []},
            "status": {"phase": "Running"},
        })
    }

    /// A pod with labels alone may be anybody's.
    #[test]
    fn who_is_asked_is_a_controller_as_the_chart_makes_it() {
        let tell = |changes: &[(&str, Value)]| {
            let mut pod = pod();
            for (pointer, value) in changes {
                *pod.pointer_mut(pointer).expect("a field") = value.clone();
            }
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            controller(&pod).map(|(revision, name)| (revision.to_owned(), name.to_owned()))
        };
        let found = |revision: &str| Some((revision.to_owned(), "lateen-ctrl-77-x".to_owned()));
        let (app, account, owner) =
            ("/metadata/labels/app", "/spec/serviceAccountName", "/metadata/ownerReferences/0/name");
        assert_eq!(tell(&[]), found(""));
        let canary = || json!("lateen-ctrl-canary");
        assert_eq!(
            tell(&[(app, canary()), (account, canary()), (owner, json!("lateen-ctrl-canary-77"))]),
            found("-canary")
        );
        for (about, pointer, value) in [
            ("another account", account, json!("default")),
            ("another revision's account", account, canary()),
            ("made by hand", "/metadata/ownerReferences", json!([])),
            ("by another Deployment", owner, json!("mine-77")),
            ("by a Job", "/metadata/ownerReferences/0/kind", json!("Job")),
            ("owned, but not controlled", "/metadata/ownerReferences/0/controller", json!(false)),
            ("another name", app, json!("lateen-ctrlx")),
            ("not yet there", "/status/phase", json!("Pending")),
            ("about to end", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        ] {
            assert_eq!(tell(&[(pointer, value)]), None, "{about}");
        }
    }
}
