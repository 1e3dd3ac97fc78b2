//! Pods and slices to workloads, by table.

use std::path::Path;
use std::sync::Arc;

use manifest::{Batch, Object, from_json};
use model::service::AppProtocol;
use model::workload::Health;
use serde_json::{Value, json};

use super::*;

fn object(value: &Value) -> Arc<Object> {
    let origin: Arc<Path> = Arc::from(Path::new("test"));
    let mut parsed = from_json(value, &origin);
    Arc::new(parsed.objects.pop().unwrap_or_else(|| panic!("{:?}", parsed.findings)))
}

fn context() -> Context {
    Context::new(model::mesh::Settings::default())
}

fn index(objects: &[Value]) -> Index {
    let ranges = |text: &str| vec![text.parse().unwrap()];
    let mut index =
        Index::new("istio-system".into()).with_ranges(ranges("10.96.0.0/16"), ranges("10.244.0.0/16"));
    index.apply(&Batch { upserted: objects.iter().map(object).collect(), ..Batch::default() });
    index
}

/// A ready pod `shop/cart-1` with changes merged over it.
fn base(change: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"app": "cart"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "main", "image": "i", "ports": [
                {"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            ]},
        ]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut pod, change);
    pod
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn translate(objects: &[Value]) -> Option<Workload> {
    let index = index(objects);
    let pod = index.pod(&Name::new("shop", "cart-1")).unwrap();
    super::pod(&index, &context(), pod)
}

fn of(change: &Value) -> Workload {
    translate(&[base(change)]).unwrap()
}

#[test]
fn a_pod_is_known_by_what_it_is() {
    let workload = of(&json!({}));
    assert_eq!(&*workload.uid, "Kubernetes//Pod/shop/cart-1");
    assert_eq!(workload.identity().to_string(), "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!(workload.addresses.len(), 2);
    assert_eq!((&*workload.node, workload.status), ("n1", Health::Healthy));
    assert_eq!(workload.profile.protocol, TunnelProtocol::Tcp);
    assert_eq!(workload.profile.enforced_by, Some(Box::default()));
    assert_eq!(workload.profile.policies.len(), 0);
    let account = of(&json!({"spec": {"serviceAccountName": "teller"}}));
    assert_eq!(&**account.identity().service_account(), "teller");
}

/// A node says what its pods' addresses are: it is not believed where they are those of services.
#[test]
fn a_pod_is_not_at_an_address_of_services() {
    let addresses = |ips: &[&str], host: bool| {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let pod = base(&json!({"spec": {"hostNetwork": host}, "status": {"podIPs": ips}}));
        let has = translate(&[pod]).map(|workload| workload.addresses.to_vec()).unwrap_or_default();
        has.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    for (ips, host, expected) in [
        (&["10.244.1.5"][..], false, "10.244.1.5"),
        (&["192.168.0.5"], false, "192.168.0.5"),
        (&["10.96.0.9"], false, ""),
        (&["::ffff:10.96.0.9"], false, ""),
        (&["10.244.1.5", "10.96.0.9"], false, "10.244.1.5"),
        (&["10.96.0.9"], true, "10.96.0.9"),
    ] {
        assert_eq!(addresses(ips, host), expected, "{ips:?} {host}");
    }
}

#[test]
fn hbone_is_for_those_who_take_it() {
    for (change, hbone, native) in [
        (json!({"metadata": {"annotations": {"ambient.istio.io/redirection": "enabled"}}}), true, false),
        (json!({"metadata": {"annotations": {"ambient.istio.io/redirection": "pending"}}}), false, false),
        (json!({"metadata": {"labels": {"networking.istio.io/tunnel": "http"}}}), true, true),
        (json!({"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}}), false, false),
    ] {
        let profile = of(&change).profile;
        let expected = if hbone { TunnelProtocol::Hbone } else { TunnelProtocol::Tcp };
        assert_eq!((profile.protocol, profile.native_tunnel), (expected, native), "{change}");
    }
}

#[test]
fn only_what_takes_traffic_is_healthy_and_what_has_ended_is_gone() {
    for (change, expected) in [
        (json!({}), Some(Health::Healthy)),
        (json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}), Some(Health::Unhealthy)),
        (json!({"status": {"conditions": []}}), Some(Health::Unhealthy)),
        (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Some(Health::Unhealthy)),
        (json!({"status": {"phase": "Succeeded"}}), None),
        (json!({"status": {"phase": "Failed"}}), None),
        (json!({"status": {"podIPs": []}}), None),
        (json!({"status": {"podIPs": null, "podIP": "10.244.1.9"}}), Some(Health::Healthy)),
    ] {
        assert_eq!(translate(&[base(&change)]).map(|workload| workload.status), expected, "{change}");
    }
}

#[test]
fn a_workload_is_what_a_person_wrote() {
    let owner = |kind: &str, name: &str, hash: Option<&str>| {
        json!({"metadata": {
            "labels": {"app": null, "pod-template-hash": hash},
            "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": "1", "controller": true}],
        }})
    };
    for (change, kind, name) in [
        (owner("ReplicaSet", "cart-5d4f", Some("5d4f")), WorkloadKind::Deployment, "cart"),
        (owner("ReplicaSet", "cart-5d4f", Some("other")), WorkloadKind::Pod, "cart-5d4f"),
        (owner("ReplicaSet", "cart", None), WorkloadKind::Pod, "cart"),
        (owner("StatefulSet", "db", None), WorkloadKind::Pod, "db"),
        (owner("Job", "tidy-29384756", None), WorkloadKind::CronJob, "tidy"),
        (owner("Job", "tidy-7", None), WorkloadKind::Job, "tidy-7"),
        (json!({"metadata": {"labels": {"app": null}}}), WorkloadKind::Pod, "cart-1"),
    ] {
        let mut pod = base(&change);
        pod["metadata"]["labels"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let profile = translate(&[pod]).unwrap().profile;
        assert_eq!((profile.kind, &*profile.workload_name), (kind, name), "{change}");
        assert_eq!(&*profile.canonical_name, name, "{change}");
    }
}

#[test]
fn canonical_names_come_from_labels_first() {
    for (labels, name, revision) in [
        (json!({}), "cart", "latest"),
        (json!({"version": "v2"}), "cart", "v2"),
        (json!({"app.kubernetes.io/name": "basket", "app.kubernetes.io/version": "3"}), "basket", "3"),
        (
            json!({"service.istio.io/canonical-name": "c", "service.istio.io/canonical-revision": "r", "version": "v"}),
            "c",
            "r",
        ),
        (json!({"app": ""}), "cart-1", "latest"),
    ] {
        let profile = of(&json!({"metadata": {"labels": labels}})).profile;
        assert_eq!((&*profile.canonical_name, &*profile.canonical_revision), (name, revision), "{labels}");
    }
}

#[test]
fn where_it_runs_is_where_its_node_is() {
    let labels = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z",
                        "topology.istio.io/subzone": "s"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}});
    let locality = |objects: &[Value]| {
        let Locality { region, zone, subzone } = translate(objects).unwrap().profile.locality.clone();
        [region, zone, subzone].map(|part| part.to_string()).join("/")
    };
    assert_eq!(locality(&[base(&json!({}))]), "//");
    assert_eq!(locality(&[base(&json!({})), node.clone()]), "r/z/s");
    let own = base(&json!({"metadata": {"labels": {"istio-locality": "a.b"}}}));
    assert_eq!(locality(&[own, node]), "a/b/");
}

