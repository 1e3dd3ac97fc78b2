//! Tables: what a manifest says about the environment, what a process gets.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::{EnvSource, command_line, environment, expand};
use crate::local::manifests::{Manifests, from_json};

fn manifests() -> Manifests {
    from_json(&[
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"A": "1", "B": "2"}}),
        // "s3cret" and plain text.
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
               "data": {"P": "czNjcmV0"}, "stringData": {"Q": "plain"}}),
    ])
}

fn container(value: &Value) -> Container {
    let mut value = value.clone();
    value["name"] = "main".into();
    serde_json::from_value(value).expect("a container")
}

fn run(value: &Value) -> Result<Vec<(String, String)>, String> {
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p-0", "namespace": "default", "labels": {"app": "x"}, "uid": "u"},
        "spec": {"nodeName": "node-2", "serviceAccountName": "sa", "containers": []},
        "status": {"podIP": "10.244.2.2", "podIPs": [{"ip": "10.244.2.2"}, {"ip": "fd00::2"}], "hostIP": "172.31.0.12"},
    }))
    .expect("a pod");
    let inherited = [("PATH".to_owned(), "/bin".to_owned())];
    environment(&EnvSource { pod: &pod, manifests: &manifests(), inherited: &inherited }, &container(value))
}

#[track_caller]
fn check(value: &Value, name: &str, expected: &str) {
    let environment = run(value).expect("an environment");
    let found = environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(found, Some(expected), "{value}");
}

#[test]
fn values_come_from_where_the_manifest_says() {
    let from = |source: Value| json!({"env": [{"name": "V", "valueFrom": source}]});
    check(&json!({}), "PATH", "/bin");
    check(&json!({}), "HOSTNAME", "p-0");
    check(&json!({"env": [{"name": "PATH", "value": "/opt"}]}), "PATH", "/opt");
    check(&json!({"envFrom": [{"configMapRef": {"name": "c"}, "prefix": "X_"}]}), "X_B", "2");
    check(&json!({"envFrom": [{"secretRef": {"name": "s"}}]}), "P", "s3cret");
    check(&json!({"envFrom": [{"secretRef": {"name": "s"}}]}), "Q", "plain");
    check(
        &json!({"envFrom": [{"configMapRef": {"name": "c"}}], "env": [{"name": "A", "value": "9"}]}),
        "A",
        "9",
    );
    check(&from(json!({"configMapKeyRef": {"name": "c", "key": "A"}})), "V", "1");
    check(&from(json!({"secretKeyRef": {"name": "s", "key": "P"}})), "V", "s3cret");
    check(&from(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})), "V", "x");
    check(&from(json!({"fieldRef": {"fieldPath": "spec.nodeName"}})), "V", "node-2");
    check(&from(json!({"fieldRef": {"fieldPath": "status.podIP"}})), "V", "10.244.2.2");
    check(&from(json!({"fieldRef": {"fieldPath": "status.podIPs"}})), "V", "10.244.2.2,fd00::2");
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let missing = run(&json!({"envFrom": [{"configMapRef": {"name": "none"}}]})).expect_err("missing");
    assert_eq!(missing, "ConfigMap default/none is in no file");
    let key = json!({"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none"}}}]});
    assert_eq!(run(&key).expect_err("missing"), "Secret default/s has no key \"none\"");
    let optional = json!({"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}}]});
    assert!(run(&optional).expect("optional").iter().all(|(name, _)| name != "V"));
}

#[test]
fn references_are_expanded_in_the_order_they_are_set() {
    let values = HashMap::from([("A".to_owned(), "1".to_owned())]);
    for (text, expected) in [
        ("$(A)-$(A)", "1-1"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("cost $5", "cost $5"),
        ("$(A", "$(A"),
        ("$", "$"),
    ] {
        assert_eq!(expand(text, &values), expected, "{text}");
    }
    let chained = json!({"env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "$(X)2"}, {"name": "Z", "value": "$(Y)3"}]});
    check(&chained, "Z", "123");
}

#[test]
fn command_and_arguments_see_the_environment() {
    let value =
        json!({"command": ["sh", "-c"], "args": ["echo $(X) $$(X)"], "env": [{"name": "X", "value": "1"}]});
    let environment = run(&value).expect("an environment");
    assert_eq!(command_line(&container(&value), &environment), ["sh", "-c", "echo 1 $(X)"]);
}
