//! A Pod object from what wants it, as the workload controllers, the scheduler and the admission defaults would leave
//! it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::local::addresses::Pair;
use crate::local::claims;
use crate::local::links::has_ipv6;
use crate::local::scheduler::{Kind, Workload};

/// Label with the template's hash.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Annotation that tells the node agent where the pod's network namespace is.
pub(crate) const NETNS_ANNOTATION: &str = "lateen.dev/netns";

/// Where and as what a pod is made.
pub(crate) struct Placement<'a> {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: &'a str,
    pub(crate) node_addresses: Pair,
    /// `None` for a pod on its node's own network.
    pub(crate) addresses: Option<Pair>,
    pub(crate) netns: String,
    pub(crate) created: Time,
}

/// The Pod object.
pub(crate) fn build(workload: &Workload, place: Placement<'_>) -> Pod {
    let template = &workload.template;
    let given = template.metadata.clone().unwrap_or_default();
    let mut spec = template.spec.clone().unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    add_labels(workload, &place.name, &mut labels);
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(NETNS_ANNOTATION.to_owned(), place.netns);
    if workload.owner.kind == Kind::StatefulSet {
        spec.hostname.get_or_insert_with(|| place.name.clone());
    }
    spec.node_name = Some(place.node.to_owned());
    let account = spec.service_account_name.take().filter(|name| !name.is_empty());
    let account = account.or(spec.service_account.take()).unwrap_or_else(|| "default".to_owned());
    spec.service_account = Some(account.clone());
    spec.service_account_name = Some(account);
    let default_policy = if workload.owner.kind == Kind::Job { "Never" } else { "Always" };
    spec.restart_policy.get_or_insert_with(|| default_policy.to_owned());
    claims::name_claims(&mut spec, &place.name);
    Pod {
        metadata: ObjectMeta {
            name: Some(place.name),
            namespace: Some(workload.owner.namespace.clone()),
            uid: Some(place.uid),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: owner(workload).map(|owner| vec![owner]),
            creation_timestamp: Some(place.created),
            ..Default::default()
        },
        spec: Some(spec),
        status: Some(status(place.addresses, place.node_addresses)),
    }
}

fn add_labels(workload: &Workload, name: &str, labels: &mut BTreeMap<String, String>) {
    let hash = workload.hash.clone();
    let mut add = |key: &str, value: String| labels.insert(key.to_owned(), value);
    match workload.owner.kind {
        Kind::Pod => {}
        Kind::Deployment => {
            add(HASH_LABEL, hash);
        }
        Kind::StatefulSet => {
            add("controller-revision-hash", format!("{}-{hash}", workload.owner.name));
            add("statefulset.kubernetes.io/pod-name", name.to_owned());
        }
        Kind::DaemonSet => {
            add("controller-revision-hash", hash);
        }
        Kind::Job => {
            add("job-name", workload.owner.name.clone());
            add("batch.kubernetes.io/job-name", workload.owner.name.clone());
        }
    }
}

/// What owns the pod; of a Deployment a ReplicaSet, whose name ends with the hash as everywhere.
fn owner(workload: &Workload) -> Option<OwnerReference> {
    let owner = &workload.owner;
    let (api_version, kind, name) = match owner.kind {
        Kind::Pod => return None,
        Kind::Deployment => ("apps/v1", "ReplicaSet", format!("{}-{}", owner.name, workload.hash)),
        Kind::StatefulSet | Kind::DaemonSet => ("apps/v1", owner.kind.as_str(), owner.name.clone()),
        Kind::Job => ("batch/v1", "Job", owner.name.clone()),
    };
    Some(OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name,
        uid: format!("{}-{}", owner.kind.as_str().to_lowercase(), workload.hash),
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

fn status(addresses: Option<Pair>, node: Pair) -> PodStatus {
    let texts = |pair: Pair| {
        let v6 = has_ipv6().then(|| pair.v6.to_string());
        [Some(pair.v4.to_string()), v6].into_iter().flatten().collect::<Vec<_>>()
    };
    let own = texts(addresses.unwrap_or(node));
    PodStatus {
        phase: Some("Pending".to_owned()),
        pod_ip: own.first().cloned(),
        pod_ips: Some(own.into_iter().map(|ip| PodIP { ip }).collect()),
        host_ip: Some(node.v4.to_string()),
        host_ips: Some(texts(node).into_iter().map(|ip| HostIP { ip }).collect()),
        ..PodStatus::default()
    }
}
