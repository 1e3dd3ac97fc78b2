//! A shop in a cluster without nodes: its objects, and what a kubelet would say of its pods.

use super::Cluster;

/// A namespace of the mesh, an account `reviews`, its Service, and a pod of it on `node-1`.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/zone: a}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reviews, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews}}
spec:
  nodeName: node-1
  serviceAccountName: reviews
  automountServiceAccountToken: false
  containers: [{name: app, image: none.invalid/reviews:1}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
";

/// An object of one of Istio's kinds in the shop; `labels` and `spec` are YAML maps.
pub fn object(kind: &str, name: &str, labels: &str, spec: &str) -> String {
    let group = if kind.ends_with("Rule") || kind == "VirtualService" { "networking" } else { "security" };
    format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop, labels: {labels}}}\n\
         spec: {spec}\n---\n"
    )
}

impl Cluster {
    /// Makes the shop; its pod does not run yet.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn open_shop(&self) {
        self.apply(SHOP);
    }

    /// Makes a pod of the shop look as a kubelet does that runs it.
    ///
    /// # Panics
    /// It is not there.
    pub fn run_pod(&self, name: &str, ip: &str) {
        let status = format!(
            r#"{{"status": {{"phase": "Running", "podIP": "{ip}", "podIPs": [{{"ip": "{ip}"}}], "hostIP": "10.99.0.11",
                "conditions": [{{"type": "Ready", "status": "True"}}]}}}}"#
        );
        let patched =
            self.kubectl(&["patch", "pod", "-n", "shop", name, "--subresource=status", "-p", &status]);
        assert!(patched.ok(), "{patched}");
    }
}
