//! Files in, words and exit code out.

use std::fs;
use std::path::PathBuf;

use manifest::Level;

use super::{examine, exit_code, report::Report};

const POLICY: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n";

/// What is printed about one file of this text, and the exit code.
fn analyse(text: &str) -> (String, u8) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("policy.yaml");
    fs::write(&path, text).expect("written");
    let findings = examine(std::slice::from_ref(&path), std::io::empty()).expect("readable");
    let log = Report::new(&findings, Level::Info).log(false);
    let log = log.replace(&path.display().to_string(), "policy.yaml");
    (log, exit_code(&findings, Level::Warning))
}

#[test]
fn a_good_policy_is_not_talked_about() {
    let good = "spec:\n  rules:\n  - from:\n    - source: {principals: [cluster.local/ns/shop/sa/a]}\n";
    assert_eq!(analyse(&(POLICY.to_owned() + good)), (String::new(), 0));
}

#[test]
fn a_misspelt_field_is_named_with_its_place_and_its_fix() {
    let bad = "spec:\n  rules:\n  - from:\n    - source:\n        principal: [a]\n";
    let expected = "policy.yaml:8:9: Error [IST0106] (AuthorizationPolicy shop/p) unknown field `principal`\n    \
                    field: spec.rules[0].from[0].source.principal\n    fix:   did you mean `principals`?\n";
    assert_eq!(analyse(&(POLICY.to_owned() + bad)), (expected.to_owned(), 79));
}

#[test]
fn text_that_does_not_parse_has_its_own_exit_code() {
    let bad = "spec:\n  selector:\n    matchLabels: {app: x}\n   action: DENY\n";
    let expected = "policy.yaml:7:4: Error [LAT0001] `action` is indented by 3, which fits no line above it\n    \
                    fix:   indent it by 2, like `selector` in line 5\n";
    assert_eq!(analyse(&(POLICY.to_owned() + bad)), (expected.to_owned(), 65));
    let missing = examine(&[PathBuf::from("/nonexistent/policy.yaml")], std::io::empty()).expect("readable");
    assert_eq!(exit_code(&missing, Level::Warning), 65);
}

#[test]
fn what_is_only_good_to_know_is_no_failure() {
    let foreign = "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: t}\n";
    let (log, code) = analyse(foreign);
    assert!(log.starts_with("policy.yaml:2:7: Info [LAT0004] (Thing default/t)"), "{log}");
    assert_eq!(code, 0);
}

#[test]
fn standard_input_and_formats() {
    let text = POLICY.to_owned() + "spec: {action: ALOW}\n";
    let findings = examine(&[PathBuf::from("-")], text.as_bytes()).expect("readable");
    let report = Report::new(&findings, Level::Info);
    assert_eq!(report.count(), "1 error");
    let json: serde_json::Value = serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
    let expected = serde_json::json!([{
        "origin": "AuthorizationPolicy shop/p", "object": "AuthorizationPolicy shop/p", "reference": "-:4:16",
        "level": "Error", "code": "IST0106", "message": "`ALOW` is not one of ALLOW, DENY, AUDIT, CUSTOM",
        "file": "-", "line": 4, "column": 16, "field": "spec.action", "fix": "did you mean `ALLOW`?",
    }]);
    assert_eq!(json, expected);
    let yaml: serde_json::Value = serde_saphyr::from_str(&report.yaml().expect("YAML")).expect("YAML");
    assert_eq!(yaml, expected);
    assert!(report.log(true).contains("\x1b[1;31mError\x1b[0m [IST0106]"));
    assert_eq!(Report::new(&[], Level::Info).yaml().expect("YAML"), "[]\n");
}