fn service(change: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "cart"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "web"},
            {"name": "tcp-raw", "port": 81, "targetPort": 9000},
            {"name": "other", "port": 82, "targetPort": "nobody"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]},
    });
    merge(&mut service, change);
    service
}

/// `host: SERVICE>TARGET PROTOCOL …`
fn served(workload: &Workload) -> Vec<String> {
    let one = |(service, ports): &(NamespacedHostname, Ports)| {
        let ports =
            ports.0.iter().map(|port| format!("{}>{} {:?}", port.service, port.target, port.protocol));
        format!("{service}: {}", ports.collect::<Vec<_>>().join(", "))
    };
    workload.profile.services.iter().map(one).collect()
}

#[test]
fn an_endpoint_serves_the_ports_it_has() {
    let objects = [base(&json!({})), service(&json!({}))];
    assert_eq!(
        served(&translate(&objects).unwrap()),
        ["shop/cart.shop.svc.cluster.local: 80>8080 Http11, 81>9000 Tcp"]
    );
    for (about, change) in [
        ("another namespace", json!({"metadata": {"namespace": "web"}})),
        ("other labels", json!({"spec": {"selector": {"app": "other"}}})),
        ("more labels", json!({"spec": {"selector": {"app": "cart", "tier": "back"}}})),
        ("no selector", json!({"spec": {"selector": null}})),
        ("an alias", json!({"spec": {"type": "ExternalName"}})),
        ("no address yet", json!({"spec": {"clusterIP": null}})),
    ] {
        let workload = translate(&[base(&json!({})), service(&change)]).unwrap();
        assert_eq!(served(&workload), Vec::<String>::new(), "{about}");
    }
}

