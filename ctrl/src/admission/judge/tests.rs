//! What is refused, what is taken with a warning, and what is nobody's business.

use super::*;

fn mesh() -> Settings {
    Settings {
        root_namespace: "istio-system".into(),
        trust_domain: "cluster.local".into(),
        ..Settings::default()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is written at the call")]
fn of(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": "x", "namespace": "shop", "managedFields": [{"manager": "kubectl"}]},
        "spec": spec,
    })
}

fn policy(spec: Value) -> Value {
    of("security.istio.io/v1", "AuthorizationPolicy", spec)
}

#[expect(clippy::needless_pass_by_value, reason = "they are written at the call")]
fn asked(operation: &str, object: Value, old: Value) -> Asked {
    let request = json!({
        "uid": "1", "operation": operation, "namespace": "shop", "object": object, "oldObject": old,
    });
    serde_json::from_value(request).expect("a request")
}

fn judged(asked: &Asked, known: &[Value]) -> Judgement {
    let origin: Arc<Path> = Arc::from(Path::new(API_SERVER));
    let known: Vec<_> =
        known.iter().flat_map(|value| from_json(value, &origin).objects).map(Arc::new).collect();
    judge(asked, &known, &mesh(), &Revision::new("default", []))
}

#[test]
fn what_is_wrong_in_itself_is_refused_by_its_field() {
    let bad =
        policy(json!({"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": ["somewhere"]}}]}]}));
    let refused = judged(&asked("CREATE", bad.clone(), Value::Null), &[]).refused.expect("refused");
    assert!(refused.contains("ipBlocks") && refused.contains("somewhere"), "{refused}");
    let good = policy(json!({"action": "DENY", "rules": [{}]}));
    let refused = judged(&asked("UPDATE", bad.clone(), good.clone()), &[]).refused;
    assert!(refused.is_some(), "an object is not made wrong");
    // What was wrong before can be changed elsewhere: it would never get rid of a finalizer.
    let same = judged(&asked("UPDATE", bad.clone(), bad.clone()), &[]);
    assert_eq!(same.refused, None);
    assert!(same.warnings[0].contains("somewhere"), "{same:?}");
    assert_eq!(judged(&asked("UPDATE", good, bad.clone()), &[]).refused, None);
    assert_eq!(judged(&asked("DELETE", Value::Null, bad), &[]), Judgement::default());
}

/// What stands in the place of a field is judged as one, also where nothing else of the object changes.
#[test]
fn a_health_check_is_judged_as_a_field_is() {
    let rule = |check: &str| {
        let mut rule = of("networking.istio.io/v1", "DestinationRule", json!({"host": "reviews"}));
        rule["metadata"]["annotations"] = json!({"lateen.dev/health-check": check});
        rule
    };
    let (good, bad) = (rule("tcpSocket: {port: 80}"), rule("tcpSocket: {port: http}"));
    assert_eq!(judged(&asked("CREATE", good.clone(), Value::Null), &[]).refused, None);
    for before in [Value::Null, good.clone()] {
        let operation = if before.is_null() { "CREATE" } else { "UPDATE" };
        let refused = judged(&asked(operation, bad.clone(), before), &[]).refused.expect("refused");
        let field = "metadata.annotations[\"lateen.dev/health-check\"].tcpSocket.port: a port's name";
        assert!(refused.contains(field), "{refused}");
    }
    let same = judged(&asked("UPDATE", bad.clone(), bad), &[]);
    assert_eq!((same.refused, same.warnings.len()), (None, 1));
    // Elsewhere it would be overlooked.
    let mut service = of("v1", "Service", json!({"ports": [{"port": 80}]}));
    service["metadata"]["annotations"] = json!({"lateen.dev/health-check": "tcpSocket: {port: 80}"});
    let warnings = judged(&asked("CREATE", service, Value::Null), &[]).warnings;
    assert!(warnings.iter().any(|text| text.contains("has no effect on a Service")), "{warnings:?}");
}

#[test]
fn what_others_make_wrong_is_warned_of() {
    let rule = of(
        "networking.istio.io/v1",
        "VirtualService",
        json!({"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews", "subset": "v9"}}]}]}),
    );
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"ports": [{"port": 80}]},
    });
    // Without any pod, nothing is known of the place, and nothing is called missing.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reviews-1", "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "reviews"}]},
    });
    let judged_beside = judged(&asked("CREATE", rule, Value::Null), &[service, pod]);
    assert_eq!(judged_beside.refused, None);
    assert!(judged_beside.warnings.iter().any(|text| text.contains("v9")), "{judged_beside:?}");
}

#[test]
fn kinds_that_are_not_carried_are_warned_of_and_other_revisions_objects_are_theirs() {
    let telemetry = of("telemetry.istio.io/v1", "Telemetry", json!({}));
    let warned = judged(&asked("CREATE", telemetry, Value::Null), &[]);
    assert_eq!(warned.refused, None);
    assert!(warned.warnings.iter().any(|text| text.contains("Telemetry")), "{warned:?}");
    let mut bad = policy(json!({"action": "DNEY"}));
    assert!(judged(&asked("CREATE", bad.clone(), Value::Null), &[]).refused.is_some());
    bad["metadata"]["labels"] = json!({"istio.io/rev": "canary"});
    assert_eq!(judged(&asked("CREATE", bad, Value::Null), &[]), Judgement::default());
}

#[test]
fn an_object_without_a_name_yet_is_judged_as_it_will_be() {
    let mut good = policy(json!({"action": "DENY", "rules": [{}]}));
    good["metadata"] = json!({"generateName": "deny-"});
    assert_eq!(judged(&asked("CREATE", good, Value::Null), &[]).refused, None);
}

#[test]
fn the_answer_is_as_api_servers_read_it() {
    let review = Review { request: asked("CREATE", Value::Null, Value::Null) };
    let taken = review.answer(&Judgement { refused: None, warnings: vec!["w".to_owned()] });
    assert_eq!(taken["response"], json!({"uid": "1", "allowed": true, "warnings": ["w"]}));
    let refused = review.answer(&Judgement { refused: Some("r".to_owned()), warnings: Vec::new() });
    assert_eq!(refused["response"]["status"], json!({"code": 422, "reason": "Invalid", "message": "r"}));
    assert_eq!(shortened(&"ä".repeat(200), LENGTH).len(), LENGTH - 1);
}
