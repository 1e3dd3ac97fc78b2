//! What happens when the mesh is taken off the cluster: an agent that is told to end looks whether its DaemonSet is gone
//! for good. If another agent is to follow, everything stays as it is, so that pods of the mesh are cut off meanwhile, not
//! exposed.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{catalog::Catalog, install::Installation, notes::Note, reconcile::Capturer};

/// How long the API server may take; a node that is shut down has no time to lose.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Whether the DaemonSet is gone, or going. Who may not ask any more has been taken off as well: the rights go with the
/// rest. An API server that is away says nothing.
pub(super) async fn is_wanted(client: &Client, (namespace, name): &(String, String)) -> bool {
    let sets = Api::<DaemonSet>::namespaced(client.clone(), namespace);
    match timeout(ANSWER_TIME, sets.get(name)).await {
        Ok(Ok(set)) => set.metadata.deletion_timestamp.is_some(),
        Ok(Err(kube::Error::Api(status))) => matches!(status.code, 401 | 403 | 404),
        Ok(Err(error)) => {
            info!(%error, "the DaemonSet cannot be asked for; everything stays on the node");
            false
        }
        Err(_) => false,
    }
}

/// From here on pods start without us.
pub(super) fn plugin(installation: Option<&Installation>) {
    if let Some(Err(error)) = installation.map(Installation::remove) {
        warn!(%error, "the CNI plugin stays on the node; take it out of the configuration by hand");
    }
}

/// What is left when the pods have their network back: the node's rules, and what is noted on the pods.
pub(super) async fn traces(capturer: &Capturer, catalog: &Catalog) {
    if let Some(probes) = &capturer.probes {
        probes.remove().await;
    }
    for pod in catalog.pods().filter(|pod| pod.is_noted()) {
        if let Err(error) = capturer.notes.write(pod, Note::Absent).await {
            // Most likely the right to write is gone, for all of them.
            warn!(%error, "pods keep the annotation of their redirection");
            break;
        }
    }
}
