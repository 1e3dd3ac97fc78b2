//! What is made for Gateways, and how many replicas they ask for.

use std::path::Path;

use super::*;

fn around() -> Surroundings {
    Surroundings {
        binaries: "/bin".into(),
        tokens: "/state/tokens".into(),
        root_cert: "/state/ctrl/root-cert.pem".into(),
        ctrl: "https://172.31.0.1:15012".to_owned(),
        settings: vec![("LOG_LEVEL".to_owned(), "debug".to_owned())],
        upgrades: 0,
    }
}

/// What is made of manifests, and what is told.
fn made(text: &str) -> (Manifests, Vec<String>) {
    let parsed = manifest::parse(text, &Arc::from(Path::new("mesh.yaml")));
    assert_eq!(parsed.findings, [], "{text}");
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let (mut manifests, _) = Manifests::from_objects(&objects);
    let problems = add(&mut manifests, &objects, &around());
    (manifests, problems)
}

fn gateway(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: w, namespace: shop}}\n\
         spec:\n  gatewayClassName: istio-waypoint\n  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]\n{spec}"
    )
}

#[test]
fn a_waypoint_is_made_as_istiod_would() {
    let infrastructure = "  infrastructure: {labels: {team: x}, annotations: {a: b}}\n";
    let (manifests, problems) = made(&gateway(infrastructure));
    assert_eq!(problems, Vec::<String>::new());
    let name = ObjectName { namespace: "shop".into(), name: "w".into() };
    assert!(manifests.waypoints.contains(&name));
    let workload = manifests.workloads.first().expect("a Deployment");
    assert_eq!((&workload.owner, workload.replicas), (&owner(&name), 1));
    let labels = workload.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).expect("labels");
    for (label, value) in [("istio.io/dataplane-mode", "none"), ("team", "x")] {
        assert_eq!(labels.get(label).map(String::as_str), Some(value), "{label}");
    }
    let pod = workload.template.spec.as_ref().expect("a spec");
    assert_eq!(pod.service_account_name.as_deref(), Some("w"));
    let container = &pod.containers[0];
    assert_eq!(container.command.as_deref(), Some(&["/bin/waypoint".to_owned()][..]));
    let variables: Vec<_> = container.env.iter().flatten().map(|one| one.name.as_str()).collect();
    assert!(variables.contains(&"XDS_ADDRESS") && variables.last() == Some(&"LOG_LEVEL"), "{variables:?}");
    let token = pod.volumes.iter().flatten().find(|volume| volume.name == "token").expect("the token");
    let path = token.host_path.as_ref().map(|host| host.path.as_str());
    assert_eq!(path, Some("/state/tokens/shop_w"));
    let service = manifests.services.get(&name).and_then(|service| service.spec.clone()).expect("a Service");
    assert!(service.ports.iter().flatten().any(|port| port.port == 15008));
    let kinds: Vec<&str> = manifests.made.iter().map(|(kind, _, _)| *kind).collect();
    assert_eq!(kinds, ["Deployment", "ServiceAccount"]);
}

/// Policies and tools select by these labels; what kubectl notes of a Gateway is not about its pods.
#[test]
fn everything_is_labelled_as_in_a_cluster() {
    for (class, manager) in
        [("istio-waypoint", "istio.io-mesh-controller"), ("lateen-waypoint", "lateen.dev-mesh-controller")]
    {
        let infrastructure = "  infrastructure:\n    labels: {team: x}\n    annotations: {a: b, \
                              kubectl.kubernetes.io/last-applied-configuration: '{}'}\n";
        let (manifests, _) = made(&gateway(infrastructure).replace("istio-waypoint", class));
        let pods = manifests.workloads[0].template.metadata.clone();
        let service = manifests.services.values().next().map(|service| service.metadata.clone());
        let all = [pods, service].into_iter().flatten().map(|metadata| serde_json::json!(metadata));
        let all: Vec<Value> =
            all.chain(manifests.made.iter().map(|(_, _, object)| object["metadata"].clone())).collect();
        assert_eq!(all.len(), 4, "pods, Service, Deployment, ServiceAccount");
        for metadata in all {
            for (label, value) in [
                ("gateway.networking.k8s.io/gateway-name", "w"),
                ("gateway.networking.k8s.io/gateway-class-name", class),
                ("gateway.istio.io/managed", manager),
                ("team", "x"),
            ] {
                assert_eq!(metadata["labels"][label], value, "{label}: {metadata}");
            }
            let annotations = &metadata["annotations"];
            assert_eq!(annotations["a"], "b", "{metadata}");
            assert_eq!(annotations.get("kubectl.kubernetes.io/last-applied-configuration"), None);
        }
    }
}

#[test]
fn other_gateways_are_not_run() {
    for text in [gateway("").replace("istio-waypoint", "istio"), gateway("").replace("HBONE", "HTTP")] {
        let (manifests, problems) = made(&text);
        assert!(manifests.workloads.is_empty() && problems.is_empty(), "{text}");
    }
}

#[test]
fn replicas_are_asked_for_in_a_config_map() {
    let with = |data: &str| {
        let reference = "  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: p}}\n";
        let map = format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: p, namespace: shop}}\ndata: {data}\n"
        );
        gateway(reference) + &map
    };
    for (text, replicas, part) in [
        (gateway(""), 1, None),
        (with("{deployment: \"spec: {replicas: 3}\"}"), 3, None),
        (with("{deployment: \"spec: {replicas: 0}\"}"), 0, None),
        (with("{deployment: ''}"), 1, None),
        (with("{deployment: \"spec: {replicas: 51}\"}"), 1, Some("0 to 50")),
        (with("{deployment: \"spec: {replicas: 2, paused: true}\"}"), 1, Some("only spec.replicas")),
        (with("{deployment: \"metadata: {}\"}"), 1, Some("only spec.replicas")),
        (with("{deployment: '['}"), 1, Some("deployment")),
        (with("{service: \"spec: {}\"}"), 1, Some("\"service\"")),
        (
            gateway("  infrastructure: {parametersRef: {group: x, kind: Y, name: p}}\n"),
            1,
            Some("must name a ConfigMap"),
        ),
        (
            gateway("  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: q}}\n"),
            1,
            Some("shop/q"),
        ),
    ] {
        let (manifests, problems) = made(&text);
        assert_eq!(manifests.workloads[0].replicas, replicas, "{text}");
        let told = problems.join("\n");
        assert_eq!(part.is_none(), told.is_empty(), "{text}{told}");
        assert!(told.contains(part.unwrap_or_default()), "{text}{told}");
        // The controller is told, too, for the Gateway's conditions.
        let (_, _, deployment) = manifests.made.iter().find(|(kind, ..)| *kind == "Deployment").unwrap();
        let unused = deployment["metadata"]["annotations"]["lateen.dev/unused-parameters"].as_str();
        assert_eq!(unused.is_some(), part.is_some(), "{text}{deployment}");
        assert!(told.ends_with(unused.unwrap_or_default()), "{text}{told}");
        assert!(part.is_none() || told.ends_with("; it runs with `replicas: 1`"), "{told}");
    }
}

#[test]
fn a_name_that_is_taken_is_told() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: w, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
    let (manifests, problems) = made(&(gateway("") + service));
    assert!(
        manifests.workloads.is_empty() && problems[0].contains("there is a Service of that name"),
        "{problems:?}"
    );
    let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: w, namespace: shop}\n";
    let (manifests, problems) = made(&(gateway("") + account));
    assert!(problems.is_empty() && manifests.made.len() == 1, "it is used");
}
