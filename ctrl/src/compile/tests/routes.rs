//! Routing goes to waypoints, what does not resolve changes nothing for them, and a restart neither.

use proto::type_url::ROUTING;

use super::*;
use crate::compile::layer7_types;

fn gateway() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
           "metadata": {"name": "w", "namespace": "a", "annotations": {"istio.io/for-service-account": "x"}},
           "spec": {"gatewayClassName": "istio-waypoint",
                    "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}})
}

fn rule(kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta("a", "x", &json!({})), "spec": spec})
}

fn route(subset: &str) -> Value {
    let to = json!({"host": "x", "subset": subset});
    rule("VirtualService", &json!({"hosts": ["x"], "http": [{"route": [{"destination": to}]}]}))
}

fn subsets(names: &[&str]) -> Value {
    let all: Vec<Value> = names.iter().map(|name| json!({"name": name, "labels": {"v": name}})).collect();
    rule("DestinationRule", &json!({"host": "x", "subsets": all}))
}

/// A controller and what its waypoints have.
struct Mesh {
    compiler: Compiler,
    waypoints: Store,
}

impl Mesh {
    fn new(compiler: Compiler) -> Self {
        Self { compiler, waypoints: Store::new(layer7_types()) }
    }

    fn take(&mut self, values: &[Value]) -> Edits {
        let edits = self.compiler.apply(&batch(values.iter().map(object).collect(), Vec::new()));
        self.waypoints.apply(edits.layer7.clone());
        edits
    }

    /// The routings that waypoints have, by name, as they go over the wire.
    fn routings(&self) -> BTreeMap<String, String> {
        let all = self.waypoints.resources(ROUTING);
        all.map(|resource| (resource.name().to_string(), format!("{resource:?}"))).collect()
    }
}

#[test]
fn waypoints_are_told_how_hosts_are_routed_and_agents_are_not() {
    let mut mesh = Mesh::new(compiler());
    mesh.take(&[service("a", "x", &json!({"app": "x"}), "10.96.0.1"), route("v1"), subsets(&["v1"])]);
    assert!(mesh.routings().is_empty(), "there is no waypoint");
    let edits = mesh.take(&[gateway()]);
    let mut agents = stores();
    agents[0].apply(edits.ours);
    agents[1].apply(edits.foreign);
    assert!(agents.iter().all(|store| store.resources(ROUTING).count() == 0));
    let first = mesh.routings();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["a/x.a.svc.cluster.local"]);

    // What does not resolve changes nothing, and is told.
    let edits = mesh.take(&[route("v2")]);
    assert!(edits.claims && !edits.routings_kept);
    assert_eq!(mesh.routings(), first);
    assert!(mesh.compiler.findings()[0].message.contains("keeps its last good routing"));

    // Started anew with what was kept, all at once and in whichever order.
    let kept: Vec<Routing> =
        mesh.compiler.routing().last_good.values().map(|routing| Routing::clone(routing)).collect();
    let mut again = Mesh::new(compiler());
    again.compiler.remember_routings(kept);
    again.take(&[
        gateway(),
        route("v2"),
        subsets(&["v1"]),
        service("a", "x", &json!({"app": "x"}), "10.96.0.1"),
    ]);
    assert_eq!(again.routings(), first);

    // When all is there it takes effect, once.
    let edits = mesh.take(&[subsets(&["v1", "v2"])]);
    assert!(edits.routings_kept && edits.claims);
    assert_ne!(mesh.routings(), first);
    assert!(mesh.compiler.findings().is_empty());
    assert_eq!(mesh.take(&[subsets(&["v1", "v2"])]).translated, 0);
    let gone = batch(Vec::new(), vec![object(&service("a", "x", &json!({}), "10.96.0.1")).key()]);
    let edits = mesh.compiler.apply(&gone);
    mesh.waypoints.apply(edits.layer7);
    assert!(mesh.routings().is_empty() && mesh.compiler.routing().last_good.is_empty());
}

