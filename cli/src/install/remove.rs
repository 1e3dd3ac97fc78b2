//! What was installed taken away: all of it, or what a newer version does not have.

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams};

use crate::Outcome;
use crate::args::UninstallArgs;
use crate::chart;
use crate::cluster::objects::Reference;
use crate::cluster::{Cluster, ClusterError, code, failed};

use super::apply::ours;
use super::progress::Progress;
use super::record::{self, Record};

/// Written by agents to the pods whose traffic they redirect.
const REDIRECTED: &str = "ambient.istio.io/redirection";
/// By which namespaces and pods ask for it.
const ASKED: &str = "istio.io/dataplane-mode=ambient";
/// What the controller gives every namespace.
const ROOTS: &str = "istio-ca-root-cert";
/// What controllers keep in their namespace, by the beginning of its name.
const KEPT: [(&str, &str, &str); 4] = [
    ("v1", "Secret", "lateen-ca"),
    ("v1", "ConfigMap", "lateen-replicas"),
    ("v1", "ConfigMap", "lateen-last-good-"),
    ("coordination.k8s.io/v1", "Lease", "lateen-leader"),
];
/// How long objects may take to go.
const GONE: Duration = Duration::from_secs(90);

/// Objects of a version that is replaced, which the newer one does not have.
pub(super) async fn superseded(
    cluster: &Cluster,
    before: &Record,
    now: &Record,
    progress: &mut Progress,
) -> Result<(), ClusterError> {
    for reference in before.superseded(now) {
        if reference.delete(&cluster.client).await? {
            progress.done(&reference.shown(), "gone, this version has none");
        }
    }
    Ok(())
}

