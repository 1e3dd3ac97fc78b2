//! Manifests that several tests share.

/// A client on node-1 and an HTTP and TCP echo server on node-2, both in namespace `test`, each under an account of
/// its own name; `mode` is the value of `istio.io/dataplane-mode`. The service is dual stack.
pub fn client_and_server(mode: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Namespace
metadata:
  name: test
  labels:
    istio.io/dataplane-mode: {mode}
---
{client}---
{other}---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: server
  namespace: test
---
apiVersion: v1
kind: Service
metadata:
  name: server
  namespace: test
spec:
  ipFamilyPolicy: RequireDualStack
  selector:
    app: server
  ports:
    - name: http
      port: 8080
    - name: tcp
      port: 9000
---
apiVersion: v1
kind: Pod
metadata:
  name: server
  namespace: test
  labels:
    app: server
    version: v1
spec:
  serviceAccountName: server
  nodeName: node-2
  containers:
    - name: echo
      image: lateen
      command: [lateen, echo, --http, "8080", --tcp, "9000", --name, server]
      ports:
        - containerPort: 8080
        - containerPort: 9000
      readinessProbe:
        tcpSocket:
          port: 8080
        periodSeconds: 1
"#,
        client = shell("client", "test", "node-1"),
        other = shell("other", "test", "node-1"),
    )
}

/// A pod that does nothing but wait for commands, under an account of its own name.
pub fn shell(name: &str, namespace: &str, node: &str) -> String {
    format!(
        r#"apiVersion: v1
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