fn slice(change: &Value) -> Value {
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "cart-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "ports": [{"name": "http", "port": 7000}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        "endpoints": [{"addresses": ["192.0.2.1"], "nodeName": "n1"},
                      {"addresses": ["192.0.2.2"], "conditions": {"ready": false}}],
    });
    merge(&mut slice, change);
    slice
}

fn slice_workloads(objects: &[Value]) -> Vec<Workload> {
    let index = index(objects);
    super::slice(&index, &context(), index.slice(&Name::new("shop", "cart-x")).unwrap())
}

#[test]
fn endpoints_that_are_no_pods_are_workloads_of_their_own() {
    let plain = service(&json!({"spec": {"selector": null}}));
    let workloads = slice_workloads(&[slice(&json!({})), plain.clone()]);
    let uid = "Kubernetes/discovery.k8s.io/EndpointSlice/shop/cart-x/192.0.2.1";
    assert_eq!((&*workloads[0].uid, workloads[0].status), (uid, Health::Healthy));
    assert_eq!(workloads[1].status, Health::Unhealthy);
    assert_eq!(workloads[0].profile.protocol, TunnelProtocol::Tcp);
    assert_eq!(served(&workloads[0]), ["shop/cart.shop.svc.cluster.local: 80>7000 Http11"]);
    // What belongs to no service is of no use.
    assert_eq!(slice_workloads(&[slice(&json!({}))]).len(), 0);
    // A pod is a pod, by name or by address, and then serves the slice's port.
    for endpoint in [
        json!({"addresses": ["10.244.1.5"]}),
        json!({"addresses": ["1.2.3.4"], "targetRef": {"kind": "Pod", "name": "cart-1", "namespace": "shop"}}),
    ] {
        let slice = slice(&json!({"endpoints": [endpoint]}));
        let objects = [slice, plain.clone(), base(&json!({"metadata": {"labels": {"app": "other"}}}))];
        assert_eq!(slice_workloads(&objects).len(), 0, "{endpoint}");
        let workload = translate(&objects).unwrap();
        assert_eq!(served(&workload), ["shop/cart.shop.svc.cluster.local: 80>7000 Http11"]);
    }
}

/// The addresses of services and pods are nobody's to write into a slice; those outside are, and a known pod's means the pod.
#[test]
fn an_endpoint_has_no_address_of_the_meshs_own() {
    let plain = service(&json!({"spec": {"selector": null}}));
    let web = |spec: &Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "other"}, "spec": spec});
    let outside = web(&json!({"clusterIP": "172.20.0.7", "ports": [{"port": 80}]}));
    let balanced = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
    let mut outside = outside;
    outside["status"] = balanced;
    let pod = |name: &str| json!({"kind": "Pod", "name": name, "namespace": "shop"});
    for (endpoint, expected) in [
        (json!({"addresses": ["192.0.2.1"]}), "192.0.2.1"),
        (json!({"addresses": ["10.96.0.9"]}), ""),
        (json!({"addresses": ["::ffff:10.96.0.9"]}), ""),
        (json!({"addresses": ["10.96.7.7"]}), ""),
        (json!({"addresses": ["172.20.0.7"]}), ""),
        (json!({"addresses": ["172.20.0.8"]}), "172.20.0.8"),
        (json!({"addresses": ["203.0.113.9"]}), ""),
        (json!({"addresses": ["10.244.7.7"]}), ""),
        (json!({"addresses": ["10.96.0.9", "192.0.2.1"]}), "192.0.2.1"),
        // A pod, known or not.
        (json!({"addresses": ["10.244.1.5"]}), ""),
        (json!({"addresses": ["192.0.2.1"], "targetRef": pod("cart-1")}), ""),
        (json!({"addresses": ["192.0.2.1"], "targetRef": pod("nobody")}), ""),
    ] {
        let slice = slice(&json!({"endpoints": [endpoint]}));
        let objects = [slice, plain.clone(), outside.clone(), base(&json!({}))];
        let workloads = slice_workloads(&objects);
        let has: Vec<String> =
            workloads.iter().flat_map(|one| one.addresses.iter()).map(ToString::to_string).collect();
        assert_eq!(has.join(" "), expected, "{endpoint}");
    }
}

