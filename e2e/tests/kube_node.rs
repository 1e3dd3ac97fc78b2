//! Node agents on a real cluster of two nodes: pods are captured before they start and while they run, the kubelet's probes
//! reach them under STRICT, jobs end, the CNI plugin stays where it is put, and everything goes with the DaemonSet.
//! Needs what `e2e/cluster/build` builds, and images: `make e2e-kubernetes`.

use std::time::{Duration, Instant};

use e2e::cluster::Cluster;
use e2e::cluster::nodes::Nodes;
use e2e::cluster::pods::{
    SERVE, WAIT, ask, get, is_ready, namespaces, pod, redirection, service, strict, tunnelled,
};
use e2e::report::counted;
use serde_json::Value;

/// A server of gRPC, probed by the kubelet's own kind of probe.
fn etcd(image: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: etcd, namespace: shop}}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: {image}
    command: [/bin/etcd, --data-dir, /tmp/etcd, --listen-client-urls, 'http://0.0.0.0:2379',
      --advertise-client-urls, 'http://127.0.0.1:2379']
    readinessProbe: {{grpc: {{port: 2379}}, periodSeconds: 1}}
    livenessProbe: {{grpc: {{port: 2379}}, periodSeconds: 1}}
---
"
    )
}

#[test]
fn pods_are_in_the_mesh_by_their_labels() {
    let Some(cluster) = Cluster::start("pods_are_in_the_mesh_by_their_labels") else { return };
    let nodes = Nodes::start(&cluster);
    nodes.install();
    let probes = "    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    startupProbe: {exec: {command: [ls, /www]}, periodSeconds: 1}";
    namespaces(&cluster, &nodes, &[("shop", "ambient"), ("later", "none"), ("outside", "none")]);
    cluster.apply(
        &[
            strict("shop"),
            pod("shop", "server", "node-2", SERVE, probes),
            service("shop", "server"),
            pod("shop", "client", "node-1", WAIT, ""),
            etcd(nodes.etcd()),
            pod("later", "newcomer", "node-2", SERVE, ""),
            service("later", "newcomer"),
            pod("outside", "stranger", "node-1", WAIT, ""),
        ]
        .concat(),
    );
    for (namespace, name) in [
        ("shop", "server"),
        ("shop", "client"),
        ("shop", "etcd"),
        ("later", "newcomer"),
        ("outside", "stranger"),
    ] {
        nodes.eventually(name, || is_ready(&get(&cluster, &["pod", "-n", namespace, name])));
    }
    assert_eq!(redirection(&cluster, "shop", "server"), "enabled");
    assert_eq!(redirection(&cluster, "outside", "stranger"), Value::Null);

    // STRICT is in force once the stranger is refused; those of the mesh come through tunnels.
    nodes.eventually("STRICT", || match ask(&cluster, "outside", "stranger", "http://server.shop:8080/") {
        Ok(()) => Err("a stranger is served".to_owned()),
        Err(_) => Ok(()),
    });
    nodes.eventually("the client", || ask(&cluster, "shop", "client", "http://server:8080/"));
    assert!(tunnelled(&nodes, 1, "source", "source_workload", "client") > 0);
    assert!(tunnelled(&nodes, 2, "destination", "destination_workload", "server") > 0);
    probes_pass_and_nothing_else_of_the_node(&cluster, &nodes);
    a_job_ends_with_what_its_manifest_says(&cluster, &nodes);
    a_running_pod_joins_and_leaves(&cluster, &nodes);
    the_plugin_stays_where_it_is_put(&nodes);
    without_an_agent_only_others_start(&cluster, &nodes);
    an_update_fails_nothing(&cluster, &nodes);
    an_agent_lifts_the_taint_of_a_node_that_starts(&cluster, &nodes);
    it_leaves_no_trace(&cluster, &nodes);
}

/// Under STRICT for some seconds by now.
fn probes_pass_and_nothing_else_of_the_node(cluster: &Cluster, nodes: &Nodes) {
    let server = get(cluster, &["pod", "-n", "shop", "server"]);
    assert_eq!(is_ready(&server), Ok(()), "probed by HTTP, TCP and a command");
    assert_eq!(is_ready(&get(cluster, &["pod", "-n", "shop", "etcd"])), Ok(()), "probed by gRPC");
    let address = server["status"]["podIP"].as_str().expect("an address").to_owned();
    assert!(nodes.curl(2, &format!("http://{address}:8080/")).ok(), "what a probe asks");
    let other = nodes.curl(2, &format!("http://{address}:8081/"));
    assert!(!other.ok(), "a process of the node passed STRICT on a port that nothing probes: {other}");
    let far = nodes.curl(1, &format!("http://{address}:8080/"));
    assert!(!far.ok(), "another node's process passed STRICT: {far}");
}

