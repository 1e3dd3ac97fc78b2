//! What the files say, typed: the kinds that `lateen` itself plays (workloads, services, configuration). Mesh
//! resources are ctrl's to read, from the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodTemplateSpec, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use manifest::{Object, Typed};
use serde::Serialize;
use serde_json::Value;

use super::scheduler::{Kind, Owner, Workload, safe_hash};

/// Namespace of an object that names none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Kinds without which a mesh is not the one asked for.
const PLAYED: [&str; 10] = [
    "Namespace",
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "ConfigMap",
    "Secret",
    "Service",
    "EndpointSlice",
];

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything `lateen` plays, from all files.
#[derive(Debug, Default, Clone)]
pub(crate) struct Manifests {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) services: BTreeMap<ObjectName, Service>,
    pub(crate) config_maps: BTreeMap<ObjectName, ConfigMap>,
    pub(crate) secrets: BTreeMap<ObjectName, Secret>,
    /// Written by hand, for services without a selector.
    pub(crate) endpoint_slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Labels of each namespace.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Gateways for which a waypoint is run.
    pub(crate) waypoints: BTreeSet<ObjectName>,
    /// Objects that are made for them, by kind, beside Services and pods.
    pub(crate) made: Vec<(&'static str, ObjectName, Value)>,
}

impl Manifests {
    /// Sorts the objects in force; kinds that want pods and get none here are told.
    pub(crate) fn from_objects(objects: &[Arc<Object>]) -> (Self, Vec<String>) {
        let mut manifests = Self::default();
        let mut problems = Vec::new();
        for object in objects {
            manifests.add(object, &mut problems);
        }
        (manifests, problems)
    }

    fn add(&mut self, object: &Object, problems: &mut Vec<String>) {
        let name = ObjectName {
            namespace: object.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            name: object.metadata.name.clone(),
        };
        match &object.spec {
            Typed::Pod(pod) => self.add_pod(&name, Pod::clone(pod)),
            Typed::Deployment(deployment) => self.add_deployment(&name, Deployment::clone(deployment)),
            Typed::StatefulSet(set) => self.add_stateful_set(&name, StatefulSet::clone(set)),
            Typed::DaemonSet(set) => self.add_daemon_set(&name, DaemonSet::clone(set)),
            Typed::Job(job) => self.add_job(&name, Job::clone(job)),
            Typed::Namespace(_) => {
                self.namespaces.insert(name.name, object.metadata.labels.clone());
            }
            Typed::ConfigMap(map) => {
                self.config_maps.insert(name, ConfigMap::clone(map));
            }
            Typed::Secret(secret) => {
                self.secrets.insert(name, Secret::clone(secret));
            }
            Typed::EndpointSlice(slice) => {
                self.endpoint_slices.insert(name, EndpointSlice::clone(slice));
            }
            Typed::Service(service) => {
                self.services.insert(name, Service::clone(service));
            }
            Typed::ReplicaSet(_) | Typed::CronJob(_) => {
                let at = &object.position;
                let kind = &object.kind;
                problems.push(format!(
                    "{at}: {kind} {name} makes no pods in lateen up; use a Deployment or a Job"
                ));
            }
            Typed::NetworkPolicy(_) => {
                let at = &object.position;
                problems.push(format!(
                    "{at}: NetworkPolicy {name} has no effect: nothing enforces it in lateen up"
                ));
            }
            Typed::Broken if PLAYED.contains(&object.kind.as_str()) => {
                let at = &object.position;
                problems.push(format!(
                    "{at}: {} {name} is left out: it is not what Kubernetes would take",
                    object.kind
                ));
            }
            _ => {}
        }
    }

    fn add_pod(&mut self, name: &ObjectName, pod: Pod) {
        let template = PodTemplateSpec { metadata: Some(pod.metadata.clone()), spec: pod.spec };
        self.push(Kind::Pod, name, template, 1);
    }

    fn add_deployment(&mut self, name: &ObjectName, deployment: Deployment) {
        let spec = deployment.spec.unwrap_or_default();
        let recreate = spec.strategy.and_then(|s| s.type_).as_deref() == Some("Recreate");
        let workload = self.push(Kind::Deployment, name, spec.template, count(spec.replicas, 1));
        workload.one_by_one = recreate;
    }

    fn add_stateful_set(&mut self, name: &ObjectName, set: StatefulSet) {
        let spec = set.spec.unwrap_or_default();
        let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
        let mut template = spec.template;
        if let Some(pod) = template.spec.as_mut() {
            pod.subdomain = pod.subdomain.take().or(spec.service_name);
            for claim in spec.volume_claim_templates.unwrap_or_default() {
                super::claims::add_claim(pod, claim.metadata.name.unwrap_or_default());
            }
        }
        let workload = self.push(Kind::StatefulSet, name, template, count(spec.replicas, 1));
        workload.one_by_one = !parallel;
    }

    fn add_daemon_set(&mut self, name: &ObjectName, set: DaemonSet) {
        let spec = set.spec.unwrap_or_default();
        self.push(Kind::DaemonSet, name, spec.template, 0);
    }

    fn add_job(&mut self, name: &ObjectName, job: Job) {
        let spec = job.spec.unwrap_or_default();
        let parallelism = count(spec.parallelism, 1);
        let suspended = spec.suspend == Some(true);
        let workload = self.push(Kind::Job, name, spec.template, if suspended { 0 } else { parallelism });
        workload.completions = count(spec.completions, 1);
        workload.backoff_limit = count(spec.backoff_limit, 6);
    }

    pub(super) fn push(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        template: PodTemplateSpec,
        replicas: usize,
    ) -> &mut Workload {
        let owner = Owner { kind, namespace: name.namespace.clone(), name: name.name.clone() };
        let hash = safe_hash(&to_bytes(&template));
        let workload =
            Workload { owner, template, hash, replicas, one_by_one: false, completions: 1, backoff_limit: 6 };
        self.workloads.push(workload);
        self.workloads.last_mut().expect("pushed in the line above")
    }
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    // A value that came from JSON turns into JSON again.
    serde_json::to_vec(value).unwrap_or_default()
}

fn count(given: Option<i32>, default: usize) -> usize {
    given.map_or(default, |n| usize::try_from(n).unwrap_or(0))
}

/// Objects as a file would hold them.
#[cfg(test)]
pub(crate) fn from_json(values: &[Value]) -> Manifests {
    let file: Arc<std::path::Path> = Arc::from(std::path::Path::new("test.json"));
    let parsed = values.iter().map(|value| manifest::from_json(value, &file));
    let objects: Vec<Arc<Object>> = parsed
        .flat_map(|parsed| {
            assert_eq!(parsed.findings, [], "a test's object is wrong");
            parsed.objects.into_iter().map(Arc::new)
        })
        .collect();
    Manifests::from_objects(&objects).0
}
