//! Tables: what a manifest asks for, which addresses and endpoints it gets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

use super::{ServiceTable, endpoint_slices};
use crate::local::manifests::ObjectName;

fn name() -> ObjectName {
    ObjectName { namespace: "shop".into(), name: "reviews".into() }
}

fn service(spec: &Value) -> Service {
    serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews"}, "spec": spec}),
    )
    .expect("a service")
}

fn fill(spec: &Value) -> Service {
    let (mut filled, problems) = ServiceTable::default().fill(&BTreeMap::from([(name(), service(spec))]));
    assert_eq!(problems, Vec::<String>::new());
    filled.remove(&name()).expect("filled")
}

#[test]
fn families_follow_policy_and_order() {
    for (spec, expected) in [
        (json!({}), vec!["IPv4"]),
        (json!({"ipFamilyPolicy": "SingleStack"}), vec!["IPv4"]),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), vec!["IPv4", "IPv6"]),
        (json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), vec!["IPv6", "IPv4"]),
        (json!({"ipFamilies": ["IPv6"]}), vec!["IPv6"]),
        (json!({"ipFamilies": ["IPv4", "IPv6"]}), vec!["IPv4", "IPv6"]),
        (json!({"clusterIP": "fd00:10:96::77"}), vec!["IPv6"]),
    ] {
        let filled = fill(&spec).spec.expect("spec");
        assert_eq!(filled.ip_families.expect("families"), expected, "{spec}");
        let addresses = filled.cluster_ips.expect("addresses");
        assert_eq!(addresses.len(), expected.len(), "{spec}");
        assert_eq!(filled.cluster_ip.as_ref(), addresses.first());
    }
}

#[test]
fn headless_and_named_services_have_no_address() {
    let headless = fill(&json!({"clusterIP": "None"})).spec.expect("spec");
    assert_eq!(headless.cluster_ips, Some(vec!["None".to_owned()]));
    let external = fill(&json!({"type": "ExternalName", "externalName": "example.com"})).spec.expect("spec");
    assert_eq!(external.cluster_ip, None);
}

#[test]
fn an_address_asked_for_is_granted_once() {
    let other = ObjectName { namespace: "shop".into(), name: "other".into() };
    let asking = || service(&json!({"clusterIP": "10.96.0.77"}));
    let mut table = ServiceTable::default();
    let (filled, problems) = table.fill(&BTreeMap::from([(name(), asking()), (other.clone(), asking())]));
    assert_eq!((filled.len(), problems.len()), (1, 1), "{problems:?}");
    // Once its owner has gone the other gets it.
    let (filled, problems) = table.fill(&BTreeMap::from([(name(), asking())]));
    assert_eq!((filled.len(), problems.len()), (1, 0), "{problems:?}");
}

#[test]
fn addresses_stay_while_other_things_change() {
    let mut table = ServiceTable::default();
    let before = table.fill(&BTreeMap::from([(name(), service(&json!({})))])).0;
    let after = table.fill(&BTreeMap::from([(name(), service(&json!({"ports": [{"port": 80}]})))])).0;
    let ip =
        |map: &BTreeMap<ObjectName, Service>| map[&name()].spec.as_ref().and_then(|s| s.cluster_ip.clone());
    assert_eq!(ip(&before), ip(&after));
}

fn pod(pod_name: &str, ip: &str, ready: &str, extra: Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod_name, "namespace": "shop", "labels": {"app": "reviews"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}, {"ip": format!("fd00::{pod_name}")}],
                   "conditions": [{"type": "Ready", "status": ready}]},
    });
    merge(&mut pod, extra);
    serde_json::from_value(pod).expect("a pod")
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// `address ready serving terminating port` of every endpoint.
fn rows(spec: &Value, pods: &[Pod]) -> Vec<String> {
    let pods: Vec<&Pod> = pods.iter().collect();
    let slices = endpoint_slices(&name(), &service(spec), &pods);
    let mut rows = Vec::new();
    for slice in slices {
        let ports: Vec<i32> = slice.ports.unwrap_or_default().iter().filter_map(|port| port.port).collect();
        for endpoint in slice.endpoints {
            let conditions = endpoint.conditions.expect("conditions");
            let mark =
                |flag: Option<bool>, letter: &'static str| if flag == Some(true) { letter } else { "-" };
            rows.push(format!(
                "{} {}{}{} {ports:?}",
                endpoint.addresses[0],
                mark(conditions.ready, "r"),
                mark(conditions.serving, "s"),
                mark(conditions.terminating, "t"),
            ));
        }
    }
    rows
}

#[test]
fn endpoints_say_what_each_pod_can_do() {
    let spec = json!({"selector": {"app": "reviews"}, "ports": [{"port": 80, "targetPort": "web"}]});
    let pods = [
        pod("a", "10.0.0.1", "True", json!({})),
        pod("b", "10.0.0.2", "False", json!({})),
        pod("c", "10.0.0.3", "True", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        pod("d", "10.0.0.4", "True", json!({"status": {"phase": "Succeeded"}})),
        pod("e", "10.0.0.5", "True", json!({"metadata": {"namespace": "other"}})),
        pod("f", "10.0.0.6", "True", json!({"metadata": {"labels": {"app": "ratings"}}})),
    ];
    assert_eq!(rows(&spec, &pods), ["10.0.0.1 rs- [9080]", "10.0.0.2 --- [9080]", "10.0.0.3 -st [9080]"]);
}

#[test]
fn unready_addresses_are_published_when_asked() {
    let spec =
        json!({"selector": {"app": "reviews"}, "publishNotReadyAddresses": true, "ports": [{"port": 80}]});
    assert_eq!(rows(&spec, &[pod("b", "10.0.0.2", "False", json!({}))]), ["10.0.0.2 r-- [80]"]);
}

#[test]
fn a_dual_stack_service_has_a_slice_for_each_family() {
    let spec =
        json!({"selector": {"app": "reviews"}, "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]});
    assert_eq!(
        rows(&spec, &[pod("a", "10.0.0.1", "True", json!({}))]),
        ["10.0.0.1 rs- [80]", "fd00::a rs- [80]"]
    );
}

#[test]
fn pods_whose_named_port_differs_stand_in_slices_of_their_own() {
    let spec = json!({"selector": {"app": "reviews"}, "ports": [{"port": 80, "targetPort": "web"}]});
    let other =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 1}]}]}});
    let pods = [pod("a", "10.0.0.1", "True", json!({})), pod("b", "10.0.0.2", "True", other)];
    assert_eq!(rows(&spec, &pods), ["10.0.0.2 rs- [1]", "10.0.0.1 rs- [9080]"]);
}

#[test]
fn without_a_selector_nothing_is_written() {
    assert!(endpoint_slices(&name(), &service(&json!({"ports": [{"port": 80}]})), &[]).is_empty());
}
