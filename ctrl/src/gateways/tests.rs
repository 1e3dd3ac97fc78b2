//! What Gateways become, and what their parameters change.

use std::path::Path;
use std::sync::Arc;

use super::*;

const REFERENCE: &str = "parametersRef: {group: '', kind: ConfigMap, name: p}";

fn around() -> Surroundings {
    Surroundings {
        image: "hub/waypoint:1".to_owned(),
        controller: "https://lateen-ctrl.istio-system.svc:15012".to_owned(),
        settings: vec![("LOG_LEVEL".to_owned(), "debug".to_owned())],
    }
}

fn gateway(infrastructure: &str) -> Object {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: w, namespace: shop, uid: u-1}}\n\
         spec:\n  gatewayClassName: istio-waypoint\n  listeners: [{{name: mesh, port: 15009, protocol: HBONE}}]\n  \
         infrastructure: {{{infrastructure}}}\n"
    );
    let parsed = manifest::parse(&text, &Arc::from(Path::new("mesh.yaml")));
    assert_eq!(parsed.findings, [], "{text}");
    parsed.objects.into_iter().next().expect("a Gateway")
}

/// What is made, where the ConfigMap `p` has this data; `None`: where there is none.
fn make(object: &Object, data: Option<&[(&str, &str)]>) -> Result<Vec<Made>, Unmade> {
    let owned = |data: &[(&str, &str)]| {
        data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    };
    let maps = data.map_or_else(BTreeMap::new, |given| [(Name::new("shop", "p"), owned(given))].into());
    made(object, &Name::new("shop", "w"), &maps, &around())
}

fn of(all: &[Made], kind: Kind) -> &Value {
    &all.iter().find(|one| one.kind == kind).unwrap_or_else(|| panic!("no {}", kind.name())).value
}

#[test]
fn a_gateway_becomes_what_istio_would_make_of_it() {
    let all =
        make(&gateway("labels: {team: x}, annotations: {a: b, gateway.istio.io/name-override: c}"), None);
    let all = all.expect("objects");
    let kinds: Vec<Kind> = all.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, KINDS[..4], "no autoscaler unless it is asked for");
    for one in &all {
        let metadata = &one.value["metadata"];
        assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("w"), &json!("shop")));
        for (label, value) in [
            ("team", "x"),
            ("gateway.networking.k8s.io/gateway-name", "w"),
            ("istio.io/gateway-name", "w"),
            ("gateway.networking.k8s.io/gateway-class-name", "istio-waypoint"),
            ("gateway.istio.io/managed", "istio.io-mesh-controller"),
        ] {
            assert_eq!(metadata["labels"][label], value, "{label} of {}", one.kind.name());
        }
        assert_eq!(metadata["annotations"], json!({"a": "b"}));
        let owner = &metadata["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Gateway"), &json!("u-1")));
    }
    let deployment = of(&all, Kind::Deployment);
    assert_eq!(deployment["spec"].get("replicas"), None, "whoever scales it is not undone");
    let template = &deployment["spec"]["template"];
    for (label, value) in [("istio.io/dataplane-mode", "none"), ("team", "x")] {
        assert_eq!(template["metadata"]["labels"][label], value);
    }
    let pod = &template["spec"];
    assert_eq!(pod["serviceAccountName"], "w");
    let token = &pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], "istio-ca");
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "hub/waypoint:1");
    assert_eq!(container["securityContext"]["runAsNonRoot"], true);
    let variables = container["env"].as_array().expect("variables");
    for (name, value) in
        [("GATEWAY_NAME", "w"), ("XDS_ADDRESS", &*around().controller), ("LOG_LEVEL", "debug")]
    {
        assert!(variables.contains(&json!({"name": name, "value": value})), "{name}: {variables:?}");
    }
    let ports = &of(&all, Kind::Service)["spec"]["ports"];
    assert_eq!((&ports[1]["port"], &ports[1]["targetPort"]), (&json!(15009), &json!(15008)));
    assert_eq!(of(&all, Kind::PodDisruptionBudget)["spec"]["maxUnavailable"], 1);
    // The API server would refuse what is none of its types.
    serde_json::from_value::<k8s_openapi::api::apps::v1::Deployment>(deployment.clone())
        .expect("a Deployment");
}

