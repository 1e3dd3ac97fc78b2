//! What the files say, typed: the kinds that `lateen` itself plays (workloads, services, configuration). Mesh
//! resources are ctrl's to read, from the same files.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodTemplateSpec, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::scheduler::{Kind, Owner, Workload, safe_hash};

/// Namespace of an object that names none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

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
}

impl Manifests {
    /// Types the objects; what does not fit its kind is left out and told.
    pub(crate) fn from_objects<'a>(objects: impl IntoIterator<Item = &'a Value>) -> (Self, Vec<String>) {
        let mut manifests = Self::default();
        let mut problems = Vec::new();
        for object in objects {
            if let Err(problem) = manifests.add(object) {
                problems.push(problem);
            }
        }
        (manifests, problems)
    }

    fn add(&mut self, object: &Value) -> Result<(), String> {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "Pod" => self.add_pod(typed(object)?),
            "Deployment" => self.add_deployment(typed(object)?),
            "StatefulSet" => self.add_stateful_set(typed(object)?),
            "DaemonSet" => self.add_daemon_set(typed(object)?),
            "Job" => self.add_job(typed(object)?),
            "Namespace" => {
                let meta: ObjectMeta = typed(object.get("metadata").unwrap_or(&Value::Null))?;
                self.namespaces.insert(meta.name.unwrap_or_default(), meta.labels.unwrap_or_default());
            }
            "ConfigMap" => insert(&mut self.config_maps, object)?,
            "Secret" => insert(&mut self.secrets, object)?,
            "EndpointSlice" => insert(&mut self.endpoint_slices, object)?,
            // A Knative or other Service is not ours.
            "Service" if object.get("apiVersion").and_then(Value::as_str) == Some("v1") => {
                insert(&mut self.services, object)?;
            }
            "ReplicaSet" | "CronJob" | "ReplicationController" => {
                let name = name_of(object);
                return Err(format!(
                    "{kind} {name}: lateen up makes no pods for this kind; use a Deployment or a Job"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: Pod) {
        let template = PodTemplateSpec { metadata: Some(pod.metadata.clone()), spec: pod.spec };
        self.push(Kind::Pod, &pod.metadata, template, 1);
    }

    fn add_deployment(&mut self, deployment: Deployment) {
        let spec = deployment.spec.unwrap_or_default();
        let recreate = spec.strategy.and_then(|s| s.type_).as_deref() == Some("Recreate");
        let workload =
            self.push(Kind::Deployment, &deployment.metadata, spec.template, count(spec.replicas, 1));
        workload.one_by_one = recreate;
    }

    fn add_stateful_set(&mut self, set: StatefulSet) {
        let spec = set.spec.unwrap_or_default();
        let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
        let mut template = spec.template;
        if let Some(pod) = template.spec.as_mut() {
            pod.subdomain = pod.subdomain.take().or(spec.service_name);
            for claim in spec.volume_claim_templates.unwrap_or_default() {
                super::containers::volumes::add_claim(pod, claim.metadata.name.unwrap_or_default());
            }
        }
        let workload = self.push(Kind::StatefulSet, &set.metadata, template, count(spec.replicas, 1));
        workload.one_by_one = !parallel;
    }

    fn add_daemon_set(&mut self, set: DaemonSet) {
        let spec = set.spec.unwrap_or_default();
        self.push(Kind::DaemonSet, &set.metadata, spec.template, 0);
    }

    fn add_job(&mut self, job: Job) {
        let spec = job.spec.unwrap_or_default();
        let parallelism = count(spec.parallelism, 1);
        let suspended = spec.suspend == Some(true);
        let workload =
            self.push(Kind::Job, &job.metadata, spec.template, if suspended { 0 } else { parallelism });
        workload.completions = count(spec.completions, 1);
        workload.backoff_limit = count(spec.backoff_limit, 6);
    }

    fn push(
        &mut self,
        kind: Kind,
        meta: &ObjectMeta,
        template: PodTemplateSpec,
        replicas: usize,
    ) -> &mut Workload {
        let owner = Owner {
            kind,
            namespace: meta.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            name: meta.name.clone().unwrap_or_default(),
        };
        let hash = safe_hash(&to_bytes(&template));
        let workload =
            Workload { owner, template, hash, replicas, one_by_one: false, completions: 1, backoff_limit: 6 };
        // An object that stands in two files counts once; which one is ctrl's to complain about.
        self.workloads.retain(|other| other.owner != workload.owner);
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

fn name_of(object: &Value) -> ObjectName {
    let text = |key: &str| object.pointer(&format!("/metadata/{key}")).and_then(Value::as_str);
    ObjectName {
        namespace: text("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        name: text("name").unwrap_or_default().to_owned(),
    }
}

fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    T::deserialize(object).map_err(|error| {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("object");
        format!("{kind} {}: {error}", name_of(object))
    })
}

fn insert<T: DeserializeOwned>(map: &mut BTreeMap<ObjectName, T>, object: &Value) -> Result<(), String> {
    map.insert(name_of(object), typed(object)?);
    Ok(())
}
