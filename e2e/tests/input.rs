//! Manifests with mistakes: the message says what and where, and what was in force stays in force.

use std::time::Duration;

use e2e::report::counted;
use e2e::{Mesh, example, lateen, manifests, run};

/// A policy that only lets `client` in, and what is done to it.
const GOOD: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: only-client
  namespace: test
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/test/sa/client]
";

struct Mistake {
    what: &'static str,
    /// Replaced in the good text …
    good: &'static str,
    /// … by this.
    bad: &'static str,
    /// What the message must say: the place, and what it is about.
    says: &'static [&'static str],
    /// What `lateen analyze` ends with.
    code: i32,
}

const MISTAKES: [Mistake; 6] = [
    Mistake {
        what: "wrong indentation",
        good: "    - source:\n        principals",
        bad: "    - source:\n      principals",
        says: &["policy.yaml:11:", "principals"],
        code: 79,
    },
    Mistake {
        what: "indentation that is no YAML",
        good: "  action: ALLOW\n",
        bad: "   action: ALLOW\n",
        says: &["policy.yaml:8:"],
        code: 65,
    },
    Mistake {
        what: "an unknown field",
        good: "        principals:",
        bad: "        principal:",
        says: &["policy.yaml:11:9", "principal", "spec.rules[0].from[0].source"],
        code: 79,
    },
    Mistake {
        what: "a wrong type",
        good: "  action: ALLOW\n",
        bad: "  action: [ALLOW]\n",
        says: &["policy.yaml:7:11", "spec.action"],
        code: 79,
    },
    Mistake {
        what: "an unknown value",
        good: "  action: ALLOW\n",
        bad: "  action: PERMIT\n",
        says: &["policy.yaml:7:11", "spec.action", "PERMIT"],
        code: 79,
    },
    Mistake {
        what: "a wrong range of addresses",
        good: "principals: [cluster.local/ns/test/sa/client]",
        bad: "ipBlocks: [10.0.0.0/40]",
        says: &["policy.yaml:11:", "10.0.0.0/40"],
        code: 79,
    },
];

/// `client` passes and `other` does not, which is what the good policy says.
fn in_force(mesh: &Mesh) -> Result<(), String> {
    let peer = example("peer");
    let probe = |pod: &str| mesh.exec("test", pod, &[&peer, "probe", "server:8080"]).stdout;
    let (client, other) = (probe("client"), probe("other"));
    if client.contains("passed") && other.contains("refused") { Ok(()) } else { Err(client + &other) }
}

/// Waits until the controller has said all of it in one message.
fn told(mesh: &Mesh, what: &str, parts: &[&str]) {
    mesh.within(Duration::from_secs(10), what, |mesh| {
        let log = mesh.logs("ctrl");
        if e2e::lines(&log, parts).is_empty() {
            Err(format!("no line with {parts:?} in\n{log}"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn a_mistake_is_shown_with_its_place_and_changes_nothing() {
    let mesh = Mesh::start(&[("app.yaml", &manifests::client_and_server("ambient")), ("policy.yaml", GOOD)]);
    mesh.eventually("the good policy", in_force);
    for mistake in &MISTAKES {
        assert_eq!(GOOD.matches(mistake.good).count(), 1, "{}", mistake.what);
        mesh.apply("policy.yaml", &GOOD.replace(mistake.good, mistake.bad));
        told(&mesh, mistake.what, mistake.says);
        in_force(&mesh).unwrap_or_else(|what| panic!("{}: {what}", mistake.what));
        mesh.apply("policy.yaml", GOOD);
        mesh.eventually("the good policy again", in_force);
    }
    // The same name twice: the first stays.
    mesh.apply("second.yaml", &GOOD.replace("sa/client", "sa/other"));
    told(&mesh, "a duplicate name", &["second.yaml:", "policy.yaml:", "only-client"]);
    in_force(&mesh).unwrap_or_else(|what| panic!("a duplicate name: {what}"));
    counted(&format!("{} mistakes while running", MISTAKES.len() + 1));
}

#[test]
fn analyze_tells_the_same_and_ends_with_a_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("policy.yaml");
    let app = folder.path().join("app.yaml");
    std::fs::write(&app, manifests::client_and_server("ambient")).expect("written");
    let analyze = |text: &str| {
        std::fs::write(&file, text).expect("written");
        run(std::process::Command::new(lateen()).arg("analyze").arg(folder.path()))
    };
    let good = analyze(GOOD);
    assert_eq!(good.code, 0, "{good}");
    for mistake in &MISTAKES {
        let found = analyze(&GOOD.replace(mistake.good, mistake.bad));
        assert_eq!(found.code, mistake.code, "{}: {found}", mistake.what);
        for part in mistake.says {
            assert!(
                found.stdout.contains(part) || found.stderr.contains(part),
                "{}: {part}: {found}",
                mistake.what
            );
        }
    }
    let twice = analyze(&format!("{GOOD}---\n{GOOD}"));
    assert_eq!(twice.code, 79, "{twice}");
    let missing = run(std::process::Command::new(lateen()).args(["analyze", "/nowhere/at/all.yaml"]));
    assert_eq!(missing.code, 65, "{missing}");
    counted(&format!("{} files analyzed", MISTAKES.len() + 3));
}
