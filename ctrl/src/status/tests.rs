//! What people are told about their objects.

use std::path::Path;
use std::sync::Arc;

use manifest::{Batch, parse};

use super::*;
use crate::translate::Context;

/// The conditions of the last object, as `TYPE STATUS REASON` and the message.
fn told(text: &str) -> Option<(String, String)> {
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let parsed = parse(text, &file);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    compiler.apply(&Batch { upserted: objects.clone(), ..Batch::default() });
    let all = conditions(&compiler, objects.last()?, &parsed.findings);
    let one = all.first()?;
    Some((format!("{} {} {}", one.kind, one.status, one.reason), one.message.clone()))
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn conditions_by_table() {
    let two = format!("{}---\n{}", peer("a", "shop", "{mtls: {mode: STRICT}}"), peer("b", "shop", "{}"));
    let cart = "selector: {matchLabels: {app: cart}}";
    for (text, condition, part) in [
        (policy("{rules: [{}]}"), "True Accepted", "for 0 pods"),
        (
            policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}"),
            "False UnsupportedValue",
            "rule 0 (mesh.yaml:4:30): layer 7 attributes are not seen at layer 4: to.operation.methods; there such a rule refuses",
        ),
        (
            policy("{rules: [{to: [{operation: {paths: [/a]}}]}]}"),
            "False UnsupportedValue",
            "lets nothing through",
        ),
        (policy("{action: DNEY}"), "False Invalid", "mesh.yaml:4:16: error"),
        (policy("{action: AUDIT, rules: [{}]}"), "False UnsupportedValue", "AUDIT is not carried"),
        (policy("{action: CUSTOM, provider: {name: opa}, rules: [{}]}"), "False UnsupportedValue", "\"opa\""),
        (
            policy("{targetRefs: [{kind: Service, group: '', name: cart}], rules: [{}]}"),
            "False UnsupportedValue",
            "goes around",
        ),
        (peer("a", "shop", "{mtls: {mode: STRICT}}"), "True Accepted", "enforced"),
        (peer("a", "shop", "{mtls: {mode: STRCT}}"), "False Invalid", "counts as STRICT"),
        (two, "False Conflicted", "PeerAuthentication shop/a"),
        (
            peer("a", "istio-system", &format!("{{{cart}, mtls: {{mode: STRICT}}}}")),
            "True Accepted",
            "own namespace only",
        ),
    ] {
        let (shown, message) = told(&text).unwrap();
        assert_eq!(shown, format!("ZtunnelAccepted {condition}"), "{text}{message}");
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: {}\n";
    let (shown, message) = told(route).unwrap();
    assert_eq!(shown, "Accepted False UnsupportedKind");
    assert!(message.contains("VirtualService"), "{message}");
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: w, namespace: shop}\n\
                   spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
    assert_eq!(told(gateway).unwrap().0, "Accepted False UnsupportedValue");
    for label in ["istio.io/use-waypoint: w", "lateen.dev/require-waypoint: 'true'"] {
        let asks = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: n, labels: {{{label}}}}}\n");
        assert_eq!(told(&asks).unwrap().0, "istio.io/WaypointBound False UnsupportedValue");
    }
    let opts_out =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {istio.io/use-waypoint: none}}\n";
    assert_eq!(told(opts_out), None);
    assert_eq!(told("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n"), None);
}
