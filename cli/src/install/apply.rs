//! The chart's objects applied, in an order in which each finds what it needs.

use std::process::ExitCode;
use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::cluster::objects::{self, Applying, Reference, Right};
use crate::cluster::{Cluster, ClusterError};
use crate::{Outcome, say};

use super::progress::Progress;
use super::record::Record;

/// What is applied first, by kind; all else after it, as the chart has it.
const FIRST: [&str; 8] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Service",
];
/// How long the API server may take to serve a new kind.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Refuses before anything is changed where the caller may not do all of it.
pub(super) async fn permitted<'a>(
    cluster: &Cluster,
    namespace: &str,
    objects: impl Iterator<Item = &'a Value>,
) -> Result<(), ClusterError> {
    let mut rights = objects::needed(objects, &["get", "create", "patch", "delete"]);
    rights.push(Right {
        verb: "create",
        group: String::new(),
        resource: "configmaps".to_owned(),
        subresource: None,
        namespace: namespace.to_owned(),
    });
    match &objects::missing(&cluster.client, &rights).await?[..] {
        [] => Ok(()),
        missing => Err(ClusterError::Forbidden {
            who: objects::whoami(&cluster.client).await,
            what: missing.join(", "),
        }),
    }
}

/// Makes the namespace unless it is there.
pub(super) async fn namespace(cluster: &Cluster, name: &str, how: Applying) -> Result<(), ClusterError> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match there(cluster, &object).await? {
        Some(_) => Ok(()),
        None => objects::apply(&cluster.client, &object, how).await.map(drop),
    }
}

/// Applies the definitions; what somebody else (Istio) has installed is left as it is.
pub(super) async fn definitions(
    cluster: &Cluster,
    definitions: &[Value],
    how: Applying,
    progress: &mut Progress,
) -> Result<(), ClusterError> {
    let mut others = Vec::new();
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        progress.waiting(&format!("definition {name}"));
        match there(cluster, definition).await? {
            Some(object) if !ours(&object) => others.push(name),
            _ => drop(objects::apply(&cluster.client, definition, how).await?),
        }
    }
    established(cluster, definitions, progress).await?;
    progress.done("definitions", &format!("{} applied", definitions.len() - others.len()));
    if !others.is_empty() {
        progress
            .note(&format!("left as they are, for somebody else has installed them: {}", others.join(", ")));
    }
    Ok(())
}

/// Waits until objects of these kinds can be written.
async fn established(
    cluster: &Cluster,
    definitions: &[Value],
    progress: &mut Progress,
) -> Result<(), ClusterError> {
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        progress.waiting(&format!("definition {name}"));
        let usable = async {
            loop {
                let object = there(cluster, definition).await?;
                let conditions = object.and_then(|object| object.data.pointer("/status/conditions").cloned());
                let holds = |one: &Value| one["type"] == "Established" && one["status"] == "True";
                if conditions.iter().filter_map(Value::as_array).flatten().any(holds) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        match tokio::time::timeout(ESTABLISHED, usable).await {
            Ok(known) => known?,
            Err(_) => {
                return Err(ClusterError::Refused {
                    doing: format!("the definition {name}"),
                    reason: format!("is not served after {} s", ESTABLISHED.as_secs()),
                });
            }
        }
    }
    Ok(())
}

/// Applies all other objects.
pub(super) async fn mesh(
    cluster: &Cluster,
    mesh: &[Value],
    how: Applying,
    progress: &mut Progress,
) -> Result<(), ClusterError> {
    for object in ordered(mesh) {
        if let Some(reference) = Reference::of(object) {
            progress.waiting(&reference.shown());
        }
        objects::apply(&cluster.client, object, how).await?;
    }
    progress.done("objects", &format!("{} applied", mesh.len()));
    Ok(())
}

fn ordered(objects: &[Value]) -> Vec<&Value> {
    let rank = |object: &Value| FIRST.iter().position(|kind| object["kind"] == *kind).unwrap_or(FIRST.len());
    let mut ordered: Vec<&Value> = objects.iter().collect();
    ordered.sort_by_key(|object| rank(object));
    ordered
}

/// Says what would come of it, as the API server has it, and changes nothing.
pub(super) async fn tried(
    cluster: &Cluster,
    namespace: &str,
    definitions: &[Value],
    mesh: &[Value],
    before: Option<&Record>,
    how: Applying,
) -> Outcome {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let no_namespace = there(cluster, &space).await?.is_none();
    if no_namespace {
        say(&format!("new        Namespace {namespace}"));
    }
    for object in definitions.iter().chain(ordered(mesh)) {
        let Some(reference) = Reference::of(object) else { continue };
        let now = reference.get(&cluster.client).await?;
        let word = match &now {
            Some(object) if definitions.iter().any(|one| same(one, object)) && !ours(object) => "left",
            // It cannot be tried in a namespace that is not there.
            None if no_namespace && !reference.namespace.is_empty() => "new",
            now => {
                let then = objects::apply(&cluster.client, object, how).await?;
                match now {
                    None => "new",
                    Some(now) if unchanged(now, &then) => "unchanged",
                    Some(_) => "changed",
                }
            }
        };
        say(&format!("{word:<10} {}", reference.shown()));
    }
    let record = Record::of(super::own_version(), &Value::Null, mesh);
    for gone in before.into_iter().flat_map(|before| before.superseded(&record)) {
        say(&format!("gone       {}", gone.shown()));
    }
    Ok(ExitCode::SUCCESS)
}

fn same(object: &Value, other: &DynamicObject) -> bool {
    object["metadata"]["name"].as_str() == other.metadata.name.as_deref()
}

fn unchanged(now: &DynamicObject, then: &DynamicObject) -> bool {
    now.metadata.labels == then.metadata.labels
        && now.metadata.annotations == then.metadata.annotations
        && now.data == then.data
}

/// Whether an object of the cluster came with Lateen, by this command or by helm.
pub(super) fn ours(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get("app.kubernetes.io/part-of")).is_some_and(|part| part == "lateen")
}

async fn there(cluster: &Cluster, object: &Value) -> Result<Option<DynamicObject>, ClusterError> {
    match Reference::of(object) {
        Some(reference) => reference.get(&cluster.client).await,
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ordered;

    #[test]
    fn rights_come_before_who_needs_them() {
        let objects = ["Deployment", "RoleBinding", "DaemonSet", "ServiceAccount", "Role"]
            .map(|kind| json!({"kind": kind}));
        let kinds: Vec<_> = ordered(&objects).iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["ServiceAccount", "Role", "RoleBinding", "Deployment", "DaemonSet"]);
    }
}
