//! Which pods there should be, and what to do about the difference to those there are. Pure: called again after every
//! change of a file or of a pod, until it has nothing to say.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::addresses::fnv32;

/// What can make pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
}

impl Kind {
    /// As in `kind:`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
        }
    }

    /// The kind that `deploy/NAME` and its like mean.
    pub(crate) fn from_short(short: &str) -> Option<Self> {
        Some(match short.to_ascii_lowercase().as_str() {
            "pod" | "pods" | "po" => Self::Pod,
            "deploy" | "deployment" | "deployments" | "deployment.apps" => Self::Deployment,
            "sts" | "statefulset" | "statefulsets" | "statefulset.apps" => Self::StatefulSet,
            "ds" | "daemonset" | "daemonsets" | "daemonset.apps" => Self::DaemonSet,
            "job" | "jobs" | "job.batch" => Self::Job,
            _ => return None,
        })
    }
}

/// Whose pods they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Something that wants pods.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) owner: Owner,
    pub(crate) template: PodTemplateSpec,
    /// Of the template: pods with another one are replaced.
    pub(crate) hash: String,
    pub(crate) replicas: usize,
    /// Deployment: old pods go before new ones come. StatefulSet: pods come one after another.
    pub(crate) one_by_one: bool,
    /// Job: how many pods must succeed.
    pub(crate) completions: usize,
    /// Job: how many may fail.
    pub(crate) backoff_limit: usize,
}

/// How far a pod has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Starting,
    Ready,
    Succeeded,
    Failed,
}

/// A pod there is.
#[derive(Debug, Clone)]
pub(crate) struct Existing {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) owner: Owner,
    pub(crate) hash: String,
    pub(crate) node: Option<u8>,
    pub(crate) progress: Progress,
    /// It has been told to go.
    pub(crate) leaving: bool,
}

/// A pod to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Create {
    pub(crate) owner: Owner,
    /// Its name, or `None` for one with a random end.
    pub(crate) name: Option<String>,
    /// Its node, where the workload decides that.
    pub(crate) node: Option<u8>,
    /// How many of its kind have failed: it waits accordingly longer before it starts.
    pub(crate) failures: usize,
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<Create>,
    /// Uids.
    pub(crate) delete: Vec<String>,
}

/// What to do so that the pods that exist become the pods wanted.
pub(crate) fn plan(wanted: &[Workload], existing: &[Existing], nodes: u8) -> Plan {
    let mut by_owner: BTreeMap<&Owner, Vec<&Existing>> = BTreeMap::new();
    for pod in existing {
        by_owner.entry(&pod.owner).or_default().push(pod);
    }
    let mut plan = Plan::default();
    for workload in wanted {
        let pods = by_owner.remove(&workload.owner).unwrap_or_default();
        match workload.owner.kind {
            Kind::Pod => single(workload, &pods, &mut plan),
            Kind::Deployment => deployment(workload, &pods, &mut plan),
            Kind::StatefulSet => stateful_set(workload, &pods, &mut plan),
            Kind::DaemonSet => daemon_set(workload, &pods, nodes, &mut plan),
            Kind::Job => job(workload, &pods, &mut plan),
        }
    }
    plan.delete_all(by_owner.into_values().flatten());
    plan
}

impl Plan {
    fn delete_all<'a>(&mut self, pods: impl IntoIterator<Item = &'a Existing>) {
        self.delete.extend(pods.into_iter().filter(|pod| !pod.leaving).map(|pod| pod.uid.clone()));
    }

    fn create(&mut self, workload: &Workload, name: Option<String>, node: Option<u8>) {
        self.create.push(Create { owner: workload.owner.clone(), name, node, failures: 0 });
    }
}

fn single(workload: &Workload, pods: &[&Existing], plan: &mut Plan) {
    if pods.is_empty() {
        plan.create(workload, Some(workload.owner.name.clone()), None);
    }
    plan.delete_all(pods.iter().copied().filter(|pod| pod.hash != workload.hash));
}

fn deployment(workload: &Workload, pods: &[&Existing], plan: &mut Plan) {
    let (current, old): (Vec<&Existing>, Vec<&Existing>) =
        pods.iter().partition(|pod| pod.hash == workload.hash);
    let mut current: Vec<&Existing> = current.into_iter().filter(|pod| !pod.leaving).collect();
    // Those that serve stay longest.
    current.sort_by_key(|pod| pod.progress != Progress::Ready);
    let surplus = current.split_off(current.len().min(workload.replicas));
    plan.delete_all(surplus);
    let ready = current.iter().filter(|pod| pod.progress == Progress::Ready).count();
    if workload.one_by_one && !old.is_empty() {
        plan.delete_all(old);
        return;
    }
    for _ in current.len()..workload.replicas {
        plan.create(workload, None, None);
    }
    let replaced = ready >= workload.replicas;
    plan.delete_all(old.into_iter().filter(|pod| replaced || pod.progress != Progress::Ready));
}

fn stateful_set(workload: &Workload, pods: &[&Existing], plan: &mut Plan) {
    let names: Vec<String> = (0..workload.replicas).map(|i| format!("{}-{i}", workload.owner.name)).collect();
    plan.delete_all(pods.iter().copied().filter(|pod| !names.contains(&pod.name)));
    for name in names {
        match pods.iter().find(|pod| pod.name == name) {
            None => plan.create(workload, Some(name), None),
            Some(pod) if pod.hash != workload.hash => plan.delete_all([*pod]),
            Some(pod) if pod.progress == Progress::Ready => continue,
            Some(_) => {}
        }
        if workload.one_by_one {
            return;
        }
    }
}

fn daemon_set(workload: &Workload, pods: &[&Existing], nodes: u8, plan: &mut Plan) {
    plan.delete_all(pods.iter().copied().filter(|pod| pod.hash != workload.hash));
    for node in 1..=nodes {
        if !pods.iter().any(|pod| pod.node == Some(node)) {
            plan.create(workload, None, Some(node));
        }
    }
}

fn job(workload: &Workload, pods: &[&Existing], plan: &mut Plan) {
    let (current, old): (Vec<&Existing>, Vec<&Existing>) =
        pods.iter().partition(|pod| pod.hash == workload.hash);
    plan.delete_all(old);
    let count = |progress| current.iter().filter(|pod| pod.progress == progress).count();
    let (succeeded, failures) = (count(Progress::Succeeded), count(Progress::Failed));
    if succeeded >= workload.completions || failures > workload.backoff_limit {
        return;
    }
    let active = current.len() - succeeded - failures;
    let wanted = workload.replicas.min(workload.completions - succeeded);
    for _ in active..wanted {
        plan.create.push(Create { owner: workload.owner.clone(), name: None, node: None, failures });
    }
}

/// Ten letters that change with what they are made from; the alphabet of Kubernetes, which spells no words.
pub(crate) fn safe_hash(bytes: &[u8]) -> String {
    let high = u64::from(fnv32(bytes));
    let low = u64::from(fnv32(&[bytes, b"low"].concat()));
    spell((high << 32) | low, 10)
}

/// `length` letters of a number.
pub(crate) fn spell(mut number: u64, length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::with_capacity(length);
    for _ in 0..length {
        let digit = usize::try_from(number % 27).unwrap_or(0);
        text.push(char::from(ALPHABET[digit]));
        number /= 27;
    }
    text
}

#[cfg(test)]
mod tests;
