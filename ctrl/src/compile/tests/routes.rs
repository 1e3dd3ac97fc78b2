//! Routing goes to waypoints, what does not resolve changes nothing for them, and a restart neither.

use std::sync::Arc;

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

/// A thousand hosts, each with rules of its own: a change of one is one for waypoints.
#[test]
fn a_changed_rule_is_one_resource() {
    let mut mesh = Mesh::new(compiler());
    let name = |number: usize| format!("s{number}");
    let host = |number: usize, port: u16| {
        let to = json!({"host": name(number), "port": {"number": port}});
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta("a", &name(number), &json!({})),
               "spec": {"hosts": [name(number)], "http": [{"timeout": format!("{port}s"), "route": [{"destination": to}]}]}})
    };
    let mut all = vec![gateway()];
    for number in 0..1000 {
        let vip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        all.push(service("a", &name(number), &json!({"app": "x"}), &vip));
        all.push(host(number, 80));
    }
    mesh.take(&all);
    assert_eq!(mesh.routings().len(), 1000);
    let mut other = host(7, 80);
    other["spec"]["http"][0]["timeout"] = json!("1s");
    assert_eq!(mesh.take(&[other]).translated, 1);
    let _: Arc<Routing> = mesh.compiler.routing().routings.values().next().cloned().expect("there are some");
}