#[test]
fn parameters_are_merged_over_it() {
    use Kind::*;
    let replicas = "spec: {replicas: 3}";
    let scaled =
        [("deployment", replicas), ("horizontalPodAutoscaler", "spec: {minReplicas: 2, maxReplicas: 5}")];
    let limits =
        "spec: {template: {spec: {containers: [{name: istio-proxy, resources: {limits: {cpu: '4'}}}]}}}";
    let theft = "{metadata: {name: x, namespace: y, labels: {istio.io/gateway-name: z, own: l}, ownerReferences: []}, kind: \
                 Job, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {own: l}}, spec: \
                 {serviceAccountName: admin}}}}";
    for (about, data, kind, path, wanted) in [
        ("a number of replicas", &[("deployment", replicas)][..], Deployment, "/spec/replicas", json!(3)),
        ("which is the autoscaler's if there is one", &scaled, Deployment, "/spec/replicas", Value::Null),
        ("an autoscaler", &scaled, HorizontalPodAutoscaler, "/spec/minReplicas", json!(2)),
        ("with what is not said", &scaled, HorizontalPodAutoscaler, "/spec/scaleTargetRef/name", json!("w")),
        (
            "one of which nothing is said",
            &[("horizontalPodAutoscaler", "")],
            HorizontalPodAutoscaler,
            "/spec/maxReplicas",
            json!(10),
        ),
        (
            "of a container",
            &[("deployment", limits)],
            Deployment,
            "/spec/template/spec/containers/0/resources/limits",
            json!({"cpu": "4", "memory": "1Gi"}),
        ),
        (
            "which stays what it is",
            &[("deployment", limits)],
            Deployment,
            "/spec/template/spec/containers/0/image",
            json!("hub/waypoint:1"),
        ),
        (
            "a type of Service",
            &[("service", "spec: {type: LoadBalancer}")],
            Service,
            "/spec/type",
            json!("LoadBalancer"),
        ),
        (
            "an annotation of the account",
            &[("serviceAccount", "metadata: {annotations: {r: arn}}")],
            ServiceAccount,
            "/metadata/annotations",
            json!({"r": "arn"}),
        ),
        (
            "a budget",
            &[("podDisruptionBudget", "spec: {minAvailable: 1}")],
            PodDisruptionBudget,
            "/spec/minAvailable",
            json!(1),
        ),
        (
            "which excludes our own",
            &[("podDisruptionBudget", "spec: {minAvailable: 1}")],
            PodDisruptionBudget,
            "/spec/maxUnavailable",
            Value::Null,
        ),
        ("its name is the Gateway's", &[("deployment", theft)], Deployment, "/metadata/name", json!("w")),
        ("its namespace too", &[("deployment", theft)], Deployment, "/metadata/namespace", json!("shop")),
        ("its kind", &[("deployment", theft)], Deployment, "/kind", json!("Deployment")),
        ("its owner", &[("deployment", theft)], Deployment, "/metadata/ownerReferences/0/uid", json!("u-1")),
        (
            "its labels",
            &[("deployment", theft)],
            Deployment,
            "/metadata/labels/istio.io~1gateway-name",
            json!("w"),
        ),
        (
            "beside which there may be others",
            &[("deployment", theft)],
            Deployment,
            "/metadata/labels/own",
            json!("l"),
        ),
        ("its pods", &[("deployment", theft)], Deployment, "/spec/selector/matchLabels/a", Value::Null),
        (
            "their labels",
            &[("deployment", theft)],
            Deployment,
            "/spec/template/metadata/labels/istio.io~1dataplane-mode",
            json!("none"),
        ),
        (
            "and their account",
            &[("deployment", theft)],
            Deployment,
            "/spec/template/spec/serviceAccountName",
            json!("w"),
        ),
    ] {
        let all = make(&gateway(REFERENCE), Some(data)).expect(about);
        assert_eq!(of(&all, kind).pointer(path).cloned().unwrap_or_default(), wanted, "{about}");
    }
    let annotated =
        make(&gateway("annotations: {networking.istio.io/service-type: NodePort}"), None).expect("objects");
    assert_eq!(of(&annotated, Service)["spec"]["type"], "NodePort");
}

#[test]
fn parameters_that_cannot_be_used_are_told() {
    let elsewhere = "parametersRef: {group: a.b, kind: C, name: p}";
    for (infrastructure, data, part, unresolved) in [
        (REFERENCE, None, "no ConfigMap shop/p", true),
        (elsewhere, None, "C of group \"a.b\"", true),
        (REFERENCE, Some(("deploymnt", "")), "\"deploymnt\" is none of", false),
        (REFERENCE, Some(("deployment", "a: [")), "ConfigMap shop/p: deployment: ", false),
        (REFERENCE, Some(("service", "- a")), "service: it is no object", false),
        (REFERENCE, Some(("service", "{$retainKeys: [a]}")), "$retainKeys is not carried", false),
    ] {
        let data = data.map(|one| [one]);
        let error = make(&gateway(infrastructure), data.as_ref().map(|data| &data[..])).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.is_unresolved(), unresolved, "{error}");
    }
}
