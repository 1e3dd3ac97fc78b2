//! What may break on a real cluster while its mesh changes, under load: 200 requests a second on fresh connections and 100
//! long ones, whose every answer is checked. Needs what `e2e/cluster/build` builds, and images: `make e2e-kubernetes`.

use std::time::Duration;

use e2e::cluster::nodes::Nodes;
use e2e::cluster::pods::{get, is_ready, namespaces, strict, tunnelled};
use e2e::cluster::{Cluster, chart, list};
use e2e::report::{counted, size};
use e2e::traffic::{Seen, Traffic, Trouble, Work, now};
use serde_json::Value;

/// How long new connections may fail after a proxy was killed, in milliseconds, beside everything else that a machine does.
const PROXY_BACK: u64 = 3000;
/// How long a version that cannot serve is watched: several times what a good one takes to be ready.
const BROKEN: Duration = Duration::from_secs(20);
/// Traffic before and after what is done.
const AROUND: Duration = Duration::from_secs(5);

/// A pod with a program that answers, under a service of its name.
fn server(image: &str, namespace: &str, name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: app, image: '{image}', command: [/bin/streams, serve, '9000']}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: tcp, port: 9000}}]}}
---
"
    )
}

/// Lets the traffic be as it is.
#[allow(clippy::disallowed_methods, reason = "a test of its own thread: only time makes traffic")]
fn go_on(time: Duration) {
    std::thread::sleep(time);
}

/// Has something done while a client talks to a server of the other node and one of its own; what was seen.
fn during(cluster: &Cluster, namespace: &str, what: &str, work: impl FnOnce()) -> Seen {
    let load = Work { streams: 100, every: 1000, requests: size(100, 200), marked: false };
    let targets = ["far", "near"].map(|name| format!("{name}.{namespace}:9000"));
    let traffic = Traffic::start_on(cluster, namespace, "client", load, &targets);
    go_on(AROUND);
    let begun = now();
    work();
    let took = now() - begun;
    go_on(AROUND);
    let seen = traffic.finish();
    counted(&format!(
        "{what} ({:.1} s): {} requests, {} failed, slowest {} ms; {} long connections, {} messages, {} broken, slowest {} ms; \
         {} requests not sent in time",
        took as f64 / 1000.0,
        seen.requests,
        seen.failed.len(),
        seen.slowest_request,
        load.streams,
        seen.messages,
        seen.broken.len(),
        seen.slowest_message,
        seen.skipped,
    ));
    assert!(seen.requests > 10 * load.requests / 2, "{what}: hardly anything was asked: {seen:#?}");
    assert_eq!(seen.untold, 0, "{what}");
    seen
}

