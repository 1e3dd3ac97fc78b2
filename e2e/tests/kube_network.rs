//! NetworkPolicy beside the mesh, on a real cluster: what a policy keeps out of pods it keeps out with the mesh, what it was
//! not written for (tunnels) is told, and one with their port lets through whom it names. The rules that enforce a policy
//! are this test's, made from the object as networks of clusters make theirs.
//! Needs what `e2e/cluster/build` builds, and images: `make e2e-kubernetes`.

use std::io::Write;
use std::process::Stdio;

use e2e::cluster::Cluster;
use e2e::cluster::nodes::Nodes;
use e2e::cluster::pods::{SERVE, WAIT, ask, get, is_ready, namespaces, pod, service, strict};
use e2e::report::counted;
use e2e::{lateen, lines, run};
use serde_json::Value;

/// Lets one pod come to another's ports.
fn policy(ports: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: server, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]
    ports: {ports}
"
    )
}

/// The addresses of the pods with these labels.
fn addresses(cluster: &Cluster, labels: &Value) -> Vec<String> {
    let labels = labels.as_object().into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let pods = get(cluster, &["pod", "-n", "shop", &format!("-l{}", labels.join(","))]);
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    pods["items"].as_array().into_iter().flatten().filter_map(address).collect()
}

/// Has the nodes enforce the policy as the API server has it: for packets that pass through them, not for their own, as
/// Kubernetes wants it. Replies, and what came before, are let through.
fn enforce(cluster: &Cluster, nodes: &Nodes) {
    let object = get(cluster, &["networkpolicy", "-n", "shop", "server"]);
    let mut rules = vec!["ct state established,related accept".to_owned()];
    for to in addresses(cluster, &object["spec"]["podSelector"]["matchLabels"]) {
        for rule in object["spec"]["ingress"].as_array().into_iter().flatten() {
            for from in addresses(cluster, &rule["from"][0]["podSelector"]["matchLabels"]) {
                for port in rule["ports"].as_array().into_iter().flatten() {
                    rules.push(format!("ip saddr {from} ip daddr {to} tcp dport {} accept", port["port"]));
                }
            }
        }
        rules.push(format!("ip daddr {to} counter drop"));
    }
    let table = format!(
        "table inet policies {{}}\ndelete table inet policies\ntable inet policies {{\nchain pods {{ type filter hook forward \
         priority 0; policy accept;\n{}\n}}\n}}\n",
        rules.join("\n")
    );
    for node in [1, 2] {
        let mut nft = nodes.command(node, "nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
        nft.stdin.take().expect("it is piped").write_all(table.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("it was started").success(), "{table}");
    }
}

/// Has the policy be this one, and enforced.
fn put(cluster: &Cluster, nodes: &Nodes, ports: &str) {
    cluster.apply(&policy(ports));
    enforce(cluster, nodes);
}

#[test]
fn network_policies_hold_beside_the_mesh() {
    let Some(cluster) = Cluster::start("network_policies_hold_beside_the_mesh") else { return };
    let nodes = Nodes::start(&cluster);
    nodes.install();
    namespaces(&cluster, &nodes, &[("shop", "ambient")]);
    let probes = "    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}";
    let all = [
        strict("shop"),
        pod("shop", "server", "node-2", SERVE, probes),
        service("shop", "server"),
        pod("shop", "client", "node-1", WAIT, ""),
        pod("shop", "other", "node-1", WAIT, ""),
        pod("shop", "neighbour", "node-2", WAIT, ""),
    ];
    cluster.apply(&all.concat());
    let callers = ["client", "other", "neighbour"];
    for name in [&["server"], &callers[..]].concat() {
        nodes.eventually(name, || is_ready(&get(&cluster, &["pod", "-n", "shop", name])));
    }
    let served = |name: &str| ask(&cluster, "shop", name, "http://server:8080/");

    // As it is written where there is no mesh: nobody's tunnel comes through, and it is said why. (What is open already would
    // go on: nobody has connected yet.)
    put(&cluster, &nodes, "[{port: 8080}]");
    for name in callers {
        assert!(served(name).is_err(), "{name} passed a policy without its port");
    }
    let agents = ["logs", "-n", "istio-system", "-lapp=lateen-node-agent", "--tail=-1"];
    nodes.eventually("the reason", || {
        let log = cluster.kubectl(&agents).stdout;
        match lines(&log, &["NetworkPolicy is blocking HBONE port 15008", "src.workload=\"client\""])
            .is_empty()
        {
            true => Err(lines(&log, &["src.workload=\"client\""]).join("\n")),
            false => Ok(()),
        }
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("shop.yaml");
    let shop = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n";
    let written = [shop, &all.concat(), &policy("[{port: 8080}]")].concat();
    std::fs::write(&file, written).expect("the folder takes files");
    let analyzed = run(std::process::Command::new(lateen()).arg("analyze").arg(&file));
    assert!((analyzed.stdout.clone() + &analyzed.stderr).contains("LAT0008"), "{analyzed}");

    // With the tunnels' port it means what it says: a tunnel has its pod's own address.
    put(&cluster, &nodes, "[{port: 8080}, {port: 15008}]");
    nodes.eventually("the client", || served("client"));
    for name in ["other", "neighbour"] {
        assert!(served(name).is_err(), "the policy is not for {name}");
    }
    let address = get(&cluster, &["pod", "-n", "shop", "server"])["status"]["podIP"].clone();
    let address = address.as_str().expect("it has one");
    let by_address = format!("http://{address}:8080/");
    assert!(ask(&cluster, "shop", "other", &by_address).is_err());
    assert_eq!(ask(&cluster, "shop", "client", &by_address), Ok(()));
    // Probes come from the node itself, which no policy keeps out.
    assert_eq!(is_ready(&get(&cluster, &["pod", "-n", "shop", "server"])), Ok(()));

    let removed = cluster.kubectl(&["delete", "networkpolicy", "-n", "shop", "server"]);
    assert!(removed.ok(), "{removed}");
    for node in [1, 2] {
        let emptied = nodes.inside(node, &["nft", "delete", "table", "inet", "policies"]);
        assert!(emptied.ok(), "{emptied}");
    }
    for name in callers {
        nodes.eventually(name, || served(name));
    }
    counted(
        "a NetworkPolicy without and with the tunnels' port: kept out, told why, and let in whom it names",
    );
}
