//! `lateen x precheck`: whether the mesh can be installed in a cluster, and beside an installed Istio what both would claim.

use std::process::ExitCode;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};

use crate::args::PrecheckArgs;
use crate::chart::{self, values};
use crate::cluster::{self, Cluster, ClusterArgs, ClusterError, failed, objects};
use crate::install::{self, NAMESPACE};
use crate::{Outcome, say};

/// How much something is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Nothing to do.
    Fine,
    /// To be known.
    Warning,
    /// It would not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    level: Level,
    what: &'static str,
    detail: String,
}

impl Check {
    fn fine(what: &'static str, detail: impl Into<String>) -> Self {
        Self { level: Level::Fine, what, detail: detail.into() }
    }

    fn warning(what: &'static str, detail: impl Into<String>) -> Self {
        Self { level: Level::Warning, what, detail: detail.into() }
    }

    fn error(what: &'static str, detail: impl Into<String>) -> Self {
        Self { level: Level::Error, what, detail: detail.into() }
    }
}

/// What of Istio is in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Istio {
    /// Namespace/name of its control planes.
    control_planes: Vec<String>,
    /// Namespace/name of its agents on nodes: ztunnel and istio-cni.
    agents: Vec<String>,
    /// Namespaces that are labelled for the mesh.
    enrolled: Vec<String>,
}

