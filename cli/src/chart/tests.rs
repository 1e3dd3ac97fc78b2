//! The chart with its own values, and what may be given instead.

use serde_json::{Value, json};

use super::{definitions, mesh, schema, values};

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn rendered(settings: &[&str]) -> Result<Vec<Value>, String> {
    let settings: Vec<_> = settings.iter().map(|text| values::setting(text)).collect::<Result<_, _>>()?;
    let asked = values::asked(json!({}), &[], &settings).map_err(|error| error.to_string())?;
    let values = values::complete(&asked).map_err(|error| error.to_string())?;
    mesh(&values, "elsewhere").map_err(|error| error.to_string())
}

#[test]
fn defaults_make_a_control_plane_and_agents() {
    let objects = rendered(&[]).expect("the chart is right");
    let ctrl = find(&objects, "Deployment", "lateen-ctrl");
    let image = format!("lateen.dev/ctrl:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(ctrl.pointer("/spec/template/spec/containers/0/image"), Some(&json!(image)));
    assert_eq!(ctrl["spec"]["replicas"], 1);
    let agent = find(&objects, "DaemonSet", "lateen-node-agent");
    assert_eq!(agent.pointer("/spec/template/spec/hostNetwork"), Some(&json!(true)));
    assert!(!objects.iter().any(|one| one["kind"] == "HorizontalPodAutoscaler"));
    let text = serde_json::to_string(&objects).expect("JSON");
    assert!(
        text.contains("lateen-ctrl.elsewhere.svc") && !text.contains("lateen-ctrl.istio-system"),
        "{text}"
    );
    assert!(definitions().expect("they are YAML").len() >= 4);
}

#[test]
fn settings_reach_what_they_are_for() {
    let objects = rendered(&[
        "ctrl.autoscaling.enabled=true",
        "ctrl.autoscaling.max=9",
        "ctrl.env.LOG_LEVEL=debug",
        "mesh.podCidrs={10.0.0.0/8,fd00::/8}",
        "nodeAgent.nodeSelector.example\\.org/mesh=true-ish",
        "image.tag=next",
    ])
    .expect("all of them are settings");
    let ctrl = find(&objects, "Deployment", "lateen-ctrl");
    assert_eq!(ctrl["spec"]["replicas"], Value::Null, "the autoscaler says how many");
    let container = &ctrl["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "lateen.dev/ctrl:next");
    let env = container["env"].as_array().expect("a list");
    for (name, value) in [("LOG_LEVEL", "debug"), ("POD_CIDRS", "10.0.0.0/8,fd00::/8")] {
        assert!(env.contains(&json!({"name": name, "value": value})), "{name}");
    }
    let autoscaler = find(&objects, "HorizontalPodAutoscaler", "lateen-ctrl");
    assert_eq!(autoscaler["spec"]["maxReplicas"], 9);
    let agent = find(&objects, "DaemonSet", "lateen-node-agent");
    let nodes = &agent["spec"]["template"]["spec"]["nodeSelector"];
    assert_eq!(*nodes, json!({"kubernetes.io/os": "linux", "example.org/mesh": "true-ish"}));
}

/// Two control planes are there at once: what both have is called differently, and one of them has the agents.
#[test]
fn another_revision_stands_beside_the_first() {
    let names = |settings: &[&str]| -> Vec<String> {
        let objects = rendered(settings).expect("settings");
        objects.iter().map(|one| format!("{} {}", one["kind"], one["metadata"]["name"])).collect()
    };
    let first = names(&[]);
    let second = names(&["revision=canary"]);
    assert!(second.iter().all(|name| !first.contains(name)), "{second:?}");
    assert!(second.contains(&"\"Deployment\" \"lateen-ctrl-canary\"".to_owned()), "{second:?}");
    let agents = |names: &[String]| names.iter().any(|name| name.contains("DaemonSet"));
    assert!(agents(&first) && !agents(&second));
    assert!(agents(&names(&["revision=stable", "nodeAgent.enabled=true"])));
    assert!(!agents(&names(&["nodeAgent.enabled=false"])));
    let selected = |settings: &[&str]| {
        let objects = rendered(settings).expect("settings");
        let service = objects.iter().find(|one| one["kind"] == "Service").expect("there is one");
        service["spec"]["selector"].clone()
    };
    assert_eq!(selected(&[]), json!({"app": "lateen-ctrl"}));
    assert_eq!(selected(&["revision=canary"]), json!({"app": "lateen-ctrl-canary"}));
    let objects = rendered(&["nodeAgent.revision=canary"]).expect("settings");
    let agent = find(&objects, "DaemonSet", "lateen-node-agent").to_string();
    assert_eq!(agent.matches("https://lateen-ctrl-canary.elsewhere.svc:15012").count(), 2, "{agent}");
}

#[test]
fn what_is_no_setting_is_refused_by_name() {
    for (setting, cause) in [
        ("ctrl.replica=3", "there is no setting ctrl.replica; there are replicas,"),
        ("ctrl.Replicas=3", "replicas is meant, perhaps"),
        ("ctrl.replicas=many", "ctrl.replicas is \"many\", and must be integer"),
        ("ctrl.replicas=0", "ctrl.replicas is 0, and must be at least 1"),
        (
            "image.pullPolicy=Sometimes",
            "image.pullPolicy is \"Sometimes\", and must be one of \"IfNotPresent\"",
        ),
        ("image.hub=", "image.hub must not be empty"),
        ("ctrl=3", "ctrl is 3, and must be object"),
        ("mesh.podCidrs={3}", "mesh.podCidrs[0] is 3, and must be string"),
        ("nonsense", "expected NAME=VALUE"),
        ("a..b=3", "has an empty part"),
    ] {
        let refused = rendered(&[setting]);
        assert!(matches!(&refused, Err(error) if error.contains(cause)), "{setting}: {refused:?}");
    }
}

/// A word that is not understood would let through what helm refuses.
#[test]
fn the_schema_has_only_words_that_are_understood() {
    fn look(schema: &Value, names: bool) {
        for (word, inner) in schema.as_object().into_iter().flatten() {
            assert!(names || schema::WORDS.contains(&word.as_str()), "{word} is not understood");
            match word.as_str() {
                "properties" if !names => look(inner, true),
                "items" | "additionalProperties" if !names => look(inner, false),
                _ if names => look(inner, false),
                _ => {}
            }
        }
    }
    look(&serde_json::from_str(super::SCHEMA).expect("JSON"), false);
}
