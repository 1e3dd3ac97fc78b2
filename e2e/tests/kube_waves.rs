//! Pods that come and go in waves on two nodes of a real cluster (`LATEEN_FULL=1`: 200): nothing that one of them says
//! crosses a link in the clear, from its first packet to its last, and the mesh does not keep them from starting.
//! Needs what `e2e/cluster/build` builds, and images: `make e2e-kubernetes`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use e2e::capture::{Capture, MARKER};
use e2e::cluster::Cluster;
use e2e::cluster::nodes::Nodes;
use e2e::cluster::pods::{get, is_ready, namespaces, strict, tunnelled};
use e2e::report::{counted, size};
use serde_json::Value;

/// Ports of the servers: by them captures tell the mesh's traffic from that of the others.
const IN_MESH: u16 = 7070;
const OUTSIDE: u16 = 9090;
/// How much later a pod of the mesh may start than another, at the median.
const LATER: Duration = Duration::from_millis(300);

/// One of the two namespaces, and what its pods do.
#[derive(Clone, Copy)]
struct Side {
    namespace: &'static str,
    port: u16,
    /// What they ask for, and get.
    page: &'static str,
}

const SIDES: [Side; 2] = [
    Side { namespace: "shop", port: IN_MESH, page: MARKER },
    Side { namespace: "street", port: OUTSIDE, page: "said-by-others" },
];

/// A pod, as JSON.
fn pod(side: Side, name: &str, label: &str, node: &str, script: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": side.namespace, "labels": {"app": label}},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "lateen.test/busybox:1", "command": ["sh", "-c", script]}],
        },
    })
}

/// A server on either node, behind one service.
fn servers(side: Side) -> Vec<Value> {
    let script = format!("mkdir /www; echo {0} > /www/{0}; httpd -f -p {1} -h /www", side.page, side.port);
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": side.namespace},
        "spec": {"selector": {"app": "server"}, "ports": [{"name": "http", "port": side.port}]},
    });
    let on = |number: usize| {
        let (name, node) = (format!("server-{number}"), format!("node-{number}"));
        pod(side, &name, "server", &node, &script)
    };
    vec![on(1), on(2), service]
}

/// A pod that asks from its first moment on, by name or by address, and says when it began.
fn client(side: Side, wave: usize, number: usize, address: &str) -> Value {
    let name = format!("client-{wave}-{number:03}");
    let host = if number % 4 < 2 { "server" } else { address };
    let script = format!(
        "read up rest </proc/uptime; echo began $up; \
         while :; do timeout 10 wget -qO- http://{host}:{}/{} || echo failed; sleep 1; done",
        side.port, side.page
    );
    let node = format!("node-{}", number % 2 + 1);
    pod(side, &name, &format!("wave-{wave}"), &node, &script)
}

fn list(objects: &[Value]) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// Seconds that this machine is up: pods have the same clock.
fn up() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("it is there");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("seconds")
}

/// What the pods of a wave have said, line by line, by their names.
fn said(cluster: &Cluster, side: Side, wave: usize) -> BTreeMap<String, Vec<String>> {
    let selected = format!("-lapp=wave-{wave}");
    let logs = ["logs", "-n", side.namespace, &selected, "--prefix", "--tail=-1", "--max-log-requests=250"];
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in cluster.kubectl(&logs).stdout.lines() {
        // [pod/NAME/CONTAINER] LINE
        let Some((pod, text)) = line.trim_start_matches("[pod/").split_once("/app] ") else { continue };
        all.entry(pod.to_owned()).or_default().push(text.to_owned());
    }
    all
}

/// Waits until so many pods of a wave have been served; when each of them began, and how many requests failed.
fn served(
    cluster: &Cluster,
    nodes: &Nodes,
    side: Side,
    wave: usize,
    count: usize,
) -> (BTreeMap<String, f64>, usize) {
    let mut all = BTreeMap::new();
    nodes.eventually(&format!("wave {wave} of {}", side.namespace), || {
        all = said(cluster, side, wave);
        let served = all.values().filter(|lines| lines.iter().any(|line| line == side.page)).count();
        if served == count { Ok(()) } else { Err(format!("{served} of {count} are served: {all:?}")) }
    });
    let failed = all.values().flatten().filter(|line| *line == "failed").count();
    let began = |lines: &Vec<String>| {
        lines.iter().find_map(|line| line.strip_prefix("began ")?.parse().ok()).expect("it has said so")
    };
    (all.iter().map(|(name, lines)| (name.clone(), began(lines))).collect(), failed)
}