/// Runs `x precheck`.
pub(crate) fn run(args: &ClusterArgs, namespace: Option<&str>, _precheck: &PrecheckArgs) -> Outcome {
    let namespace = namespace.unwrap_or(NAMESPACE);
    install::blocking(async {
        let cluster = cluster::connect(args).await?;
        say(&format!("cluster {}", cluster.name));
        let mut checks = vec![Check::fine("version", format!("Kubernetes {}", cluster.version))];
        checks.push(rights(&cluster, namespace).await?);
        checks.push(nodes(&cluster).await?);
        checks.push(gateway_api(&cluster).await?);
        checks.extend(both(&istio(&cluster).await?, namespace));
        checks.extend(ports(&cluster, namespace).await?);
        for Check { level, what, detail } in &checks {
            let word = match level {
                Level::Fine => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            say(&format!("{word:<8} {what:<16} {detail}"));
        }
        let worst = checks.iter().map(|check| check.level).max();
        Ok(if worst == Some(Level::Error) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

async fn rights(cluster: &Cluster, namespace: &str) -> Result<Check, Box<dyn std::error::Error>> {
    let values = values::complete(&serde_json::json!({}))?;
    let mut all = chart::definitions()?;
    all.extend(chart::mesh(&values, namespace)?);
    let needed = objects::needed(&all, &["get", "create", "patch", "delete"]);
    Ok(match &objects::missing(&cluster.client, &needed).await?[..] {
        [] => Check::fine("rights", "everything that install and uninstall do is allowed"),
        missing => {
            let who = objects::whoami(&cluster.client).await;
            Check::error("rights", format!("{who} may not {}", missing.join(", ")))
        }
    })
}

async fn nodes(cluster: &Cluster) -> Result<Check, ClusterError> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let list =
        nodes.list(&ListParams::default()).await.map_err(|error| failed("the cluster's nodes", &error))?;
    let system = |node: &Node| {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        info.map(|info| info.operating_system.clone()).unwrap_or_default()
    };
    let (linux, others): (Vec<_>, Vec<_>) = list.items.iter().partition(|node| system(node) == "linux");
    Ok(match (linux.len(), others.len()) {
        (0, _) => Check::error("nodes", "none of them runs Linux"),
        (linux, 0) => Check::fine("nodes", format!("{linux}, all of them Linux")),
        (linux, others) => Check::warning(
            "nodes",
            format!("{linux} of Linux; pods on the other {others} cannot be in the mesh"),
        ),
    })
}

async fn gateway_api(cluster: &Cluster) -> Result<Check, ClusterError> {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let there = definitions
        .get_opt("gateways.gateway.networking.k8s.io")
        .await
        .map_err(|error| failed("the definitions of Gateway API", &error))?;
    Ok(match there {
        Some(_) => Check::fine("gateway api", "is installed"),
        None => Check::warning("gateway api", "is not installed; waypoints need it, layer 4 does not"),
    })
}

async fn istio(cluster: &Cluster) -> Result<Istio, ClusterError> {
    let listed = |what: &str, error: &kube::Error| failed(format!("{what} of the cluster"), error);
    let deployments: Api<Deployment> = Api::all(cluster.client.clone());
    let found = deployments
        .list(&ListParams::default().labels("app=istiod"))
        .await
        .map_err(|error| listed("deployments", &error))?;
    let daemons: Api<DaemonSet> = Api::all(cluster.client.clone());
    let agents = daemons
        .list(
            &ListParams::default()
                .labels("app in (ztunnel, istio-cni-node), app.kubernetes.io/part-of!=lateen"),
        )
        .await
        .map_err(|error| listed("daemonsets", &error))?;
    // Older versions of istio-cni have this label instead.
    let cni = daemons
        .list(&ListParams::default().labels("k8s-app=istio-cni-node"))
        .await
        .map_err(|error| listed("daemonsets", &error))?;
    let name = |namespace: Option<String>, name: Option<String>| {
        format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
    };
    let mut agents: Vec<String> = agents
        .items
        .into_iter()
        .chain(cni.items)
        .map(|one| name(one.metadata.namespace, one.metadata.name))
        .collect();
    agents.sort();
    agents.dedup();
    Ok(Istio {
        control_planes: found
            .items
            .into_iter()
            .map(|one| name(one.metadata.namespace, one.metadata.name))
            .collect(),
        agents,
        enrolled: install::enrolled(cluster).await?,
    })
}

/// What both would claim.
fn both(istio: &Istio, namespace: &str) -> Vec<Check> {
    let what = "istio";
    let Istio { control_planes, agents, enrolled } = istio;
    if control_planes.is_empty() && agents.is_empty() {
        return vec![Check::fine(what, "is not installed")];
    }
    let mut checks = Vec::new();
    if !agents.is_empty() {
        let pods = match &enrolled[..] {
            [] => "no namespace is labelled istio.io/dataplane-mode=ambient yet".to_owned(),
            some => format!("the pods of {}", some.join(", ")),
        };
        checks.push(Check::error(
            what,
            format!(
                "{} redirect traffic of the same pods as Lateen's agents would ({pods})",
                agents.join(" and ")
            ),
        ));
    }
    if !control_planes.is_empty() {
        let planes = control_planes.join(" and ");
        checks.push(Check::warning(
            what,
            format!(
                "{planes} and Lateen would both write ConfigMap istio-ca-root-cert in every namespace and statuses of \
                 policies and routes, and both make waypoints of Gateways of class istio-waypoint"
            ),
        ));
        if control_planes.iter().any(|plane| plane.starts_with(&format!("{namespace}/"))) {
            checks.push(Check::warning(
                what,
                format!("{planes} has its policies for the whole mesh in {namespace}, as Lateen would; -n names another"),
            ));
        }
    }
    checks
}

/// Ports of the nodes that agents listen on, where pods of the host's network may be already.
async fn ports(cluster: &Cluster, namespace: &str) -> Result<Option<Check>, ClusterError> {
    const OURS: [i32; 3] = [15_000, 15_020, 15_021];
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let mut page = ListParams::default().limit(500);
    let mut taken = Vec::new();
    loop {
        let list = pods.list(&page).await.map_err(|error| failed("the cluster's pods", &error))?;
        for pod in &list.items {
            let own = pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("lateen-node-agent-"));
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let ports = containers.flat_map(|container| container.ports.iter().flatten());
            if let (false, Some(port)) =
                (own, ports.filter_map(|port| port.host_port).find(|port| OURS.contains(port)))
            {
                let name = |text: &Option<String>| text.clone().unwrap_or_default();
                taken.push(format!(
                    "{port} by {}/{}",
                    name(&pod.metadata.namespace),
                    name(&pod.metadata.name)
                ));
            }
        }
        match list.metadata.continue_ {
            Some(next) if !next.is_empty() => page = page.continue_token(&next),
            _ => break,
        }
    }
    taken.sort();
    taken.truncate(5);
    Ok(match taken.is_empty() {
        true => None,
        false => Some(Check::error("ports", format!("of the nodes are taken: {}", taken.join(", ")))),
    })
}

#[cfg(test)]
mod tests {
    use super::{Istio, Level, both};

    #[test]
    fn what_both_would_claim_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let levels =
            |istio: &Istio| both(istio, "istio-system").iter().map(|check| check.level).collect::<Vec<_>>();
        assert_eq!(levels(&Istio::default()), [Level::Fine]);
        let mut istio = Istio { control_planes: names(&["istio-system/istiod"]), ..Istio::default() };
        assert_eq!(levels(&istio), [Level::Warning, Level::Warning]);
        istio.control_planes = names(&["elsewhere/istiod"]);
        assert_eq!(levels(&istio), [Level::Warning]);
        istio.agents = names(&["istio-system/ztunnel"]);
        istio.enrolled = names(&["shop"]);
        let checks = both(&istio, "istio-system");
        assert_eq!(checks[0].level, Level::Error);
        assert!(
            checks[0].detail.contains("istio-system/ztunnel") && checks[0].detail.contains("shop"),
            "{checks:?}"
        );
    }
}
