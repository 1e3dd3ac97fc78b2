//! What counts as a waypoint, who asks for one, and what it becomes.

use serde_json::{Value, json};

use super::*;

fn gateway(class: &str, more: Value) -> Gateway {
    let mut spec = json!({
        "gatewayClassName": class,
        "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}, {"name": "tunnels", "port": 15009, "protocol": "HBONE"}],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    serde_json::from_value(spec).expect("a Gateway")
}

#[test]
fn waypoints_have_one_of_two_classes_and_a_listener_for_tunnels() {
    for (gateway, wanted) in [
        (gateway("istio-waypoint", json!({})), Some(("istio-waypoint", "tunnels"))),
        (gateway("lateen-waypoint", json!({})), Some(("lateen-waypoint", "tunnels"))),
        (gateway("another-waypoint", json!({})), None),
        (gateway("istio", json!({})), None),
        (gateway("istio-waypoint", json!({"listeners": []})), None),
    ] {
        let found = listener(&gateway).map(|(class, listener)| (class, listener.name.as_str()));
        assert_eq!(found, wanted, "{gateway:?}");
    }
}

#[test]
fn labels_ask_by_table() {
    let to = |namespace, name| Some(Asked::For { namespace, name });
    for (name, namespace, wanted) in [
        (None, None, None),
        (None, Some("infra"), None),
        (Some(""), None, None),
        (Some("none"), None, Some(Asked::None)),
        (Some("w"), None, to("shop", "w")),
        (Some("w"), Some(""), to("shop", "w")),
        (Some("w"), Some("infra"), to("infra", "w")),
    ] {
        let labels = [(USE_WAYPOINT, name), (USE_WAYPOINT_NAMESPACE, namespace)];
        let labels =
            labels.into_iter().filter_map(|(label, value)| Some((label.to_owned(), value?.to_owned())));
        assert_eq!(asked(&labels.collect(), "shop"), wanted, "{name:?} {namespace:?}");
    }
}

#[test]
fn parameters_are_a_config_map() {
    for (reference, wanted) in [
        (json!(null), Ok(None)),
        (json!({"kind": "ConfigMap", "name": "p"}), Ok(Some("p"))),
        (json!({"group": "", "kind": "ConfigMap", "name": "p"}), Ok(Some("p"))),
        (json!({"group": "", "kind": "Secret", "name": "p"}), Err("not Secret of group \"\"")),
        (json!({"group": "a.b", "kind": "ConfigMap", "name": "p"}), Err("not ConfigMap of group \"a.b\"")),
    ] {
        let infrastructure = json!({"infrastructure": {"parametersRef": reference}});
        let gateway = gateway(CLASS, infrastructure);
        match (parameters(&gateway), wanted) {
            (Err(error), Err(part)) => assert!(error.to_string().ends_with(part), "{error}"),
            (found, wanted) => assert_eq!(found.ok(), wanted.ok(), "{reference}"),
        }
    }
}

#[test]
fn objects_are_named_and_labelled_as_istios() {
    for (class, managed) in [(CLASS, "istio.io-mesh-controller"), (OWN_CLASS, "lateen.dev-mesh-controller")] {
        let infrastructure = json!({
            "labels": {"team": "x"},
            "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        });
        let gateway = gateway(class, json!({"infrastructure": infrastructure}));
        let waypoint = Waypoint::of("shop", "w", &gateway).expect("a waypoint");
        let labels = json!({
            "team": "x", "gateway.networking.k8s.io/gateway-name": "w", "istio.io/gateway-name": "w",
            "gateway.networking.k8s.io/gateway-class-name": class, "gateway.istio.io/managed": managed,
            "app.kubernetes.io/managed-by": "lateen",
        });
        let metadata = json!({"name": "w", "namespace": "shop", "labels": labels, "annotations": {"a": "b"}});
        assert_eq!(waypoint.metadata(), metadata);

        let settings = [("LOG_LEVEL".to_owned(), "debug".to_owned())];
        let program = Program { image: "i", controller: "https://c:1", settings: &settings };
        let pods = waypoint.pods(&program);
        for (label, value) in labels.as_object().expect("labels") {
            assert_eq!(pods["metadata"]["labels"][label], *value, "{label}");
        }
        assert_eq!(pods["metadata"]["labels"]["istio.io/dataplane-mode"], "none");
        assert_eq!(pods["metadata"]["annotations"]["prometheus.io/port"], "15020");
        assert_eq!(pods["spec"]["serviceAccountName"], "w");
        let variables = pods["spec"]["containers"][0]["env"].as_array().expect("variables");
        for (name, value) in [("GATEWAY_NAME", "w"), ("GATEWAY_CLASS", class), ("XDS_ADDRESS", "https://c:1")]
        {
            assert!(variables.contains(&json!({"name": name, "value": value})), "{name}: {variables:?}");
        }
        // What is said of them last counts.
        assert_eq!(variables.last(), Some(&json!({"name": "LOG_LEVEL", "value": "debug"})));
        assert_eq!(waypoint.service()["selector"], waypoint.selector());
    }
    let bare = gateway(CLASS, json!({}));
    let bare = Waypoint::of("shop", "w", &bare).expect("a waypoint");
    assert_eq!(bare.metadata().get("annotations"), None, "an empty map would be ours as well");
}

#[test]
fn a_listeners_name_is_the_ports_where_it_fits() {
    for (name, wanted) in
        [("tunnels".to_owned(), "tunnels"), ("a.b".to_owned(), "mesh"), ("x".repeat(64), "mesh")]
    {
        let listeners = json!([{"name": name, "port": 15009, "protocol": "HBONE"}]);
        let gateway = gateway(CLASS, json!({"listeners": listeners}));
        let service = Waypoint::of("shop", "w", &gateway).expect("a waypoint").service();
        let port = &service["ports"][1];
        assert_eq!(port["name"], wanted);
        assert_eq!((&port["port"], &port["targetPort"]), (&json!(15009), &json!(15008)));
    }
}
