//! The claims of a StatefulSet's pods: one volume a template and pod, by the pod's name.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodSpec, Volume};

/// Stands for the pod's name in the claims of a StatefulSet.
const POD: &str = "%pod%";

/// Adds the volume of a StatefulSet's claim template.
pub(crate) fn add_claim(pod: &mut PodSpec, name: String) {
    let claim_name = format!("{name}-{POD}");
    let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| volume.name != name);
    volumes.push(Volume { name, persistent_volume_claim: Some(claim), ..Volume::default() });
}

/// Names the claims of a StatefulSet's pod.
pub(crate) fn name_claims(pod: &mut PodSpec, pod_name: &str) {
    for volume in pod.volumes.iter_mut().flatten() {
        if let Some(claim) = &mut volume.persistent_volume_claim {
            claim.claim_name = claim.claim_name.replace(POD, pod_name);
        }
    }
}