/// The same; nothing may fail, and nothing may break.
fn nothing_breaks(cluster: &Cluster, namespace: &str, what: &str, work: impl FnOnce()) {
    let seen = during(cluster, namespace, what, work);
    let wrong: Vec<&Trouble> = seen.failed.iter().chain(&seen.broken).collect();
    assert!(wrong.is_empty(), "{what}: {} went wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
}

/// The pods of a part of the mesh.
fn pods(cluster: &Cluster, app: &str) -> Vec<Value> {
    let pods = get(cluster, &["pod", "-n", "istio-system", &format!("-lapp={app}")]);
    pods["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn what_changes_in_the_mesh_breaks_no_more_than_it_must() {
    let Some(cluster) = Cluster::start("what_changes_in_the_mesh_breaks_no_more_than_it_must") else {
        return;
    };
    let nodes = Nodes::start(&cluster);
    nodes.install_replicas(3);
    namespaces(&cluster, &nodes, &[("shop", "ambient"), ("moving", "none")]);
    let image = nodes.programs(&["streams", "traffic"]);
    let servers = |namespace: &str| {
        let of = |(name, node)| server(image, namespace, name, node);
        [("far", "node-2"), ("near", "node-1"), ("client", "node-1")].map(of).concat()
    };
    cluster.apply(&(strict("shop") + &servers("shop") + &servers("moving")));
    for namespace in ["shop", "moving"] {
        for name in ["far", "near", "client"] {
            nodes.eventually(name, || is_ready(&get(&cluster, &["pod", "-n", namespace, name])));
        }
    }
    nothing_breaks(&cluster, "shop", "nothing changes", || {});
    assert!(tunnelled(&nodes, 1, "source", "source_workload", "client") > 0);
    agents_are_updated(&cluster, &nodes);
    an_agents_pod_is_deleted(&cluster, &nodes);
    a_broken_version_is_taken_back(&cluster, &nodes);
    a_proxy_is_killed(&cluster, &nodes);
    controllers_are_killed_and_replaced(&cluster, &nodes);
    a_namespace_joins_and_leaves(&cluster, &nodes);
    a_namespace_changes_its_revision(&cluster, &nodes);
}

fn agents_are_updated(cluster: &Cluster, nodes: &Nodes) {
    nothing_breaks(cluster, "shop", "all agents are updated", || nodes.roll("daemonset/lateen-node-agent"));
}

/// Its successor is made only then.
fn an_agents_pod_is_deleted(cluster: &Cluster, nodes: &Nodes) {
    let agents = pods(cluster, "lateen-node-agent");
    let agent = agents.iter().find(|agent| agent["spec"]["nodeName"] == "node-1").expect("it has one");
    let name = agent["metadata"]["name"].as_str().expect("it has a name");
    nothing_breaks(cluster, "shop", "an agent's pod is deleted", || {
        let deleted = cluster.kubectl(&["delete", "pod", "-n", "istio-system", name]);
        assert!(deleted.ok(), "{deleted}");
        nodes.agents_ready();
    });
}

/// It comes to one node and no further, and goes again.
fn a_broken_version_is_taken_back(cluster: &Cluster, nodes: &Nodes) {
    let set = |variable: &str| {
        let set = ["set", "env", "-n", "istio-system", "daemonset/lateen-node-agent", variable];
        let set = cluster.kubectl(&set);
        assert!(set.ok(), "{set}");
    };
    nothing_breaks(cluster, "shop", "a version that cannot serve is rolled out and taken back", || {
        let before = pods(cluster, "lateen-node-agent").len();
        set("KEY_EXCHANGE=nonsense");
        nodes.eventually("the broken one", || match pods(cluster, "lateen-node-agent").len() {
            more if more > before => Ok(()),
            _ => Err("it is not there".to_owned()),
        });
        go_on(BROKEN);
        let agents = pods(cluster, "lateen-node-agent");
        let leaving = agents.iter().filter(|agent| !agent["metadata"]["deletionTimestamp"].is_null());
        assert_eq!((agents.len(), leaving.count()), (before + 1, 0), "it went on: {agents:#?}");
        set("KEY_EXCHANGE-");
        nodes.agents_ready();
        nodes.eventually("one agent on each node", || match pods(cluster, "lateen-node-agent").len() {
            count if count == before => Ok(()),
            count => Err(format!("{count}")),
        });
    });
}

/// Only what it carried at that moment, and what was begun until another is there.
fn a_proxy_is_killed(cluster: &Cluster, nodes: &Nodes) {
    let agents = pods(cluster, "lateen-node-agent");
    let agent = agents.iter().find(|agent| agent["spec"]["nodeName"] == "node-2").expect("it has one");
    let proxy = nodes.process(agent, "node-agent proxy");
    let mut killed = 0;
    let seen = during(cluster, "shop", "the proxy of node-2 is killed", || {
        killed = now();
        proxy.kill();
    });
    let near = seen.failed.iter().chain(&seen.broken).filter(|trouble| trouble.target.starts_with("near"));
    assert_eq!(near.count(), 0, "of connections that it did not carry: {seen:#?}");
    let broken = |trouble: &&Trouble| trouble.begun < killed + PROXY_BACK && trouble.ended >= killed;
    assert_eq!(seen.broken.iter().filter(broken).count(), seen.broken.len(), "{seen:#?}");
    // Each was opened again, and no more than those that there were.
    assert!((1..=50).contains(&seen.broken.len()), "{seen:#?}");
    let failed = |trouble: &&Trouble| trouble.begun < killed + PROXY_BACK && trouble.ended >= killed;
    assert_eq!(seen.failed.iter().filter(failed).count(), seen.failed.len(), "{seen:#?}");
    let after = seen.failed.iter().map(|trouble| trouble.begun.saturating_sub(killed)).max();
    counted(&format!(
        "of {} failed requests the last was begun {} ms after the proxy was killed",
        seen.failed.len(),
        after.unwrap_or_default()
    ));
}

fn controllers_are_killed_and_replaced(cluster: &Cluster, nodes: &Nodes) {
    let all = pods(cluster, "lateen-ctrl");
    assert_eq!(all.len(), 3);
    nothing_breaks(cluster, "shop", "one of three controllers is killed", || {
        nodes.process(&all[0], "/ctrl").kill();
        nodes.rolled_out("deployment/lateen-ctrl");
    });
    nothing_breaks(cluster, "shop", "all controllers are replaced", || nodes.roll("deployment/lateen-ctrl"));
}

fn label(cluster: &Cluster, namespace: &str, label: &str) {
    let labelled = cluster.kubectl(&["label", "ns", namespace, "--overwrite", label]);
    assert!(labelled.ok(), "{labelled}");
}

fn a_namespace_joins_and_leaves(cluster: &Cluster, nodes: &Nodes) {
    let all = |mode: &str| {
        label(cluster, "moving", &format!("istio.io/dataplane-mode={mode}"));
        let wanted = if mode == "ambient" { 3 } else { 0 };
        nodes.eventually(mode, || {
            let pods = get(cluster, &["pod", "-n", "moving"]);
            let noted =
                |pod: &&Value| pod["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled";
            match pods["items"].as_array().into_iter().flatten().filter(noted).count() {
                now if now == wanted => Ok(()),
                now => Err(format!("{now} are captured")),
            }
        });
        // Fresh connections go the new way for a while.
        go_on(AROUND);
    };
    // The servers' agents count what is tunnelled to them.
    let count = || {
        let metrics =
            |node| tunnelled(nodes, node, "destination", "destination_workload_namespace", "moving");
        metrics(1) + metrics(2)
    };
    let rounds = size(2, 5);
    nothing_breaks(cluster, "moving", &format!("a namespace joins and leaves {rounds} times"), || {
        for round in 0..rounds {
            let before = count();
            all("ambient");
            let joined = count();
            assert!(joined > before, "round {round}: nothing is tunnelled");
            all("none");
            let left = count();
            go_on(Duration::from_secs(2));
            assert_eq!(count(), left, "round {round}: new connections are tunnelled after it has left");
        }
    });
}

/// A second control plane stands beside the first; a namespace is moved to it and back, and the agents ask it and the first
/// again.
fn a_namespace_changes_its_revision(cluster: &Cluster, nodes: &Nodes) {
    let canary = chart(&["revision=canary", "mesh.podCidrs={10.244.0.0/16}"]);
    assert!(!canary.iter().any(|object| object["kind"] == "DaemonSet"), "the agents are the first one's");
    cluster.apply(&list(&canary));
    nodes.rolled_out("deployment/lateen-ctrl-canary");
    nothing_breaks(cluster, "shop", "a namespace moves from one revision to another and back", || {
        for revision in ["canary", "default"] {
            label(cluster, "shop", &format!("istio.io/rev={revision}"));
            go_on(AROUND);
        }
    });
    for revision in ["canary", "default"] {
        let asked = chart(&[&format!("nodeAgent.revision={revision}")]);
        let agents = asked.into_iter().filter(|object| object["kind"] == "DaemonSet").collect::<Vec<_>>();
        nothing_breaks(cluster, "shop", &format!("the agents ask revision {revision}"), || {
            cluster.apply(&list(&agents));
            nodes.agents_ready();
        });
    }
}
