//! What tests have run on a cluster's nodes, and how they ask it: pods of busybox that serve a page or wait for commands.

use serde_json::Value;

use super::Cluster;
use super::nodes::Nodes;

/// A script that serves a page on 8080 and on 8081.
pub const SERVE: &str =
    "mkdir /www; echo served > /www/index.html; httpd -p 8081 -h /www; httpd -f -p 8080 -h /www";
/// A script that waits for commands.
pub const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";

/// A namespace; `mode` is the value of `istio.io/dataplane-mode`.
pub fn namespace(name: &str, mode: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{istio.io/dataplane-mode: {mode}}}}}
---
"
    )
}

/// A pod of busybox that runs a script for ever, or once; `more` are further fields of its container.
pub fn pod(namespace: &str, name: &str, node: &str, script: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: lateen.test/busybox:1
    command: [sh, -c, \"{script}\"]
{more}
---
"
    )
}

/// The service of a pod that runs [`SERVE`].
pub fn service(namespace: &str, name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 8080}}, {{name: other, port: 8081}}]}}
---
"
    )
}

/// Accepts nothing but tunnels in a namespace.
pub fn strict(namespace: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {namespace}}}
spec: {{mtls: {{mode: STRICT}}}}
---
"
    )
}

/// Asks a server that runs [`SERVE`] from a pod.
///
/// # Errors
/// It is not served: what was said.
pub fn ask(cluster: &Cluster, namespace: &str, from: &str, url: &str) -> Result<(), String> {
    let command = format!("timeout 10 wget -qO- {url}");
    let answer = cluster.kubectl(&["exec", "-n", namespace, from, "--", "sh", "-c", &command]);
    if answer.stdout.trim() == "served" { Ok(()) } else { Err(answer.to_string()) }
}

/// What `kubectl get OBJECT` has; null where it has nothing.
pub fn get(cluster: &Cluster, object: &[&str]) -> Value {
    let found = cluster.kubectl(&[&["get", "-ojson"], object].concat());
    serde_json::from_str(&found.stdout).unwrap_or(Value::Null)
}

/// What the agent has noted on a pod.
pub fn redirection(cluster: &Cluster, namespace: &str, name: &str) -> Value {
    get(cluster, &["pod", "-n", namespace, name])["metadata"]["annotations"]["ambient.istio.io/redirection"]
        .clone()
}

/// Whether a pod is ready, and its container never was started again.
///
/// # Errors
/// It is not: how it stands.
pub fn is_ready(pod: &Value) -> Result<(), String> {
    let status = &pod["status"]["containerStatuses"][0];
    match status["ready"] == true && status["restartCount"] == 0 {
        true => Ok(()),
        false => Err(format!("{} {status}", pod["metadata"]["name"])),
    }
}

/// Makes namespaces, by name and mode, and waits until pods may be made in them.
///
/// # Panics
/// They do not come.
pub fn namespaces(cluster: &Cluster, nodes: &Nodes, all: &[(&str, &str)]) {
    for (name, mode) in all {
        cluster.apply(&namespace(name, mode));
        // No pod is taken before.
        nodes.eventually("the account", || {
            let account = get(cluster, &["sa", "-n", name, "default"]);
            if account.is_object() { Ok(()) } else { Err((*name).to_owned()) }
        });
    }
}

/// Connections that a node's agent has tunnelled for a workload, as client or as server.
pub fn tunnelled(nodes: &Nodes, node: u8, reporter: &str, label: &str, workload: &str) -> u64 {
    let metrics = nodes.curl(node, "http://127.0.0.1:15020/metrics").stdout;
    let wanted = [
        format!("reporter=\"{reporter}\""),
        format!("{label}=\"{workload}\""),
        "connection_security_policy=\"mutual_tls\"".to_owned(),
    ];
    let lines = metrics.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{"));
    let ours = lines.filter(|line| wanted.iter().all(|part| line.contains(part.as_str())));
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map(|count| count as u64).sum()
}
