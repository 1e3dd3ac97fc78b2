//! Tables: manifests in; objects and findings, each with its exact place, field and fix, out.

use std::{path::Path, sync::Arc};

use super::parse;
use crate::{Finding, Parsed};

mod good;
mod mistakes;

fn read(text: &str) -> Parsed {
    parse(text, &Arc::from(Path::new("f.yaml")))
}

/// Every finding in one line: `LINE:COLUMN level field: message => fix`.
fn shown(findings: &[Finding]) -> Vec<String> {
    let one = |finding: &Finding| {
        let fix = finding.fix.as_ref().map(|fix| format!(" => {fix}")).unwrap_or_default();
        let Finding { level, position, field, message, .. } = finding;
        let level = level.to_string().to_lowercase();
        format!("{}:{} {level} {field}: {message}{fix}", position.line, position.column)
    };
    findings.iter().map(one).collect()
}

#[test]
fn an_api_server_is_believed_about_its_own_kinds_but_not_about_policies() {
    let origin = Arc::from(Path::new("the API server"));
    let newer = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
        "spec": {"containers": [{"name": "c", "fieldOfNextYear": 1}]}});
    let parsed = super::from_json(&newer, &origin);
    assert_eq!(shown(&parsed.findings), Vec::<String>::new());
    assert!(matches!(parsed.objects[0].spec, crate::Typed::Pod(_)));
    let policy = serde_json::json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "a"}, "spec": {"rules": [{"from": [{"source": {"planets": ["mars"]}}]}]}});
    let parsed = super::from_json(&policy, &origin);
    assert!(matches!(parsed.objects[0].spec, crate::Typed::Broken));
    let finding = &parsed.findings[0];
    assert!(finding.to_string().starts_with("the API server: error: unknown field `planets`"), "{finding}");
}

/// These become names of files and folders.
#[test]
fn names_of_keys_volumes_and_claims_lead_nowhere_else() {
    let pod = |volume: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{{name: c}}]\n  volumes: [{volume}]\n"
        )
    };
    for (kind, field) in [("ConfigMap", "data"), ("ConfigMap", "binaryData"), ("Secret", "stringData")] {
        for (key, refused) in
            [("a.b_C-1", false), ("..data", true), ("../x", true), ("/etc/x", true), ("..", true)]
        {
            let text =
                format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: m}}\n{field}: {{{key}: YQ==}}\n");
            let said = shown(&read(&text).findings);
            assert_eq!(
                said.iter().any(|line| line.contains("cannot be a key here")),
                refused,
                "{text}{said:?}"
            );
        }
    }
    for (name, refused) in [("data", false), ("../../x", true), ("/x", true), ("a.b", true)] {
        let said = shown(&read(&pod(&format!("{{name: {name}, emptyDir: {{}}}}"))).findings);
        assert_eq!(
            said.iter().any(|line| line.contains("the name of a volume")),
            refused,
            "{name}: {said:?}"
        );
    }
    for (name, refused) in [("data-0", false), ("..", true), ("../x", true)] {
        let claim = format!("{{name: v, persistentVolumeClaim: {{claimName: {name}}}}}");
        let said = shown(&read(&pod(&claim)).findings);
        assert_eq!(said.iter().any(|line| line.contains("cannot be a name")), refused, "{name}: {said:?}");
    }
}

#[test]
fn what_is_said_of_one_file_has_an_end() {
    let parsed = read(&"---\n: : x\n".repeat(5000));
    assert_eq!(parsed.findings.len(), 1001);
    assert!(parsed.findings[1000].message.contains("the rest is not read"));
    assert!(!parsed.is_readable());
}

/// Compared each with each, these would take minutes.
#[test]
fn many_names_are_compared_in_little_time() {
    let ports: String = (0..60_000).map(|number| format!("  - {{name: p{number}, port: 80}}\n")).collect();
    let service = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  ports:\n{ports}");
    let begun = std::time::Instant::now();
    let again = format!("{service}  - {{name: p59999, port: 81}}\n");
    assert_eq!(shown(&read(&service).findings), Vec::<String>::new());
    assert!(shown(&read(&again).findings)[0].contains("a second port named `p59999`"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn what_is_said_of_one_object_has_an_end() {
    let ports = "    - operation: {ports: [x]}\n".repeat(300);
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n  - to:\n{ports}"
    );
    let parsed = read(&text);
    assert_eq!(parsed.findings.len(), 101);
    assert_eq!(parsed.findings[100].message, "200 more about this object");
}

/// What is compiled to see whether it can be is bounded as where it is used, and is told of once.
#[test]
fn expressions_are_bounded_together() {
    let rules = |patterns: usize| {
        let one =
            |number| format!("  - match: [{{uri: {{regex: '/{number}{}'}}}}]\n", "[0-9]{1000}".repeat(10));
        let route = "    route: [{destination: {host: a}}]\n";
        let rules: String = (0..patterns).map(|number| one(number) + route).collect();
        let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n";
        read(&format!("{head}spec:\n  hosts: [a]\n  http:\n{rules}"))
    };
    assert_eq!(shown(&rules(4).findings), Vec::<String>::new());
    let told = shown(&rules(300).findings);
    assert!(told.len() == 1 && told[0].contains("8 MiB"), "{told:?}");
}

/// Damages good manifests in every way that a slip of the hand does: nothing panics, what is said points into
/// the text, and a text that says something else than before is read or complained about.
#[test]
fn damaged_text_never_panics_and_findings_point_into_it() {
    let good = include_str!("tests/bookinfo.yaml");
    let lines: Vec<&str> = good.lines().collect();
    let mut silent = 0;
    for (index, line) in lines.iter().enumerate() {
        for damage in 0..6 {
            let changed = match damage {
                0 => String::new(),
                1 => format!(" {line}"),
                2 => line.strip_prefix("  ").unwrap_or(line).to_owned(),
                3 => line.replacen(':', "", 1),
                4 => format!("{line}\n{line}"),
                _ => format!("\t{line}"),
            };
            let mut all: Vec<&str> = lines.clone();
            all[index] = &changed;
            let text = all.join("\n");
            let parsed = read(&text);
            let rows = u32::try_from(text.lines().count()).expect("few lines") + 1;
            for finding in &parsed.findings {
                assert!((1..=rows).contains(&finding.position.line), "{finding}\n{text}");
            }
            silent += usize::from(parsed.findings.is_empty());
        }
    }
    let share = silent * 100 / (lines.len() * 6);
    // Removing a whole optional line, for example, gives another good manifest.
    assert!(share < 35, "{share} % of the damage goes unnoticed");
}

/// Bytes changed at random (the same ones each time): no panic, whatever comes out.
#[test]
fn random_damage_never_panics() {
    let good = include_str!("tests/bookinfo.yaml").as_bytes();
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    let alphabet = b" \n\t:-[]{}\"'#&*!|>%@,?~<0a\\";
    for _ in 0..400 {
        let mut bytes = good.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = alphabet[random(alphabet.len())],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, alphabet[random(alphabet.len())]),
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            read(text);
        }
    }
}
