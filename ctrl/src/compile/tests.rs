//! Whatever the order and the grouping in which objects come and go, what is published in the end is what the objects
//! there mean; and a change costs what it changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use manifest::{Batch, Key, Object, from_json};
use proptest::prelude::*;
use proptest::sample::{Index as Pick, subsequence};
use proto::type_url::{ADDRESS, AUTHORIZATION};
use serde_json::{Value, json};
use xds::delta::store::Store;

use super::*;

fn object(value: &Value) -> Arc<Object> {
    // Those of one namespace an API server has told of.
    let of_a = value["metadata"]["namespace"] == "a";
    let origin: Arc<Path> = Arc::from(Path::new(if of_a { manifest::API_SERVER } else { "test" }));
    let mut parsed = from_json(value, &origin);
    Arc::new(parsed.objects.pop().unwrap_or_else(|| panic!("{:?}", parsed.findings)))
}

fn meta(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({"name": name, "namespace": namespace, "labels": labels})
}

fn pod(namespace: &str, name: &str, app: &str, ip: &str, ready: bool, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": meta(namespace, name, &json!({"app": app})),
        "spec": {"nodeName": node, "serviceAccountName": app, "containers": [
            {"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 8080}]},
        ]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }},
        ]},
    })
}

fn service(namespace: &str, name: &str, selector: &Value, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(namespace, name, &json!({})),
        "spec": {"clusterIP": ip, "selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
    })
}

fn slice(namespace: &str, name: &str, service: &str, ip: &str, pod: Option<&str>) -> Value {
    let target = pod.map(|pod| json!({"kind": "Pod", "namespace": namespace, "name": pod}));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": meta(namespace, name, &json!({"kubernetes.io/service-name": service})),
        "ports": [{"name": "http", "port": 9090}],
        "endpoints": [{"addresses": [ip], "targetRef": target, "conditions": {"ready": true}}],
    })
}

fn node(name: &str, zone: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
           "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
}

fn policy(namespace: &str, name: &str, app: Option<&str>, action: &str) -> Value {
    let selector = app.map(|app| json!({"matchLabels": {"app": app}}));
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
           "metadata": {"name": name, "namespace": namespace},
           "spec": {"selector": selector, "action": action, "rules": [{}]}})
}

fn peer(namespace: &str, name: &str, app: Option<&str>, mode: &str, port: &str) -> Value {
    let selector = app.map(|app| json!({"matchLabels": {"app": app}}));
    let ports = app.map(|_| json!({"8080": {"mode": port}}));
    json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
           "metadata": {"name": name, "namespace": namespace},
           "spec": {"selector": selector, "mtls": {"mode": mode}, "portLevelMtls": ports}})
}

fn gateway(namespace: &str, name: &str, account: Option<&str>, routes: &str) -> Value {
    let annotations = account.map_or(json!({}), |account| json!({"istio.io/for-service-account": account}));
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations, "labels": {"istio.io/waypoint-for": "all"}},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "m", "port": 15008, "protocol": "HBONE",
            "allowedRoutes": {"namespaces": {"from": routes}}}]}})
}

fn labelled(mut object: Value, label: &str, value: &str) -> Value {
    object["metadata"]["labels"][label] = json!(value);
    object
}

