//! What people call the workload of a pod: not the ReplicaSet or Job that was made for it, but what they wrote.

use model::workload::WorkloadKind;

use crate::index::facts::Pod;

/// Label with the hash that ends a ReplicaSet's name.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The kind and name of what a person wrote.
pub(super) fn workload(pod: &Pod) -> (WorkloadKind, &str) {
    let Some(owner) = &pod.owner else { return (WorkloadKind::Pod, &pod.name.name) };
    let name = owner.name.as_str();
    match owner.kind.as_str() {
        "ReplicaSet" => match deployment(pod, name) {
            Some(deployment) => (WorkloadKind::Deployment, deployment),
            None => (WorkloadKind::Pod, name),
        },
        "Deployment" => (WorkloadKind::Deployment, name),
        "Job" => match cron_job(name) {
            Some(cron_job) => (WorkloadKind::CronJob, cron_job),
            None => (WorkloadKind::Job, name),
        },
        "CronJob" => (WorkloadKind::CronJob, name),
        // The wire has no word for StatefulSets and DaemonSets.
        _ => (WorkloadKind::Pod, name),
    }
}

fn deployment<'a>(pod: &Pod, replica_set: &'a str) -> Option<&'a str> {
    let hash = pod.labels.get(TEMPLATE_HASH)?;
    replica_set.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())
}

/// A CronJob's jobs end with the minute they were due, as Unix time: 8 to 10 digits.
fn cron_job(job: &str) -> Option<&str> {
    let (name, due) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&due.len()) && due.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}