fn a_job_ends_with_what_its_manifest_says(cluster: &Cluster, nodes: &Nodes) {
    cluster.apply(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: report, namespace: shop}
spec:
  backoffLimit: 0
  template:
    spec:
      nodeName: node-1
      restartPolicy: Never
      containers:
      - {name: app, image: 'lateen.test/busybox:1', command: [wget, -qO-, 'http://server:8080/']}
",
    );
    nodes.eventually("the job", || {
        let job = get(cluster, &["job", "-n", "shop", "report"]);
        if job["status"]["succeeded"] == 1 { Ok(()) } else { Err(job["status"].to_string()) }
    });
    let pods = get(cluster, &["pod", "-n", "shop", "-ljob-name=report"]);
    let spec = &pods["items"][0]["spec"];
    assert_eq!(spec["containers"].as_array().map(Vec::len), Some(1), "{spec}");
    assert_eq!(spec["initContainers"], Value::Null);
    assert!(tunnelled(nodes, 1, "source", "source_workload", "report") > 0);
}

fn a_running_pod_joins_and_leaves(cluster: &Cluster, nodes: &Nodes) {
    let label = |mode: &str| {
        let label = format!("istio.io/dataplane-mode={mode}");
        let labelled = cluster.kubectl(&["label", "ns", "later", "--overwrite", &label]);
        assert!(labelled.ok(), "{labelled}");
    };
    let url = "http://newcomer.later:8080/";
    let count = || tunnelled(nodes, 2, "destination", "destination_workload", "newcomer");
    ask(cluster, "shop", "client", url).expect("in plain");
    assert_eq!(count(), 0);
    let before = get(cluster, &["pod", "-n", "later", "newcomer"])["status"]["containerStatuses"][0].clone();
    label("ambient");
    nodes.eventually("the newcomer's tunnels", || {
        ask(cluster, "shop", "client", url)?;
        if count() > 0 { Ok(()) } else { Err(redirection(cluster, "later", "newcomer").to_string()) }
    });
    let after = get(cluster, &["pod", "-n", "later", "newcomer"])["status"]["containerStatuses"][0].clone();
    assert_eq!(before["containerID"], after["containerID"]);
    label("none");
    nodes.eventually("the end of its redirection", || {
        ask(cluster, "shop", "client", url)?;
        match redirection(cluster, "later", "newcomer") {
            Value::Null => Ok(()),
            other => Err(other.to_string()),
        }
    });
    nodes.eventually("plain connections", || {
        let tunnels = count();
        ask(cluster, "shop", "client", url)?;
        if count() == tunnels { Ok(()) } else { Err(format!("{tunnels} tunnelled")) }
    });
}

fn the_plugin_stays_where_it_is_put(nodes: &Nodes) {
    let list = nodes.folder(1).join("etc/cni/net.d/10-pods.conflist");
    let binary = nodes.folder(1).join("opt/cni/bin/lateen-cni");
    let is_there = || {
        let text = std::fs::read_to_string(&list).unwrap_or_default();
        match text.contains("\"lateen-cni\"") && binary.exists() {
            true => Ok(()),
            false => Err(text),
        }
    };
    is_there().expect("the agent has put it there");
    let mut without: Value =
        serde_json::from_str(&std::fs::read_to_string(&list).expect("a list")).expect("JSON");
    let plugins = without["plugins"].as_array_mut().expect("plugins");
    plugins.retain(|plugin| plugin["type"] != "lateen-cni");
    let new = list.with_extension("new");
    std::fs::write(&new, without.to_string()).expect("the folder takes files");
    std::fs::rename(&new, &list).expect("the folder takes files");
    std::fs::remove_file(&binary).expect("it is there");
    nodes.eventually("the plugin again", is_there);
}

