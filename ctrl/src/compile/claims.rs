//! Who claims addresses that are not theirs, and what they are told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use manifest::{Code, Finding, Level, Object};

use crate::index::{Claim, Index, Lost, Name};

/// Who claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    Service,
    EndpointSlice,
    Pod,
}

/// Those that claim what is not theirs.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<(Claimant, Name), Lost>);

impl Claims {
    /// Notes what one claims in vain; whether that is something else than before.
    pub(super) fn note(&mut self, claimant: Claimant, name: &Name, lost: Lost) -> bool {
        let key = (claimant, name.clone());
        if lost.is_empty() {
            return self.0.remove(&key).is_some();
        }
        self.0.get(&key) != Some(&lost) && {
            self.0.insert(key, lost);
            true
        }
    }

    /// What they are told.
    pub(super) fn findings<'a>(&'a self, index: &'a Index) -> impl Iterator<Item = Finding> + 'a {
        self.0.iter().flat_map(|((claimant, name), lost)| match claimant {
            Claimant::Service => of_service(index, name, lost),
            Claimant::EndpointSlice => of_slice(index, name, lost),
            Claimant::Pod => of_pod(index, name, lost),
        })
    }
}

fn of_service(index: &Index, name: &Name, lost: &Lost) -> Vec<Finding> {
    let Some(object) = index.service_object(name) else { return Vec::new() };
    let one = |(ip, claim): &(IpAddr, Claim)| {
        let message =
            format!("{ip} is the address of {}; for clients this service has no such address", whose(claim));
        let fix = "leave the address out to be given one, or choose one that is free";
        finding(object, message, "spec.clusterIP", fix)
    };
    lost.iter().map(one).collect()
}

/// One, however many endpoints there are.
fn of_slice(index: &Index, name: &Name, lost: &Lost) -> Vec<Finding> {
    let (Some(object), Some((ip, claim))) = (index.slice_object(name), lost.first()) else {
        return Vec::new();
    };
    let others = match lost.len() - 1 {
        0 => String::new(),
        others => format!("; {others} more are the mesh's own as well"),
    };
    let message = format!(
        "{ip} is the address of {}; for clients it is no endpoint of this slice{others}",
        whose(claim)
    );
    let fix =
        "select the pods that are meant by the service's selector, or name addresses outside of the mesh";
    vec![finding(object, message, "endpoints", fix)]
}

fn of_pod(index: &Index, name: &Name, lost: &Lost) -> Vec<Finding> {
    let Some(object) = index.pod_object(name) else { return Vec::new() };
    let one = |(ip, claim): &(IpAddr, Claim)| {
        let message = format!("{ip} is the address of {}; the pod is not at it", whose(claim));
        let fix = "no network gives a pod such an address: look who writes the pod's status on its node";
        finding(object, message, "status.podIPs", fix)
    };
    lost.iter().map(one).collect()
}

fn finding(object: &Arc<Object>, message: String, field: &str, fix: &str) -> Finding {
    let finding = Finding::new(Level::Error, Code::AddressTaken, object.position.clone(), message);
    finding.in_field(field).about(object.key().to_string()).with_fix(fix)
}

fn whose(claim: &Claim) -> String {
    match claim {
        // Nobody is noted for it.
        Claim::Held => String::new(),
        Claim::OfService(other) => format!("service {other}"),
        Claim::OfPod(pod) => format!("pod {pod}"),
        Claim::OfSomeService => "a service that is not there (SERVICE_CIDRS)".to_owned(),
        Claim::OfSomePod => "a pod that is not there (POD_CIDRS)".to_owned(),
    }
}