fn any_object() -> impl Strategy<Value = Value> {
    let namespace = prop::sample::select(vec!["a", "b", "istio-system"]);
    let app = prop::sample::select(vec!["x", "y"]);
    let name = prop::sample::select(vec!["one", "two", "three"]);
    let ip = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mode = prop::sample::select(vec!["STRICT", "PERMISSIVE", "UNSET"]);
    let common = (namespace, app, name, ip, mode, any::<bool>(), any::<bool>(), 0..14_u8);
    common.prop_map(|(namespace, app, name, ip, mode, flag, other, kind)| match kind {
        8 => gateway(namespace, name, flag.then_some(app), if other { "All" } else { "Same" }),
        9 => labelled(pod(namespace, name, app, ip, flag, "n1"), "gateway.networking.k8s.io/gateway-name", name),
        10 => labelled(pod(namespace, name, app, ip, flag, "n1"), "istio.io/use-waypoint", if other { "none" } else { "one" }),
        11 => labelled(service(namespace, name, &json!({"app": app}), ip), "istio.io/use-waypoint", if other { "one" } else { "two" }),
        12 => json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {
            "istio.io/use-waypoint": name, "istio.io/use-waypoint-namespace": if flag { "a" } else { namespace },
            "lateen.dev/require-waypoint": if other { "true" } else { "false" }}}}),
        13 => labelled(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(namespace, app, &json!({}))}),
            "lateen.dev/require-waypoint", if flag { "true" } else { "" }),
        0 | 1 => pod(namespace, name, app, ip, flag, if other { "n1" } else { "n2" }),
        2 => service(namespace, name, &if flag { json!({"app": app}) } else { json!({}) }, ip),
        3 => slice(namespace, name, name, ip, flag.then_some(name)),
        4 => node(if flag { "n1" } else { "n2" }, app),
        5 => policy(namespace, name, flag.then_some(app), if other { "ALLOW" } else { "AUDIT" }),
        6 => peer(namespace, name, flag.then_some(app), mode, if other { "STRICT" } else { "PERMISSIVE" }),
        _ => json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                    "metadata": {"name": name, "namespace": namespace}, "spec": {"action": "DNEY"}}),
    })
}

fn batch(upserted: Vec<Arc<Object>>, removed: Vec<Key>) -> Batch {
    Batch { upserted, removed, ..Batch::default() }
}

fn compiler() -> Compiler {
    Compiler::new(Context::new(model::mesh::Settings::default()))
}

/// Of a mesh that says of some addresses whose they are.
fn with_ranges() -> Compiler {
    let range = |text: &str| vec![text.parse().unwrap()];
    let (service_ranges, pod_ranges) = (range("10.0.0.2/32"), range("10.0.0.3/32"));
    let settings = model::mesh::Settings { service_ranges, pod_ranges, ..Default::default() };
    Compiler::new(Context::new(settings))
}

/// What clients of both views would have: type and name to content.
fn published(stores: &[Store; 2]) -> Vec<BTreeMap<String, String>> {
    let one = |store: &Store| {
        let all = TYPES.iter().flat_map(|of| store.resources(of).map(move |resource| (of, resource)));
        all.map(|(of, resource)| (format!("{of} {}", resource.name()), format!("{resource:?}"))).collect()
    };
    stores.iter().map(one).collect()
}

/// What is kept for a restart of the waypoints that have been ready.
fn keep(compiler: &Compiler, edits: &Edits, kept: &mut BTreeMap<Name, Object>) {
    for one in &edits.kept {
        match one {
            Kept::Ready(name) => {
                let object = compiler.index().gateway_object(name).expect("it is there");
                kept.insert(name.clone(), (**object).clone());
            }
            Kept::Gone(name) => drop(kept.remove(name)),
        }
    }
}

fn apply(compiler: &mut Compiler, stores: &mut [Store; 2], batch: &Batch) -> usize {
    apply_keeping(compiler, stores, batch, &mut BTreeMap::new())
}

fn apply_keeping(
    compiler: &mut Compiler,
    stores: &mut [Store; 2],
    batch: &Batch,
    kept: &mut BTreeMap<Name, Object>,
) -> usize {
    let edits = compiler.apply(batch);
    keep(compiler, &edits, kept);
    stores[0].apply(edits.ours);
    stores[1].apply(edits.foreign);
    edits.translated
}