fn gone(cluster: &Cluster, side: Side, wave: usize) {
    let selected = format!("-lapp=wave-{wave}");
    let deleted = cluster.kubectl(&["delete", "pod", "-n", side.namespace, &selected, "--wait=false"]);
    assert!(deleted.ok(), "{deleted}");
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

#[test]
fn pods_come_and_go_in_waves_and_nothing_is_said_in_the_clear() {
    let Some(cluster) = Cluster::start("pods_come_and_go_in_waves_and_nothing_is_said_in_the_clear") else {
        return;
    };
    let nodes = Nodes::start(&cluster);
    nodes.install();
    namespaces(&cluster, &nodes, &[("shop", "ambient"), ("street", "none")]);
    cluster.apply(&strict("shop"));
    cluster.apply(&list(&SIDES.map(servers).concat()));
    let addresses = SIDES.map(|side| {
        for name in ["server-1", "server-2"] {
            let server = ["pod", "-n", side.namespace, name];
            nodes.eventually(name, || is_ready(&get(&cluster, &server)));
        }
        cluster.field(&["service", "-n", side.namespace, "server"], "{.spec.clusterIP}")
    });
    let addresses = [addresses[0].as_str(), addresses[1].as_str()];
    let capture = Capture::start_on(&nodes);
    let told = waves(&cluster, &nodes, addresses);
    counted(&format!(
        "{told}; {} tunnelled",
        tunnelled(&nodes, 1, "source", "source_workload_namespace", "shop")
    ));
    let crossed = capture.end();
    let of = |port: u16| crossed.by_port.get(&port).copied().unwrap_or_default();
    counted(&format!(
        "on the links of both nodes: {} packets, {} with content to or from tunnels (15008), {} from servers of the mesh in the clear, \
         {} with what was said in the mesh, {} from servers outside of it, {} to or from DNS over TCP",
        crossed.packets,
        of(15008),
        of(IN_MESH),
        crossed.marked,
        of(OUTSIDE),
        of(53)
    ));
    assert_eq!((crossed.marked, of(IN_MESH)), (0, 0), "something was said in the clear");
    assert!(of(15008) > 0 && of(OUTSIDE) > 0, "the captures see what crosses the links");
    what_is_said_in_the_clear_is_seen(&cluster, &nodes);
    starts_are_not_delayed(&cluster, &nodes, addresses);
}

/// Makes all of them, each wave while the one before goes; what is to be told.
fn waves(cluster: &Cluster, nodes: &Nodes, addresses: [&str; 2]) -> String {
    let (waves, counts) = (2, [size(10, 100), size(4, 20)]);
    let (mut failed, mut took) = (0, Vec::new());
    for wave in 0..waves {
        let begun = Instant::now();
        let all = (0..2)
            .flat_map(|of| (0..counts[of]).map(move |number| client(SIDES[of], wave, number, addresses[of])));
        cluster.apply(&list(&all.collect::<Vec<_>>()));
        for (side, count) in SIDES.into_iter().zip(counts) {
            failed += served(cluster, nodes, side, wave, count).1;
        }
        took.push(begun.elapsed().as_secs_f64());
        for side in SIDES {
            gone(cluster, side, wave);
        }
    }
    for (side, wave) in SIDES.into_iter().flat_map(|side| (0..waves).map(move |wave| (side, wave))) {
        nodes.eventually("the wave to be gone", || {
            let left = get(cluster, &["pod", "-n", side.namespace, &format!("-lapp=wave-{wave}")]);
            let names =
                left["items"].as_array().into_iter().flatten().map(|pod| pod["metadata"]["name"].to_string());
            let names: BTreeSet<String> = names.collect();
            if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
        });
    }
    format!(
        "{} pods of the mesh in {waves} waves, all served within {took:.1?} s of their making; {failed} of their requests failed",
        waves * counts[0]
    )
}

/// The control: the same words outside the mesh.
fn what_is_said_in_the_clear_is_seen(cluster: &Cluster, nodes: &Nodes) {
    let capture = Capture::start_on(nodes);
    let address = get(cluster, &["pod", "-n", "street", "server-2"])["status"]["podIP"].clone();
    let address = address.as_str().expect("an address");
    let say = format!("timeout 10 wget -qO- http://{address}:{OUTSIDE}/{MARKER} || true");
    let done = cluster.kubectl(&["exec", "-n", "street", "server-1", "--", "sh", "-c", &say]);
    assert!(done.ok(), "{done}");
    let crossed = capture.end();
    assert!(crossed.marked > 0, "the captures would not have seen it: {crossed:?}");
    counted(&format!("the control, one request outside the mesh: {} packets with its words", crossed.marked));
}

/// One pod of the mesh and one that is not at the same time, on either node in turn.
fn starts_are_not_delayed(cluster: &Cluster, nodes: &Nodes, addresses: [&str; 2]) {
    let (mut starts, mut later) = ([Vec::new(), Vec::new()], Vec::new());
    for pair in 0..size(12, 30) {
        let wave = 100 + pair;
        let mut both = [0, 1].map(|of| client(SIDES[of], wave, (pair + of) % 2, addresses[of]));
        if pair % 4 >= 2 {
            both.reverse();
        }
        let made = up();
        cluster.apply(&list(&both));
        let took = SIDES.map(|side| {
            let began = served(cluster, nodes, side, wave, 1).0;
            began.values().next().expect("there is one") - made
        });
        starts[0].push(took[0]);
        starts[1].push(took[1]);
        later.push(took[0] - took[1]);
        for side in SIDES {
            gone(cluster, side, wave);
        }
    }
    let (ours, others) = (median(starts[0].clone()), median(starts[1].clone()));
    let pairs = later.len();
    let delay = median(later);
    counted(&format!(
        "{pairs} pairs of pods, from kubectl apply to their first command, medians: {ours:.2} s in the mesh, {others:.2} s outside; \
         of the differences {:.0} ms",
        delay * 1000.0
    ));
    assert!(delay < LATER.as_secs_f64(), "pods of the mesh start {delay:.3} s later");
}
