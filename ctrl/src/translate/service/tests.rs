//! Services, by table.

use std::path::Path;
use std::sync::Arc;

use manifest::{Batch, from_json};
use model::service::IpFamilies;
use serde_json::{Value, json};

use super::*;
use crate::index::{Index, Name};

fn translate(spec: &Value, annotations: &Value) -> Option<Service> {
    let origin: Arc<Path> = Arc::from(Path::new("test"));
    let object = json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
                        "metadata": {"name": "cart", "namespace": "shop", "annotations": annotations}});
    let objects = from_json(&object, &origin).objects;
    let mut index = Index::new("istio-system".into());
    index.apply(&Batch { upserted: objects.into_iter().map(Arc::new).collect(), ..Batch::default() });
    let context = Context::new(model::mesh::Settings::default());
    index.service(&Name::new("shop", "cart")).map(|facts| service(&index, &context, facts))
}

#[test]
fn addresses_by_table() {
    for (spec, expected) in [
        (json!({"clusterIP": "10.96.0.1"}), Some(vec!["/10.96.0.1"])),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}),
            Some(vec!["/10.96.0.1", "/fd00::1"]),
        ),
        (json!({"clusterIP": "None"}), Some(vec![])),
        (json!({"clusterIPs": ["None"]}), Some(vec![])),
        (json!({}), None),
        (json!({"type": "ExternalName", "externalName": "a.example"}), None),
    ] {
        let vips = translate(&spec, &json!({}))
            .map(|service| service.vips.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(vips, expected.map(|all| all.into_iter().map(str::to_owned).collect()), "{spec}");
    }
}

#[test]
fn ports_and_names() {
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "x"},
                       {"name": "c", "port": 82, "targetPort": 8}, {"name": "d", "port": 53, "protocol": "UDP"},
                       {"name": "e", "port": 83, "targetPort": "8083"}]);
    let service = translate(&json!({"clusterIP": "None", "ports": ports}), &json!({})).unwrap();
    assert_eq!(service.key.to_string(), "shop/cart.shop.svc.cluster.local");
    assert!(service.canonical);
    let ports: Vec<(u16, u16)> = service.ports.0.iter().map(|port| (port.service, port.target)).collect();
    // A named port is 0: each endpoint knows its own.
    assert_eq!(ports, [(80, 80), (81, 0), (82, 8), (83, 8083)]);
}

#[test]
fn preferences_by_table() {
    use LoadBalancingMode::{Failover, Strict, Unspecified};
    for (spec, annotations, mode, scopes) in [
        (json!({}), json!({}), Unspecified, 0),
        (json!({"internalTrafficPolicy": "Local"}), json!({}), Strict, 1),
        (json!({"internalTrafficPolicy": "Cluster"}), json!({}), Unspecified, 0),
        (json!({"trafficDistribution": "PreferClose"}), json!({}), Failover, 3),
        (json!({"trafficDistribution": "PreferSameZone"}), json!({}), Failover, 3),
        (json!({"trafficDistribution": "PreferSameNode"}), json!({}), Failover, 5),
        (json!({}), json!({"networking.istio.io/traffic-distribution": "PreferClose"}), Failover, 3),
    ] {
        let mut all = json!({"clusterIP": "10.96.0.1"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let balancing = translate(&all, &annotations).unwrap().rare.load_balancing.clone();
        assert_eq!((balancing.mode, balancing.preference.len()), (mode, scopes), "{spec} {annotations}");
        assert!(!balancing.allow_unhealthy);
    }
    let spec = json!({"clusterIP": "None", "publishNotReadyAddresses": true});
    assert!(translate(&spec, &json!({})).unwrap().rare.load_balancing.allow_unhealthy);
}

#[test]
fn families_by_table() {
    for (families, expected) in [
        (json!(["IPv4"]), IpFamilies::V4Only),
        (json!(["IPv6"]), IpFamilies::V6Only),
        (json!(["IPv6", "IPv4"]), IpFamilies::Dual),
        (Value::Null, IpFamilies::Automatic),
    ] {
        let service = translate(&json!({"clusterIP": "None", "ipFamilies": families}), &json!({})).unwrap();
        assert_eq!(service.ip_families, expected, "{families}");
    }
}
