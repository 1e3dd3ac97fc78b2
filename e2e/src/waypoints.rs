//! A server behind a waypoint, for the tests of a waypoint's life (`e2e/examples/requests.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::processes::{Process, all, below};
use crate::{Mesh, example, manifests};

/// Clients on both nodes, and a server on node-2 behind the waypoint `front`: HTTP on port 8080, HTTP/2 on 8081, gRPC on
/// 8082.
pub fn shop() -> String {
    let command = format!("{}, serve, \"8080\"", example("requests"));
    let server = manifests::server("server", "test", "node-2", &command, &[8080]);
    let ports = "    - {name: http, port: 8080, targetPort: 8080}\n    - {name: http2, port: 8081, targetPort: 8080}\n    \
                 - {name: grpc, port: 8082, targetPort: 8080}\n";
    let server = server.replace("    - name: http-8080\n      port: 8080\n", ports).replace(
        "spec:\n  ipFamilyPolicy",
        "  labels: {istio.io/use-waypoint: front}\nspec:\n  ipFamilyPolicy",
    );
    let shells = [("client", "node-1"), ("other", "node-2"), ("bystander", "node-1")];
    let shells: String = shells.iter().map(|(name, node)| manifests::shell(name, "test", node)).collect();
    manifests::namespace("test", "ambient") + &shells + &server
}

/// The waypoint `front` with so many replicas; another `turn` makes its pods be replaced.
pub fn front(replicas: usize, turn: u32) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: front, namespace: test}}\n\
         spec:\n  gatewayClassName: istio-waypoint\n  infrastructure:\n    annotations: {{turn: \"{turn}\"}}\n    \
         parametersRef: {{group: \"\", kind: ConfigMap, name: front}}\n  \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: front, namespace: test}}\n\
         data: {{deployment: \"spec: {{replicas: {replicas}}}\"}}\n"
    )
}

/// The pods of the waypoint, by name: whether each is ready and not told to go.
///
/// # Errors
/// The mesh does not say.
pub fn pods(mesh: &Mesh) -> Result<BTreeMap<String, bool>, String> {
    let told = mesh.lateen(&["get", "pods", "-n", "test", "-o", "json"]);
    let pods: Value = serde_json::from_str(&told.stdout).map_err(|error| format!("{error}: {told}"))?;
    let made_for =
        |pod: &&Value| pod["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == "front";
    let named = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready =
            conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name, ready && pod["metadata"]["deletionTimestamp"].is_null())
    };
    Ok(pods["items"].as_array().into_iter().flatten().filter(made_for).map(named).collect())
}

/// Waits until there are so many pods of the waypoint, all ready, and none of those before; returns them.
///
/// # Panics
/// It does not come to that in time.
#[track_caller]
pub fn replaced(mesh: &Mesh, replicas: usize, before: &BTreeMap<String, bool>) -> BTreeMap<String, bool> {
    let mut now = BTreeMap::new();
    mesh.within(Duration::from_secs(60), "the waypoint is replaced", |mesh| {
        now = pods(mesh)?;
        let others = now.keys().all(|name| !before.contains_key(name));
        let ready = now.len() == replicas && now.values().all(|ready| *ready);
        if others && ready { Ok(()) } else { Err(format!("{now:?}, before {before:?}")) }
    });
    now
}

/// The processes of the waypoint's replicas.
pub fn processes(mesh: &Mesh) -> Vec<Process> {
    mesh.processes().into_iter().filter(|process| process.command.ends_with("/waypoint")).collect()
}

/// Resident memory of all these processes and their children, in bytes.
pub fn memory(processes: &[Process]) -> u64 {
    let all = all();
    let resident = |process: &Process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0").to_owned();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    processes.iter().flat_map(|process| below(&all, process.pid)).map(|process| resident(&process)).sum()
}

/// A metric's value summed over the waypoint's replicas that answer, of all lines that hold these parts.
pub fn metric(mesh: &Mesh, parts: &[&str]) -> f64 {
    let names = pods(mesh).unwrap_or_default();
    let value = |pod: &String| {
        let told = mesh.exec("test", pod, &["curl", "-s", "localhost:15020/metrics"]);
        let lines = told.stdout.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    names.keys().map(value).sum()
}

/// Requests from a pod, every failure of which counts.
#[derive(Debug)]
pub struct Requests(Client);

/// What became of them.
#[derive(Debug, Clone)]
pub struct Counted {
    /// How many were asked.
    pub requests: u64,
    /// How many were not answered in full.
    pub failed: u64,
    /// How long the slowest of a hundred short ones took, in microseconds.
    pub p99: u64,
    /// Everything, as it was printed.
    pub text: String,
}

impl Requests {
    /// Starts `protocol` requests from a pod, so many a second on so many connections; each tenth takes `long`
    /// milliseconds, none if that is 0.
    ///
    /// # Panics
    /// The first is not answered.
    #[track_caller]
    pub fn start(mesh: &Mesh, pod: &str, protocol: &str, (connections, rate, long): (u32, u32, u32)) -> Self {
        let port = match protocol {
            "http1" => 8080,
            "http2" => 8081,
            _ => 8082,
        };
        let target = format!("server:{port}");
        let [connections, rate, long] = [connections, rate, long].map(|number| number.to_string());
        let arguments = ["rate", protocol, &target, &connections, &rate, &long];
        let client = Client::start_example("requests", mesh, "test", pod, &arguments);
        client.wait_for("started", crate::PATIENCE);
        Self(client)
    }

    /// Ends them and says what became of them.
    ///
    /// # Panics
    /// The client failed.
    #[track_caller]
    pub fn finish(self) -> Counted {
        let text = self.0.finish();
        let parsed: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let number = |name: &str| parsed[name].as_u64().unwrap_or_else(|| panic!("no {name} in {text}"));
        Counted { requests: number("requests"), failed: number("failed"), p99: number("p99"), text }
    }
}