/// The annotation stands in the place of a field: waypoints are told of it as soon as it changes, be it alone.
#[test]
fn a_health_check_that_changes_alone_is_told() {
    let mut mesh = Mesh::new(compiler());
    let checked = |check: Option<&str>| {
        let mut rule = subsets(&["v1"]);
        if let Some(check) = check {
            rule["metadata"]["annotations"] = json!({"lateen.dev/health-check": check});
        }
        rule
    };
    mesh.take(&[gateway(), service("a", "x", &json!({"app": "x"}), "10.96.0.1"), checked(None)]);
    let mut seen = vec![mesh.routings()];
    for check in [Some("tcpSocket: {port: 80}"), Some("grpc: {port: 80}"), Some("grpc: {port: 80}"), None] {
        mesh.take(&[checked(check)]);
        seen.push(mesh.routings());
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[2] == seen[3], "{seen:#?}");
    assert_eq!(seen[4], seen[0]);
}

/// A thousand hosts, each with rules of its own, some of which name others: a change compiles the hosts that it touches, and
/// is published as far as they differ.
#[test]
fn only_what_a_change_touches_is_compiled() {
    let mut mesh = Mesh::new(compiler());
    let name = |number: usize| format!("s{number}");
    let object = |kind: &str, number: usize, spec: Value| json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta("a", &name(number), &json!({})), "spec": spec});
    let host = |number: usize, timeout: &str| {
        // Every tenth goes to the first.
        let to = json!({"host": name(if number.is_multiple_of(10) { 0 } else { number })});
        let http = json!([{"timeout": timeout, "route": [{"destination": to}]}]);
        object("VirtualService", number, json!({"hosts": [name(number)], "http": http}))
    };
    let vip = |number: usize| format!("10.96.{}.{}", number / 250, number % 250 + 1);
    let service = |number: usize| service("a", &name(number), &json!({"app": "x"}), &vip(number));
    let rule = |number: usize, version: &str| {
        let subsets = json!([{"name": "v", "labels": {"v": version}}]);
        object("DestinationRule", number, json!({"host": name(number), "subsets": subsets}))
    };
    let mut all = vec![gateway()];
    for number in 0..1000 {
        all.extend([service(number), host(number, "9s")]);
    }
    mesh.take(&all);
    assert_eq!(mesh.routings().len(), 1000);
    let wild = |timeout: &str| {
        let http = json!([{"timeout": timeout, "route": [{"destination": {"host": "s1"}}]}]);
        object("VirtualService", 5000, json!({"hosts": ["*.a.svc.cluster.local"], "http": http}))
    };
    for (what, changes, compiled, published) in [
        ("one host's rules", vec![host(7, "1s")], 1, 1),
        ("the same again", vec![host(7, "1s")], 0, 0),
        ("rules of a host that many name", vec![rule(0, "1")], 100, 100),
        ("and of one that one names", vec![rule(3, "1")], 1, 1),
        ("several at once", vec![rule(3, "2"), host(3, "1s"), host(4, "1s")], 2, 2),
        // Looked at as a service, and as it is routed: by default, which waypoints need not be told.
        ("another service", vec![service(2000)], 1, 2),
        ("rules for all", vec![wild("1s")], 1001, 1001),
    ] {
        let before = mesh.compiler.routings_compiled();
        let edits = mesh.take(&changes);
        let now = mesh.compiler.routings_compiled() - before;
        assert_eq!((now, edits.translated), (compiled, published), "{what}");
    }
    assert_eq!(mesh.routings().len(), 1001, "the wildcard's rules are for the service without its own, too");
    let without = mesh.compiler.apply(&batch(Vec::new(), vec![super::object(&wild("1s")).key()]));
    mesh.waypoints.apply(without.layer7);
    assert_eq!(mesh.routings().len(), 1000, "what is routed by default is not told");
    // What is written for a restart is what has changed.
    mesh.compiler.take_last_good();
    mesh.take(&[host(8, "2s")]);
    let kept: Vec<String> = mesh.compiler.take_last_good().iter().map(|(host, _)| host.to_string()).collect();
    assert_eq!(kept, ["a/s8.a.svc.cluster.local"]);
}