fn without_an_agent_only_others_start(cluster: &Cluster, nodes: &Nodes) {
    let place = |selector: &str| {
        let patch = format!("{{\"spec\": {{\"template\": {{\"spec\": {{\"nodeSelector\": {selector}}}}}}}}}");
        let patched =
            cluster.kubectl(&["patch", "ds", "-n", "istio-system", "lateen-node-agent", "-p", &patch]);
        assert!(patched.ok(), "{patched}");
    };
    let agents = || get(cluster, &["pod", "-n", "istio-system", "-lapp=lateen-node-agent"])["items"].clone();
    place("{\"lateen.test/none\": \"here\"}");
    nodes.eventually("the agents' end", || match agents().as_array().map(Vec::len) {
        Some(0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.apply(
        &[pod("shop", "early", "node-1", WAIT, ""), pod("outside", "other", "node-1", WAIT, "")].concat(),
    );
    nodes.eventually("a pod outside", || is_ready(&get(cluster, &["pod", "-n", "outside", "other"])));
    let events =
        ["event", "-n", "shop", "--field-selector=involvedObject.name=early,reason=FailedCreatePodSandBox"];
    nodes.eventually("the refusal", || {
        let told = get(cluster, &events)["items"].to_string();
        if told.contains("a pod of the mesh starts only once it is captured") { Ok(()) } else { Err(told) }
    });
    assert_eq!(get(cluster, &["pod", "-n", "shop", "early"])["status"]["podIP"], Value::Null);
    place("{\"lateen.test/none\": null}");
    nodes.agents_ready();
    nodes.eventually("the pod", || is_ready(&get(cluster, &["pod", "-n", "shop", "early"])));
    assert_eq!(redirection(cluster, "shop", "early"), "enabled");
    nodes.eventually("its tunnels", || ask(cluster, "shop", "early", "http://server:8080/"));
}

fn an_update_fails_nothing(cluster: &Cluster, nodes: &Nodes) {
    let restarted = cluster.kubectl(&["rollout", "restart", "-n", "istio-system", "ds/lateen-node-agent"]);
    assert!(restarted.ok(), "{restarted}");
    let updated = || {
        let set = get(cluster, &["ds", "-n", "istio-system", "lateen-node-agent"]);
        let status = &set["status"];
        let agents = get(cluster, &["pod", "-n", "istio-system", "-lapp=lateen-node-agent"]);
        set["metadata"]["generation"] == status["observedGeneration"]
            && status["updatedNumberScheduled"] == 2
            && agents["items"].as_array().is_some_and(|agents| agents.len() == 2)
    };
    let mut asked = 0;
    nodes.eventually("the update", || {
        asked += 1;
        ask(cluster, "shop", "client", "http://server:8080/").expect("served during the update");
        if updated() { Ok(()) } else { Err(format!("{asked} asked")) }
    });
    assert!(asked > 1, "nothing was asked while it went on");
    // None was started again by its kubelet after another had taken its place.
    let agents = get(cluster, &["pod", "-n", "istio-system", "-lapp=lateen-node-agent"]);
    for agent in agents["items"].as_array().into_iter().flatten() {
        assert_eq!(agent["status"]["containerStatuses"][0]["restartCount"], 0, "{}", agent["status"]);
    }
}

fn an_agent_lifts_the_taint_of_a_node_that_starts(cluster: &Cluster, nodes: &Nodes) {
    let tainted = cluster.kubectl(&["taint", "node", "node-2", "cni.istio.io/not-ready=:NoSchedule"]);
    assert!(tainted.ok(), "{tainted}");
    let ended = ["delete", "pod", "-n", "istio-system", "-lapp=lateen-node-agent"];
    assert!(cluster.kubectl(&ended).ok());
    nodes.eventually("the end of its taint", || {
        let taints = get(cluster, &["node", "node-2"])["spec"]["taints"].to_string();
        if taints.contains("cni.istio.io") { Err(taints) } else { Ok(()) }
    });
    nodes.agents_ready();
    nodes.eventually("the server", || ask(cluster, "shop", "client", "http://server:8080/"));
}

fn it_leaves_no_trace(cluster: &Cluster, nodes: &Nodes) {
    let removed = cluster.kubectl(&["delete", "ds", "-n", "istio-system", "lateen-node-agent"]);
    assert!(removed.ok(), "{removed}");
    nodes.eventually("everything to leave the node", || {
        let text = std::fs::read_to_string(nodes.folder(1).join("etc/cni/net.d/10-pods.conflist"));
        let text = text.map_err(|error| error.to_string())?;
        let rules = nodes.inside(1, &["nft", "list", "tables"]).stdout;
        let binary = nodes.folder(1).join("opt/cni/bin/lateen-cni").exists();
        match !text.contains("lateen") && !rules.contains("lateen") && !binary {
            true => Ok(()),
            false => Err(format!("{text}\n{rules}\nbinary: {binary}")),
        }
    });
    for name in ["client", "server", "early"] {
        nodes.eventually(name, || match redirection(cluster, "shop", name) {
            Value::Null => Ok(()),
            other => Err(other.to_string()),
        });
    }
    nodes.eventually("a plain connection", || ask(cluster, "shop", "client", "http://server:8080/"));
}

/// How long a node that has crashed may take, from its start, until its pods serve again; some ten seconds where a machine
/// does nothing else.
const BACK: Duration = Duration::from_secs(90);
/// How long they are watched then: longer than any probe needs to have a container started anew.
const STAYS: Duration = Duration::from_secs(12);
/// Several: after a crash addresses are given away anew, and hardly in the same order.
const SERVERS: [&str; 4] = ["server-1", "server-2", "server-3", "server-4"];

/// How often a pod's container was started again.
fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

fn server(cluster: &Cluster, name: &str) -> Value {
    get(cluster, &["pod", "-n", "shop", name])
}

/// Whether a server is asked through the mesh and answers.
fn serves(cluster: &Cluster, name: &str) -> Result<(), String> {
    ask(cluster, "shop", "client", &format!("http://{name}.shop:8080/"))
}

/// Waits until a server has been started so often, and serves.
fn comes_back(cluster: &Cluster, nodes: &Nodes, name: &str, times: u64) {
    nodes.eventually(name, || {
        let pod = server(cluster, name);
        let status = &pod["status"]["containerStatuses"][0];
        match status["ready"] == true && restarts(&pod) >= times {
            true => serves(cluster, name),
            false => Err(status.to_string()),
        }
    });
}

#[test]
fn a_node_that_crashes_comes_back_by_itself() {
    let Some(cluster) = Cluster::start("a_node_that_crashes_comes_back_by_itself") else { return };
    let nodes = Nodes::start(&cluster);
    nodes.install();
    namespaces(&cluster, &nodes, &[("shop", "ambient"), ("outside", "none")]);
    let probes = "    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}";
    let mut all = strict("shop") + &pod("shop", "client", "node-1", WAIT, "");
    for name in SERVERS {
        all += &(pod("shop", name, "node-2", SERVE, probes) + &service("shop", name));
    }
    all += &(pod("outside", "plain", "node-2", SERVE, probes) + &service("outside", "plain"));
    cluster.apply(&all);
    nodes.eventually("the client", || is_ready(&get(&cluster, &["pod", "-n", "shop", "client"])));
    nodes.eventually("who is not in the mesh", || {
        is_ready(&get(&cluster, &["pod", "-n", "outside", "plain"]))
    });
    for name in SERVERS {
        nodes.eventually(name, || is_ready(&server(&cluster, name)));
        nodes.eventually(name, || serves(&cluster, name));
    }
    let took = [1, 2].map(|times| {
        // The networks of before may be there for a while, with their addresses.
        let _held = SERVERS.map(|name| nodes.hold(&server(&cluster, name)));
        nodes.stop(2);
        nodes.restart(2);
        let begun = Instant::now();
        for name in SERVERS {
            comes_back(&cluster, &nodes, name, times);
        }
        let took = begun.elapsed();
        assert!(took < BACK, "crash {times}: {took:?}");
        they_stay(&cluster, &nodes, times);
        took
    });
    let told = get(&cluster, &["event", "-n", "shop", "--field-selector=reason=FailedCreatePodSandBox"]);
    let told = told["items"].to_string();
    assert!(!told.contains("it belongs to another pod"), "a pod was taken for what it was before: {told}");
    a_sandbox_that_ends_is_made_again(&cluster, &nodes);
    counted(&format!("a node crashed twice: its pods of the mesh served again {took:.1?} after its start"));
}

/// Started once by each crash, and not once more by a probe that did not get through.
fn they_stay(cluster: &Cluster, nodes: &Nodes, times: u64) {
    let watched = Instant::now();
    while watched.elapsed() < STAYS {
        for name in SERVERS {
            let pod = server(cluster, name);
            let status = &pod["status"]["containerStatuses"][0];
            assert!(status["ready"] == true && restarts(&pod) == times, "{name}, crash {times}: {status}");
            assert_eq!(serves(cluster, name), Ok(()), "{name}, crash {times}");
        }
    }
    // What passes is probes.
    for name in SERVERS {
        let pod = server(cluster, name);
        let address = pod["status"]["podIP"].as_str().expect("an address");
        let other = nodes.curl(2, &format!("http://{address}:8081/"));
        assert!(!other.ok(), "{name}, crash {times}: a process of the node passed STRICT: {other}");
    }
}

/// Its kubelet makes another for the same pod, with another address, while the object still has the one of before.
fn a_sandbox_that_ends_is_made_again(cluster: &Cluster, nodes: &Nodes) {
    let name = SERVERS[0];
    let before = server(cluster, name);
    // The process that holds it (`e2e/cluster/images`).
    nodes.process(&before, "done").kill();
    let begun = Instant::now();
    comes_back(cluster, nodes, name, restarts(&before) + 1);
    let took = begun.elapsed();
    assert!(took < BACK, "{took:?}");
    assert_ne!(server(cluster, name)["status"]["podIP"], before["status"]["podIP"]);
    counted(&format!("a pod's sandbox ended: it served again after {took:.1?}"));
}
