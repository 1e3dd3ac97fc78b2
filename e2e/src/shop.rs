//! A shop behind a waypoint, for tests of what waypoints do with requests: in the namespace `test` a waypoint `way`, a service
//! `shop` that goes by it, and whoever asks.

use serde_json::Value;

use crate::{Mesh, lines};

/// The waypoint.
pub const WAY: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way, namespace: test}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
";

/// The service.
pub const SHOP: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: test, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// A policy that refuses to get what begins with `/admin`.
pub const NO_ADMIN: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: test}
spec:
  targetRefs: [{kind: Service, group: \"\", name: shop}]
  action: DENY
  rules: [{to: [{operation: {methods: [GET], paths: [\"/admin*\"]}}]}]
";

/// A server that answers with its version.
pub fn echo(version: &str) -> String {
    format!("lateen, echo, --http, \"8080\", --version, {version}")
}

/// A version of the shop on node-2, whose command serves port 8080; it is the inside of a YAML list.
pub fn version(name: &str, command: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: shop-{name}, namespace: test, labels: {{app: shop, version: {name}}}}}\n\
         spec:\n  nodeName: node-2\n  containers:\n  - name: server\n    image: none\n    \
         command: [{command}]\n    ports: [{{containerPort: 8080}}]\n    \
         readinessProbe: {{tcpSocket: {{port: 8080}}}}\n"
    )
}

/// Subsets, each a name and the version that it is, as a YAML list.
pub fn subsets<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let one = |(name, version)| format!("{{name: {name}, labels: {{version: {version}}}}}");
    format!("[{}]", of.into_iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Asks from a pod with curl and further arguments, for a path as it is written; status and body, `000` where there was no
/// answer.
///
/// # Panics
/// There is no curl.
#[track_caller]
pub fn curl(mesh: &Mesh, pod: &str, arguments: &[&str], url: &str) -> (String, String) {
    let command = ["curl", "-s", "-m", "10", "--path-as-is", "-w", "\n%{http_code}"];
    let told = mesh.exec("test", pod, &[&command[..], arguments, &[url]].concat());
    let (body, status) = told.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{url}: {told}"));
    (status.to_owned(), body.to_owned())
}

/// Waits until the waypoint has logged a line with all of this, and returns it: lines are written together, by and by.
///
/// # Panics
/// None comes in time.
#[track_caller]
pub fn logged(mesh: &Mesh, parts: &[&str]) -> String {
    logged_by(mesh, "way", parts)
}

/// The same of another waypoint.
///
/// # Panics
/// None comes in time.
#[track_caller]
pub fn logged_by(mesh: &Mesh, waypoint: &str, parts: &[&str]) -> String {
    let mut found = String::new();
    mesh.eventually(&format!("{waypoint} has logged it"), |mesh| {
        let log = mesh.lateen(&["logs", "-n", "test", &format!("waypoint/{waypoint}")]).stdout;
        let first = lines(&log, parts).first().map(|line| (*line).to_owned());
        found = first.ok_or_else(|| format!("no {parts:?} in {log}"))?;
        Ok(())
    });
    found
}

/// The address of the waypoint's pod.
///
/// # Panics
/// It has none.
#[track_caller]
pub fn waypoint_address(mesh: &Mesh) -> String {
    let told = mesh.lateen(&["get", "pods", "-n", "test", "-o", "json"]);
    let pods: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    let of_gateway =
        |pod: &&Value| pod["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == "way";
    let found = pods["items"].as_array().into_iter().flatten().find(of_gateway);
    let address = found.and_then(|pod| pod["status"]["podIP"].as_str());
    address.unwrap_or_else(|| panic!("no waypoint in {told}")).to_owned()
}