#[test]
fn a_selector_is_believed_before_the_slices_that_follow_from_it() {
    let labels = json!({"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    let target = json!({"kind": "Pod", "name": "cart-1", "namespace": "shop"});
    let stale = slice(&json!({"metadata": {"labels": labels},
                              "endpoints": [{"addresses": ["10.244.1.5"], "targetRef": target}]}));
    // The pod's label has changed, the slice has not yet.
    let objects = [stale, service(&json!({})), base(&json!({"metadata": {"labels": {"app": "other"}}}))];
    assert_eq!(served(&translate(&objects).unwrap()), Vec::<String>::new());
    assert_eq!(slice_workloads(&objects).len(), 0);
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
           "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn peer(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
           "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

#[test]
fn it_names_the_policies_that_select_it() {
    let cart = json!({"matchLabels": {"app": "cart"}});
    let rules = json!([{}]);
    for (about, object, expected) in [
        ("its namespace's", policy("shop", "p", &json!({"selector": cart, "rules": rules})), vec!["shop/p"]),
        (
            "the root's",
            policy("istio-system", "p", &json!({"selector": cart, "rules": rules})),
            vec!["istio-system/p"],
        ),
        ("another's", policy("web", "p", &json!({"selector": cart, "rules": rules})), vec![]),
        ("all of a namespace", policy("shop", "p", &json!({"rules": rules})), vec![]),
        (
            "AUDIT",
            policy("shop", "p", &json!({"selector": cart, "action": "AUDIT", "rules": rules})),
            vec!["shop/p"],
        ),
        ("a broken one", policy("shop", "p", &json!({"selector": cart, "action": "ALOW"})), vec!["shop/p"]),
        (
            "targets",
            policy("shop", "p", &json!({"targetRefs": [{"kind": "Service", "group": "", "name": "cart"}]})),
            vec![],
        ),
        (
            "strict",
            peer("shop", "p", &json!({"mtls": {"mode": "STRICT"}})),
            vec!["istio-system/istio_converted_static_strict"],
        ),
        (
            "strict mesh",
            peer("istio-system", "p", &json!({"mtls": {"mode": "STRICT"}})),
            vec!["istio-system/istio_converted_static_strict"],
        ),
        (
            "a broken one about peers",
            peer("shop", "p", &json!({"mtls": {"mode": "PERMISIVE"}})),
            vec!["istio-system/istio_converted_static_strict"],
        ),
        ("permissive", peer("shop", "p", &json!({"mtls": {"mode": "PERMISSIVE"}})), vec![]),
        ("disabled", peer("shop", "p", &json!({"mtls": {"mode": "DISABLE"}})), vec![]),
        (
            "a port",
            peer("shop", "p", &json!({"selector": cart, "portLevelMtls": {"8080": {"mode": "STRICT"}}})),
            vec!["shop/converted_peer_authentication_p"],
        ),
        (
            "a port that says what all say",
            peer("shop", "p", &json!({"selector": cart, "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}})),
            vec![],
        ),
    ] {
        let workload = translate(&[base(&json!({})), object]).unwrap();
        let names: Vec<String> = workload.profile.policies.iter().map(ToString::to_string).collect();
        assert_eq!(names, expected, "{about}");
    }
}

#[test]
fn ports_speak_what_their_names_say() {
    for (name, app, expected) in [
        ("http", None, AppProtocol::Http11),
        ("http-web", None, AppProtocol::Http11),
        ("http2-web", None, AppProtocol::Http2),
        ("grpc", None, AppProtocol::Grpc),
        ("https", None, AppProtocol::Tls),
        ("web", None, AppProtocol::Unknown),
        ("web", Some("kubernetes.io/h2c"), AppProtocol::Http2),
        ("http", Some("tcp"), AppProtocol::Tcp),
    ] {
        let ports = json!([{"name": name, "port": 80, "targetPort": 1, "appProtocol": app}]);
        let objects = [base(&json!({})), service(&json!({"spec": {"ports": ports}}))];
        let workload = translate(&objects).unwrap();
        assert_eq!(workload.profile.services[0].1.0[0].protocol, expected, "{name} {app:?}");
    }
}
