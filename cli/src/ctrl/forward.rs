//! Asking the controllers of a cluster over forwarded ports.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{self, Cluster, ClusterArgs, failed};

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
        let (cluster, pods) = controllers(args).await?;
        let mut answers = Vec::new();
        for pod in pods {
            answers.push(ask_pod(&cluster, &pod, method, path).await?);
        }
        Ok(answers)
    })
}

/// Asks one of them.
pub(super) fn ask_one(args: &ClusterArgs, method: &str, path: &str) -> Result<Answer, AskError> {
    run(async {
        let (cluster, pods) = controllers(args).await?;
        ask_pod(&cluster, &pods[0], method, path).await
    })
}

fn run<T>(work: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(AskError::Unreachable)?.block_on(work)
}

/// Namespace and name of each that runs, of the default revision before others; at least one.
async fn controllers(args: &ClusterArgs) -> Result<(Cluster, Vec<(String, String)>), AskError> {
    let cluster = cluster::connect(args).await?;
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let list = pods
        .list(&ListParams::default().labels(OURS))
        .await
        .map_err(|error| failed("the pods of ctrl", &error))?;
    let runs = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let ends = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let named = list.items.into_iter().filter(|pod| runs(pod) && !ends(pod)).filter_map(|pod| {
        let app = pod.metadata.labels?.remove("app")?;
        let revision = app.strip_prefix(APP)?.to_owned();
        Some((revision, pod.metadata.namespace?, pod.metadata.name?))
    });
    let mut found: Vec<(String, String, String)> = named.collect();
    found.sort();
    match found.is_empty() {
        true => Err(AskError::NotInstalled(cluster.name)),
        false => Ok((cluster, found.into_iter().map(|(_, namespace, name)| (namespace, name)).collect())),
    }
}

async fn ask_pod(
    cluster: &Cluster,
    (namespace, name): &(String, String),
    method: &str,
    path: &str,
) -> Result<Answer, AskError> {
    let unanswered = |reason: String| AskError::Forward { pod: name.clone(), reason };
    let exchange = async {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
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
    Ok(Answer { ctrl: name.clone(), page: page(&answer)? })
}
