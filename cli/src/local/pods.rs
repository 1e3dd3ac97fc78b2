//! Pods: `object` makes one from a template, `worker` is the task that lives one's life (namespace, enrolment,
//! containers, end), `status` says how it stands, `enrol` asks the node's agent to capture it.

mod enrol;
mod files;
mod lifecycle;
mod network;
pub(crate) mod object;
mod status;
pub(crate) mod worker;

use k8s_openapi::api::core::v1::Pod;

pub(crate) use enrol::must_be_captured;
pub(crate) use status::{stuck, trouble};

/// Host name of a pod's processes.
pub(crate) fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let mut name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // The kernel's limit; what remains must still be a label.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// `namespace/name`, as messages name a pod.
pub(crate) fn display_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
