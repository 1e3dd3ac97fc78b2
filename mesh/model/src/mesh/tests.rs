//! What is known of the mesh, update by update; the fixtures of its parts' tests.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Effect, Mesh, Update};
use crate::address::Str;
use crate::identity::Identity;
use crate::workload::{Health, Locality, Profile, TunnelProtocol, Workload, WorkloadKind};

/// A plain workload with a uid and addresses.
pub(super) fn workload(uid: &str, ips: &[[u8; 4]]) -> Workload {
    let empty: Str = "".into();
    let profile = Profile {
        identity: Identity::new("cluster.local", "ns", "account"),
        network: empty.clone(),
        protocol: TunnelProtocol::Tcp,
        host_network: false,
        native_tunnel: false,
        hostname: empty.clone(),
        canonical_name: empty.clone(),
        canonical_revision: empty.clone(),
        kind: WorkloadKind::Pod,
        workload_name: empty.clone(),
        waypoint: None,
        network_gateway: None,
        services: Box::default(),
        policies: Box::default(),
        enforced_by: None,
        cluster: empty.clone(),
        locality: Locality::default(),
        capacity: 1,
        application_tunnel: None,
    };
    Workload {
        uid: uid.into(),
        name: uid.into(),
        addresses: ips.iter().map(|ip| IpAddr::from(*ip)).collect(),
        node: empty,
        status: Health::Healthy,
        profile: Arc::new(profile),
    }
}

#[test]
fn what_a_changed_workload_means_for_live_connections() {
    let ip = [10, 0, 0, 1];
    let mut mesh = Mesh::new("".into(), None);
    assert_eq!(mesh.apply(Update::Workload(workload("a", &[ip]))), Effect::default());
    // The same again: nothing.
    assert_eq!(mesh.apply(Update::Workload(workload("a", &[ip]))), Effect::default());

    let mut named = workload("a", &[ip]);
    Arc::make_mut(&mut named.profile).enforced_by = Some(Box::default());
    let effect = mesh.apply(Update::Workload(named));
    assert!(effect.rejudge && effect.replaced.is_none());

    let effect = mesh.apply(Update::Workload(workload("a", &[[10, 0, 0, 2]])));
    assert_eq!(effect.replaced.map(|old| old.addresses.clone()), Some([IpAddr::from(ip)].into()));

    let effect = mesh.apply(Update::RemoveAddress("a".into()));
    assert_eq!(effect.replaced.map(|old| old.uid.clone()), Some("a".into()));
    assert_eq!(mesh.apply(Update::RemoveAddress("a".into())), Effect::default());
}
