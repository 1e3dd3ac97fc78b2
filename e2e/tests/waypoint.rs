//! Which traffic goes by which waypoint, by every way to ask for one; and that nothing goes around a waypoint that is
//! not there.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::process::Command;
use std::time::Duration;

use e2e::{Mesh, lateen, manifests, run};
use serde_json::Value;

/// How long a waypoint that ended may be away.
const BACK: Duration = Duration::from_secs(20);

/// A Gateway that is a waypoint of namespace `test`; `metadata` is the inside of a YAML map.
fn gateway(name: &str, namespace: &str, metadata: &str, routes: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}, {metadata}}}\n\
         spec:\n  gatewayClassName: istio-waypoint\n  infrastructure: {{parametersRef: {{group: \"\", kind: ConfigMap, name: {name}}}}}\n  \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {{namespaces: {{from: {routes}}}}}}}]\n"
    )
}

/// How many replicas a waypoint is to have.
fn replicas(name: &str, namespace: &str, count: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         data: {{deployment: \"spec: {{replicas: {count}}}\"}}\n"
    )
}

/// An HTTP server and its service, each with labels of its own.
fn server(name: &str, namespace: &str, of_service: &str, of_pod: &str) -> String {
    let text = manifests::server(name, namespace, "node-2", "lateen, echo, --http, \"8080\"", &[8080]);
    let labels = |labels: &str| {
        labels
            .split(' ')
            .filter(|label| !label.is_empty())
            .map(|label| format!("\n    {}", label.replace('=', ": ")))
            .collect::<String>()
    };
    let of_service = match of_service {
        "" => String::new(),
        given => format!("\n  labels:{}", labels(given)),
    };
    let meta = format!("  name: {name}\n  namespace: {namespace}");
    text.replace(
        &format!("{meta}\nspec:\n  ipFamilyPolicy"),
        &format!("{meta}{of_service}\nspec:\n  ipFamilyPolicy"),
    )
    .replace(&format!("  labels:\n    app: {name}"), &format!("  labels:\n    app: {name}{}", labels(of_pod)))
}

/// A name, what its service and its pod are bound to.
type Row = (&'static str, &'static str, Option<&'static str>, Option<&'static str>);

/// Each way of binding, and none.
const TABLE: [Row; 7] = [
    ("free", "test", None, None),
    ("labelled", "test", Some("test/front"), None),
    ("alone", "test", None, Some("test/every")),
    ("accounted", "test", Some("test/account"), Some("test/account")),
    ("early", "test", None, None),
    ("walled", "wall", Some("infra/shared"), Some("infra/shared")),
    ("exempt", "wall", None, None),
];

fn mesh() -> Mesh {
    let wall = manifests::namespace("wall", "ambient")
        + "    istio.io/use-waypoint: shared\n    istio.io/use-waypoint-namespace: infra\n";
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::namespace("infra", ""),
        wall,
        manifests::shell("client", "test", "node-1"),
        manifests::shell("other", "test", "node-2"),
        server("free", "test", "", ""),
        server("labelled", "test", "istio.io/use-waypoint=front", ""),
        server("alone", "test", "", "istio.io/use-waypoint=every"),
        server("accounted", "test", "", ""),
        server("early", "test", "istio.io/use-waypoint=never", ""),
        server("walled", "wall", "", ""),
        server("exempt", "wall", "istio.io/use-waypoint=none", "istio.io/use-waypoint=none"),
    ];
    let every = "labels: {istio.io/waypoint-for: all}";
    let waypoints = [
        gateway("front", "test", "", "Same"),
        gateway("every", "test", every, "Same"),
        gateway("account", "test", "annotations: {istio.io/for-service-account: accounted}", "Same"),
        gateway("never", "test", "", "Same"),
        gateway("shared", "infra", every, "All"),
        replicas("every", "test", 1),
        replicas("account", "test", 1),
        replicas("never", "test", 0),
        replicas("shared", "infra", 2),
    ];
    let front = replicas("front", "test", 1);
    Mesh::start(&[
        ("app.yaml", &app.concat()),
        ("waypoints.yaml", &waypoints.concat()),
        ("front.yaml", &front),
    ])
}

/// What an agent knows.
fn dump(mesh: &Mesh, node: &str) -> Value {
    let told = mesh.lateen(&[
        "exec",
        &format!("node-agent/{node}"),
        "--",
        "curl",
        "-s",
        "localhost:15000/config_dump",
    ]);
    serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

/// The waypoint of one of the things in a dump.
fn waypoint_in(dump: &Value, of: &str, name: &str) -> Option<String> {
    let found = dump[of].as_array().into_iter().flatten().find(|one| one["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} among the {of}"));
    found["waypoint"]["destination"].as_str().map(str::to_owned)
}

fn pod_address(mesh: &Mesh, namespace: &str, pod: &str) -> String {
    format!("{}:8080", mesh.address(namespace, pod, false))
}

/// An address of the server at which a request arrives directly, or by a waypoint; `Err` what else happened.
fn asks(mesh: &Mesh, target: &str) -> Result<String, String> {
    let told = mesh.exec("test", "client", &["curl", "-4", "-sS", "-m", "5", &format!("http://{target}/")]);
    let report: Value =
        serde_json::from_str(&told.stdout).map_err(|error| format!("{target}: {error}: {told}"))?;
    let peer = report["peer"].as_str().unwrap_or_default();
    Ok(peer.rsplit_once(':').map_or(peer, |(ip, _)| ip).trim_matches(['[', ']']).to_owned())
}

/// The replicas of a waypoint, by their addresses.
fn replica_addresses(mesh: &Mesh, waypoint: &str) -> Vec<String> {
    let (namespace, name) = waypoint.split_once('/').expect("a namespace and a name");
    let told = mesh.lateen(&["get", "pods", "-n", namespace, "-o", "json"]);
    let pods: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    let made_for = |pod: &&Value| pod["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == name;
    let ips = |pod: &Value| {
        let ips = pod["status"]["podIPs"].as_array().cloned().unwrap_or_default();
        ips.iter().filter_map(|ip| ip["ip"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    pods["items"].as_array().into_iter().flatten().filter(made_for).flat_map(ips).collect()
}

#[test]
fn each_way_of_asking_binds_at_every_agent() {
    let mesh = mesh();
    // In force as soon as the mesh is up.
    for node in ["node-1", "node-2"] {
        let dump = dump(&mesh, node);
        for (name, _, service, pod) in TABLE {
            let named = |waypoint: Option<&str>| {
                let (namespace, name) = waypoint?.split_once('/')?;
                Some(format!("{namespace}/{name}.{namespace}.svc.cluster.local"))
            };
            assert_eq!(waypoint_in(&dump, "services", name), named(service), "service {name} at {node}");
            assert_eq!(waypoint_in(&dump, "workloads", name), named(pod), "pod {name} at {node}");
        }
    }
    let gateways = mesh.lateen(&["get", "gateways", "-A"]).stdout;
    for (name, programmed) in [("front", true), ("shared", true), ("never", false)] {
        let row = gateways.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{gateways}"));
        assert_eq!(row.contains("True"), programmed, "{row}");
    }
    assert_eq!(
        replica_addresses(&mesh, "infra/shared").len(),
        2 * replica_addresses(&mesh, "test/front").len()
    );
    assert!(mesh.lateen(&["logs", "waypoint/front", "-n", "test"]).ok(), "its log is kept");
    let versions = mesh.lateen(&["version", "-o", "json"]).stdout;
    let versions: Value = serde_json::from_str(&versions).expect("JSON");
    assert_eq!(versions["waypoints"].as_object().map(serde_json::Map::len), Some(5), "{versions}");
    let status = mesh.lateen(&["proxy-status", "-o", "json"]);
    assert!(status.ok(), "all have everything in force: {status}");
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let proxies = status["proxies"].as_array().expect("a list");
    assert_eq!(proxies.len(), 2 + 5, "{status}");
    assert!(proxies.iter().all(|proxy| proxy["cluster"] == "Kubernetes"), "{status}");

    // Parameters that cannot be used are told wherever somebody looks; it runs without them.
    mesh.apply("front.yaml", &replicas("front", "test", 1).replace("{deployment:", "{deploymnt:"));
    mesh.eventually("the Gateway's conditions say so", |mesh| {
        let told = mesh.lateen(&["get", "gateway", "front", "-n", "test", "-o", "yaml"]).stdout;
        let parts = ["InvalidParameters", "deploymnt", "it runs with `replicas: 1`"];
        if parts.iter().all(|part| told.contains(part)) { Ok(()) } else { Err(told) }
    });
    let told = run(Command::new(lateen()).arg("analyze").arg(mesh.folder())).to_string();
    assert!(told.contains("ConfigMap test/front: \"deploymnt\" is none of"), "{told}");

    // A Gateway that goes takes its waypoint with it; who asked for it by a label is not let around.
    let front = replicas("front", "test", 0);
    mesh.apply("front.yaml", &front);
    refused(&mesh, "labelled:8080");
}

#[test]
fn requests_go_by_their_waypoint_and_never_around_it() {
    let mesh = mesh();
    let client = mesh.address("test", "client", false);
    for (name, namespace, service, pod) in TABLE {
        let targets =
            [(format!("{name}.{namespace}:8080"), service), (pod_address(&mesh, namespace, name), pod)];
        for (target, waypoint) in targets {
            let peer = asks(&mesh, &target).unwrap_or_else(|error| panic!("{name}: {error}"));
            match waypoint {
                None => assert_eq!(peer, client, "{name} at {target} is asked directly"),
                Some(waypoint) => {
                    let replicas = replica_addresses(&mesh, waypoint);
                    assert!(
                        replicas.contains(&peer),
                        "{name} at {target}: by {peer}, not by {waypoint} {replicas:?}"
                    );
                }
            }
        }
    }
    // Killed, it is missed; started again by itself, it is back.
    let killed = mesh.processes().into_iter().filter(|process| process.command.ends_with("/waypoint"));
    killed.for_each(|process| process.kill());
    mesh.within(BACK, "the waypoint is back", |mesh| asks_by(mesh, "labelled:8080", "test/front", &client));
    // Without any replica nothing goes, neither by name nor by address; others are not touched.
    mesh.apply("front.yaml", &replicas("front", "test", 0));
    refused(&mesh, "labelled:8080");
    let free = asks(&mesh, "free:8080");
    assert_eq!(free, Ok(client.clone()));
    // Not even after a controller that knows no replica has started anew.
    mesh.ctrl().kill();
    mesh.eventually("ctrl is back", |mesh| match mesh.lateen(&["get", "gateways", "-n", "test"]) {
        told if told.ok() && told.stdout.contains("front") => Ok(()),
        told => Err(told.to_string()),
    });
    mesh.eventually("agents have heard of it", |mesh| {
        let connected = mesh.logs("node-agent/node-1").matches("connected to the controller").count();
        if connected > 1 { Ok(()) } else { Err(format!("connected {connected} times")) }
    });
    refused(&mesh, "labelled:8080");
    mesh.apply("front.yaml", &replicas("front", "test", 1));
    mesh.within(BACK, "the waypoint is back", |mesh| asks_by(mesh, "labelled:8080", "test/front", &client));
}

/// A policy that lets only `client` ask a server.
fn only_client(name: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: test}}\n\
         spec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  rules:\n  - from:\n    - source: {{principals: [cluster.local/ns/test/sa/client]}}\n"
    )
}

/// Judged by the waypoint, or by the pod's agent where none is in the way: by the client itself, not by who passes it on.
#[test]
fn a_policy_by_selector_holds_by_name_and_by_address() {
    let mesh = mesh();
    let servers = ["labelled", "alone", "accounted", "free"];
    mesh.apply("policies.yaml", &servers.map(only_client).concat());
    let asks = |pod: &str, target: &str| {
        let told = mesh.exec(
            "test",
            pod,
            &[
                "curl",
                "-4",
                "-s",
                "-m",
                "5",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &format!("http://{target}/"),
            ],
        );
        told.stdout
    };
    for name in servers {
        for target in [format!("{name}:8080"), pod_address(&mesh, "test", name)] {
            mesh.eventually("the policy is in force", |_| match asks("other", &target).as_str() {
                "200" => Err(format!("other passes to {name} at {target}")),
                _ => Ok(()),
            });
            assert_eq!(asks("client", &target), "200", "{name} at {target}");
        }
    }
}

/// That it is asked by the waypoint.
///
/// # Panics
/// It was asked around it.
fn asks_by(mesh: &Mesh, target: &str, waypoint: &str, client: &str) -> Result<(), String> {
    let peer = asks(mesh, target)?;
    assert_ne!(peer, client, "{target} was asked around its waypoint");
    let replicas = replica_addresses(mesh, waypoint);
    if replicas.contains(&peer) { Ok(()) } else { Err(format!("by {peer}, not {replicas:?}")) }
}

/// Waits until nobody takes it, with the agent's reason, and never lets it around.
fn refused(mesh: &Mesh, target: &str) {
    let client = mesh.address("test", "client", false);
    mesh.eventually("nobody takes it", |mesh| match asks(mesh, target) {
        Ok(peer) if peer == client => panic!("{target} was asked around its waypoint"),
        Ok(peer) => Err(format!("by {peer}")),
        Err(_) => Ok(()),
    });
    mesh.eventually_logged(&["unknown waypoint: test/front.test.svc.cluster.local"]);
}
