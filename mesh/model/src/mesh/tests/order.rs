//! Whatever the order in which updates come, what is known at the end is the same.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::policy;
use crate::authz::PolicyScope;
use crate::fixtures::{at, edit, key, policy_name, service, tunnelled};
use crate::mesh::{Mesh, Update};
use crate::service::{RareFields, Service, Visibility};
use crate::workload::{Health, Profile, TunnelProtocol, Workload};

const UIDS: [&str; 4] = ["c//Pod/ns/a", "c//Pod/ns/b", "entry/c", "entry/d"];
const SERVICES: [&str; 3] = ["ns/web", "other/web", "ns/api"];
const POLICIES: [&str; 3] = ["ns/p", "ns/q", "root/r"];
const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "fd00::1", "10.96.0.1"];
const RANGES: [&str; 3] = ["10.0.0.0/8", "10.96.0.0/16", "fd00::/16"];

fn one_workload() -> impl Strategy<Value = Update> {
    let ips = vec(select(&ADDRESSES[..]), 0..3);
    let services = vec(select(&SERVICES[..]), 0..3);
    let policies = vec(select(&POLICIES[..]), 0..2);
    (select(&UIDS[..]), ips, services, policies, any::<[bool; 4]>()).prop_map(
        |(uid, ips, services, policies, [tcp, unready, host, elsewhere])| {
            let change = |profile: &mut Profile| {
                profile.policies = policies.iter().map(|name| policy_name(name)).collect();
                profile.host_network = host && tcp;
                if tcp {
                    profile.protocol = TunnelProtocol::Tcp;
                }
            };
            let status = if unready { Health::Unhealthy } else { Health::Healthy };
            let node = if elsewhere { "there" } else { "here" }.into();
            // Names that two of them share.
            let name = if uid.ends_with('a') { "one" } else { "two" }.into();
            let workload = edit(tunnelled(uid, &ips, &services), change);
            Update::Workload(Workload { status, node, name, ..workload })
        },
    )
}

fn one_service() -> impl Strategy<Value = Update> {
    let ips = vec(select(&ADDRESSES[..]), 0..3);
    (select(&SERVICES[..]), ips, vec(select(&RANGES[..]), 0..3), any::<[bool; 2]>()).prop_map(
        |(name, ips, ranges, [canonical, hidden])| {
            let cidr_vips = ranges.iter().map(|range| ("".into(), range.parse().unwrap())).collect();
            let visibility = if hidden { Visibility::Namespace } else { Visibility::Public };
            let rare = RareFields { cidr_vips, ..RareFields::default() }.into();
            Update::Service(Service { rare, canonical, visibility, ..service(name, &ips) })
        },
    )
}

fn one_policy() -> impl Strategy<Value = Update> {
    let scope = select(vec![PolicyScope::Global, PolicyScope::Namespace, PolicyScope::Workload]);
    (select(&POLICIES[..]), scope).prop_map(|(name, scope)| Update::Policy(policy(name, scope)))
}

fn update() -> impl Strategy<Value = Update> {
    let removal =
        select([&UIDS[..], &SERVICES[..]].concat()).prop_map(|name| Update::RemoveAddress(name.into()));
    let lifted = select(&POLICIES[..]).prop_map(|name| Update::RemovePolicy(policy_name(name)));
    prop_oneof![4 => one_workload(), 3 => one_service(), 2 => one_policy(), 2 => removal, 1 => lifted]
}

/// What an update is about.
fn about(update: &Update) -> String {
    match update {
        Update::Workload(workload) => workload.uid.to_string(),
        Update::Service(service) => service.key.to_string(),
        Update::RemoveAddress(name) => name.to_string(),
        Update::Policy(policy) => format!("policy {}", policy.name),
        Update::RemovePolicy(name) => format!("policy {name}"),
        Update::Settings(_) => "settings".into(),
    }
}

/// All that a mesh answers, as text.
fn answers(mesh: &Mesh) -> String {
    let mut lines = Vec::new();
    for address in ADDRESSES {
        let workload = mesh.workload_at(&at(address)).map(|workload| &**workload);
        lines.push(format!("at {address}: {workload:?}"));
        for namespace in ["ns", "other", "x"] {
            let service = mesh.service_at(&at(address), namespace);
            lines.push(format!("service at {address} for {namespace}: {service:?}"));
        }
    }
    for name in SERVICES {
        let (namespace, host) = name.split_once('/').unwrap();
        lines.push(format!(
            "{name}: {:?} {:?}",
            mesh.service(&key(name)),
            mesh.service_named(host, namespace)
        ));
        let endpoints = mesh.endpoints(&key(name)).map(|endpoints| endpoints.all()).unwrap_or_default();
        let mut uids: Vec<String> = endpoints.iter().map(|endpoint| format!("{endpoint:?}")).collect();
        uids.sort();
        lines.push(format!("endpoints of {name}: {uids:?}"));
    }
    for uid in UIDS {
        let workload = mesh.workload(uid);
        lines.push(format!("{uid}: {workload:?}"));
        lines.push(format!("policies: {:?}", workload.map(|workload| mesh.policies_for(workload))));
    }
    for name in ["one", "two"] {
        lines.push(format!("local {name}: {:?}", mesh.local_workload("ns", name, "account")));
    }
    let (workloads, services) = (mesh.workloads().count(), mesh.services().count());
    lines.push(format!("{workloads} workloads, {services} services, {} policies", mesh.policies().count()));
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Many updates, of which the last on each thing counts: as only these, in any order.
    #[test]
    fn the_last_word_on_each_thing_counts(
        updates in vec(update(), 0..40),
        keys in vec(any::<u64>(), 40),
    ) {
        let mut history = Mesh::new("".into(), Some("here".into()));
        let mut last: BTreeMap<String, Update> = BTreeMap::new();
        for update in &updates {
            history.apply(update.clone());
            last.insert(about(update), update.clone());
        }
        let mut last: Vec<(u64, Update)> = keys.into_iter().zip(last.into_values()).collect();
        last.sort_by_key(|(key, _)| *key);
        let mut fresh = Mesh::new("".into(), Some("here".into()));
        for (_, update) in last {
            fresh.apply(update);
        }
        prop_assert_eq!(answers(&history), answers(&fresh));
    }
}
