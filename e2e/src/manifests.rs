//! Manifests that several tests share.

/// A client on node-1 and an HTTP and TCP echo server on node-2, both in namespace `test`, each under an account of
/// its own name; `mode` is the value of `istio.io/dataplane-mode`. The service is dual stack.
pub fn client_and_server(mode: &str) -> String {
    let server =
        server("server", "test", "node-2", "lateen, echo, --http, \"8080\", --tcp, \"9000\"", &[8080, 9000]);
    [namespace("test", mode), shell("client", "test", "node-1"), shell("other", "test", "node-1"), server]
        .concat()
}

/// A namespace; `mode` is the value of `istio.io/dataplane-mode`, empty for none.
pub fn namespace(name: &str, mode: &str) -> String {
    let label = if mode.is_empty() {
        String::new()
    } else {
        format!("\n  labels:\n    istio.io/dataplane-mode: {mode}")
    };
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}{label}\n")
}

/// A pod that does nothing but wait for commands, under an account of its own name.
pub fn shell(name: &str, namespace: &str, node: &str) -> String {
    format!(
        r#"---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: {namespace}
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels:
    app: {name}
    version: v1
spec:
  serviceAccountName: {name}
  nodeName: {node}
  containers:
    - name: shell
      image: shell
      command: [sleep, infinity]
"#
    )
}

/// A pod that listens on some ports, as `nobody` (PostgreSQL wants a user with a name), under an account of its own name, and a dual-stack service
/// of that name in front of it. `command` is the inside of a YAML list.
pub fn server(name: &str, namespace: &str, node: &str, command: &str, ports: &[u16]) -> String {
    let of_service: String = ports
        .iter()
        .map(|port| {
            format!("    - name: {}-{port}\n      port: {port}\n", if *port == 9000 { "tcp" } else { "http" })
        })
        .collect();
    let first = ports.first().copied().unwrap_or_default();
    format!(
        r#"---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: {namespace}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  ipFamilyPolicy: RequireDualStack
  selector:
    app: {name}
  ports:
{of_service}---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels:
    app: {name}
    version: v1
spec:
  serviceAccountName: {name}
  nodeName: {node}
  securityContext:
    runAsUser: 65534
  containers:
    - name: server
      image: server
      command: [{command}]
      readinessProbe:
        tcpSocket:
          port: {first}
        periodSeconds: 1
"#
    )
}

/// The command that runs a script, as the inside of a YAML list.
pub fn bash(script: &str) -> String {
    // JSON's strings are YAML's too.
    format!("bash, -c, {}", serde_json::Value::from(script))
}

/// Workloads that are only addresses, by the hundred: endpoints of services without a selector.
pub fn crowd(count: usize) -> String {
    let mut text = String::new();
    for service in 0..count / 100 {
        let addresses: String = (1..=100)
            .map(|host| format!("  - addresses: [10.99.{service}.{host}]\n    conditions: {{ready: true}}\n"))
            .collect();
        text.push_str(&format!(
            r#"---
apiVersion: v1
kind: Service
metadata:
  name: crowd-{service}
  namespace: test
spec:
  ports:
    - name: http
      port: 80
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: crowd-{service}-1
  namespace: test
  labels:
    kubernetes.io/service-name: crowd-{service}
addressType: IPv4
ports:
  - name: http
    port: 80
endpoints:
{addresses}"#
        ));
    }
    text
}