fn stores() -> [Store; 2] {
    [Store::new(TYPES), Store::new(TYPES)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_published_does_not_depend_on_how_it_came(
        steps in prop::collection::vec((any_object(), any::<bool>(), any::<bool>()), 1..40),
        order in any::<Pick>(),
    ) {
        // Objects come, change and go, several at a time.
        let (mut grown, mut kept) = (with_ranges(), stores());
        let mut ready = BTreeMap::new();
        let mut there: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        let (mut upserted, mut gone): (BTreeMap<Key, Arc<Object>>, Vec<Key>) = Default::default();
        for (value, remove, flush) in &steps {
            let object = object(value);
            let key = object.key();
            if *remove && there.contains_key(&key) {
                there.remove(&key);
                upserted.remove(&key);
                gone.push(key);
            } else {
                gone.retain(|other| *other != key);
                there.insert(key.clone(), object.clone());
                upserted.insert(key, object);
            }
            if *flush {
                let all = std::mem::take(&mut upserted).into_values().collect();
                apply_keeping(&mut grown, &mut kept, &batch(all, std::mem::take(&mut gone)), &mut ready);
            }
        }
        apply_keeping(&mut grown, &mut kept, &batch(upserted.into_values().collect(), gone), &mut ready);

        // The same all at once, in another order, after a restart: waypoints that have been ready are remembered.
        let mut all: Vec<Arc<Object>> = there.into_values().collect();
        if !all.is_empty() {
            let middle = order.index(all.len());
            all.rotate_left(middle);
        }
        let (mut fresh, mut anew) = (with_ranges(), stores());
        fresh.remember(&ready.into_values().collect::<Vec<_>>());
        apply(&mut fresh, &mut anew, &batch(all, Vec::new()));
        prop_assert_eq!(published(&kept), published(&anew));
    }

    #[test]
    fn parts_come_in_any_order(values in prop::collection::vec(any_object(), 1..20), cut in subsequence((0..20).collect::<Vec<usize>>(), 0..20)) {
        let mut objects: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        objects.extend(values.iter().map(object).map(|object| (object.key(), object)));
        let (first, second): (Vec<_>, Vec<_>) =
            objects.values().cloned().enumerate().partition(|(place, _)| cut.contains(place));
        let part = |part: &[(usize, Arc<Object>)]| batch(part.iter().map(|(_, o)| o.clone()).collect(), Vec::new());
        let mut results = Vec::new();
        for parts in [[&first, &second], [&second, &first]] {
            let (mut compiler, mut stores) = (with_ranges(), stores());
            for one in parts {
                apply(&mut compiler, &mut stores, &part(one));
            }
            results.push(published(&stores));
        }
        prop_assert_eq!(&results[0], &results[1]);
    }
}

/// A thousand pods and a hundred services: what each kind of change costs.
#[test]
fn a_change_costs_what_it_changes() {
    let (mut compiler, mut stores) = (compiler(), stores());
    let app = |number: usize| format!("app-{}", number % 100);
    let ip = |number: usize| format!("10.1.{}.{}", number / 250, number % 250 + 1);
    let mut all = Vec::new();
    for number in 0..1000 {
        all.push(object(&pod("a", &format!("p{number}"), &app(number), &ip(number), true, "n1")));
    }
    for number in 0..100 {
        let vip = format!("10.96.0.{}", number + 1);
        all.push(object(&service("a", &app(number), &json!({"app": app(number)}), &vip)));
    }
    apply(&mut compiler, &mut stores, &batch(all, Vec::new()));
    assert_eq!(stores[0].resources(ADDRESS).count(), 1100);
    let mut cost = |value: &Value| apply(&mut compiler, &mut stores, &batch(vec![object(value)], Vec::new()));
    for (about, value, most) in [
        ("a pod that is not ready", pod("a", "p7", "app-7", &ip(7), false, "n1"), 1),
        ("a pod as it was", pod("a", "p7", "app-7", &ip(7), false, "n1"), 0),
        ("a service's selector", service("a", "app-3", &json!({"app": "app-4"}), "10.96.0.4"), 21),
        ("a policy for one app", policy("a", "p", Some("app-5"), "DENY"), 11),
        ("a policy for the namespace", policy("a", "all", None, "DENY"), 1),
        ("a PeerAuthentication of another namespace", peer("b", "p", None, "STRICT", ""), 1),
        ("a PeerAuthentication of the namespace", peer("a", "p", None, "STRICT", ""), 1001),
        ("a PeerAuthentication that says the same", peer("a", "q", None, "UNSET", ""), 1002),
    ] {
        let cost = cost(&value);
        assert!(cost <= most, "{about}: {cost} keys, not {most}");
    }
    assert_eq!(stores[0].resources(AUTHORIZATION).count(), 3);
}

mod claims;
mod routes;
mod waypoints;