/// Runs `uninstall`. It can be repeated.
pub(super) async fn run(cluster: &Cluster, namespace: &str, args: &UninstallArgs) -> Outcome {
    let mut progress = Progress::new();
    let revision = &*args.revision;
    record::not_helms(cluster, namespace, revision).await?;
    let others = record::others(cluster, namespace, revision).await?;
    if args.purge && !others.is_empty() {
        return Err(format!(
            "revision {} is installed in {namespace} as well, and needs what --purge takes away; first: \
             lateen uninstall --revision {}",
            others.join(", "),
            others[0]
        )
        .into());
    }
    let Some(installed) = record::read(cluster, namespace, revision).await? else {
        progress.note(&match &others[..] {
            [] => format!("nothing is installed in {namespace} of cluster {}", cluster.name),
            others => format!(
                "revision {revision} is not installed in {namespace} of cluster {}, but {}",
                cluster.name,
                others.join(", ")
            ),
        });
        if args.purge {
            purge(cluster, namespace, &mut progress).await?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    // Without agents its pods' traffic is none of this one's business.
    let captured = if installed.has_agents() { captured(cluster).await? } else { Vec::new() };
    if !args.force && !captured.is_empty() {
        return Err(still_in_it(&captured).into());
    }
    if args.dry_run {
        for reference in installed.objects.iter().rev() {
            progress.note(&format!("gone       {}", reference.shown()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    for stage in stages(&installed.objects) {
        for reference in &stage {
            progress.waiting(&reference.shown());
            reference.delete(&cluster.client).await?;
        }
        gone(cluster, &stage, &mut progress).await?;
    }
    if others.is_empty() {
        roots(cluster).await?;
    }
    record::note(namespace, revision).delete(&cluster.client).await?;
    progress.done("objects", &format!("{} gone", installed.objects.len()));
    match args.purge {
        true => purge(cluster, namespace, &mut progress).await?,
        false if !others.is_empty() => progress.note(&format!("what stays: revision {}", others.join(", "))),
        false => progress.note(&format!(
            "what stays: the definitions with what was written of them, and the authority's key in {namespace}; \
             lateen uninstall --purge takes them too"
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// What goes together: the agents first, which undo on their nodes what they did and need their rights for it; then all else,
/// the last first.
fn stages(objects: &[Reference]) -> [Vec<Reference>; 2] {
    let (agents, others): (Vec<_>, Vec<_>) =
        objects.iter().rev().cloned().partition(|one| one.kind == "DaemonSet");
    [agents, others]
}

/// Pods whose traffic is redirected: without agents it would go on in plain text.
async fn captured(cluster: &Cluster) -> Result<Vec<String>, ClusterError> {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let mut page = ListParams::default().limit(500);
    let mut captured = Vec::new();
    loop {
        let list = pods.list(&page).await.map_err(|error| failed("the cluster's pods", &error))?;
        let redirected = list.items.iter().filter(|pod| {
            let notes = pod.metadata.annotations.as_ref();
            notes.and_then(|notes| notes.get(REDIRECTED)).is_some_and(|value| value == "enabled")
        });
        captured.extend(redirected.filter_map(|pod| pod.metadata.namespace.clone()));
        match list.metadata.continue_ {
            Some(next) if !next.is_empty() => page = page.continue_token(&next),
            _ => break,
        }
    }
    captured.sort();
    Ok(captured)
}

fn still_in_it(namespaces: &[String]) -> String {
    let mut distinct = namespaces.to_vec();
    distinct.dedup();
    format!(
        "{} pods are in the mesh, in {}; take them out first, or they go on in plain text: \
         kubectl label namespace {} istio.io/dataplane-mode- (--force goes on regardless)",
        namespaces.len(),
        distinct.join(", "),
        distinct.join(" ")
    )
}

/// Waits until none of the objects is there.
async fn gone(cluster: &Cluster, objects: &[Reference], progress: &mut Progress) -> Result<(), ClusterError> {
    let deadline = tokio::time::Instant::now() + GONE;
    for reference in objects {
        while reference.get(&cluster.client).await?.is_some() {
            progress.waiting(&format!("{} goes", reference.shown()));
            if tokio::time::Instant::now() >= deadline {
                return Err(ClusterError::Refused {
                    doing: reference.shown(),
                    reason: format!("is there still after {} s; repeat lateen uninstall", GONE.as_secs()),
                });
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    Ok(())
}

/// The roots that every namespace was given: nobody keeps them up any more.
async fn roots(cluster: &Cluster) -> Result<(), ClusterError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let list = namespaces
        .list(&ListParams::default())
        .await
        .map_err(|error| failed("the cluster's namespaces", &error))?;
    for namespace in list.items.iter().filter_map(|one| one.metadata.name.as_deref()) {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let there = maps
            .get_opt(ROOTS)
            .await
            .map_err(|error| failed(format!("ConfigMap {namespace}/{ROOTS}"), &error))?;
        // Another mesh's is of the same name.
        let by = there.iter().flat_map(|map| map.metadata.managed_fields.iter().flatten());
        if by.filter_map(|one| one.manager.as_deref()).any(|manager| manager == "lateen-ctrl") {
            match maps.delete(ROOTS, &DeleteParams::default()).await {
                Err(error) if code(&error) != Some(404) => {
                    return Err(failed(format!("ConfigMap {namespace}/{ROOTS} cannot be deleted"), &error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The definitions, with every object of theirs, and what the controller keeps in its namespace.
async fn purge(
    cluster: &Cluster,
    namespace: &str,
    progress: &mut Progress,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut ours_there = Vec::new();
    for definition in chart::definitions()? {
        let Some(reference) = Reference::of(&definition) else { continue };
        let there = reference.get(&cluster.client).await?;
        if there.as_ref().is_some_and(ours) && reference.delete(&cluster.client).await? {
            ours_there.push(reference);
        }
    }
    gone(cluster, &ours_there, progress).await?;
    progress.done("definitions", &format!("{} gone, with what was written of them", ours_there.len()));
    for (version, kind, name) in KEPT {
        let reference = Reference {
            api_version: version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        for one in reference.likewise(&cluster.client).await? {
            if one.delete(&cluster.client).await? {
                progress.done(&one.shown(), "gone");
            }
        }
    }
    Ok(())
}

/// Namespaces that ask to be in the mesh.
pub(crate) async fn enrolled(cluster: &Cluster) -> Result<Vec<String>, ClusterError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let list = namespaces
        .list(&ListParams::default().labels(ASKED))
        .await
        .map_err(|error| failed("the cluster's namespaces", &error))?;
    Ok(list.items.into_iter().filter_map(|one| one.metadata.name).collect())
}
