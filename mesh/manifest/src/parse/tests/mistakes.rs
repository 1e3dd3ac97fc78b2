//! One mistake, one finding: exactly where it stands, what it is called, and what would put it right.

use super::{read, shown};

const CASES: [&str; 3] =
    [include_str!("mistakes.txt"), include_str!("mistakes_routing.txt"), include_str!("mistakes_health.txt")];

/// What stands above the text of a case.
fn head(name: &str) -> String {
    let policy =
        |kind: &str| format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata:\n  name: p\nspec:\n");
    match name {
        "policy" => policy("AuthorizationPolicy"),
        "peer" => policy("PeerAuthentication"),
        "service" | "rule" => {
            let kind = if name == "service" { "VirtualService" } else { "DestinationRule" };
            format!(
                "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\nspec:\n"
            )
        }
        "checked" => "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: r\n  annotations:\n".into(),
        "document" => String::new(),
        other => panic!("no head `{other}`"),
    }
}

#[test]
fn each_mistake_is_found_where_it_is() {
    let cases: Vec<&str> = CASES.iter().flat_map(|cases| cases.split("\n### ").skip(1)).collect();
    assert!(cases.len() > 100, "only {} cases", cases.len());
    for case in cases {
        let (name, rest) = case.split_once('\n').expect("a case has a head");
        let (text, expected) = rest.split_once("-->\n").expect("a case has an outcome");
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        assert!(!expected.is_empty(), "a mistake has a finding:\n{text}");
        assert_eq!(shown(&read(&(head(name) + text)).findings), expected, "\n{text}");
    }
}
