//! The charts by helm itself: what `lateen manifest` makes of them is the same, what is kept in deploy/manifests is
//! current, and both refuse the same values. Needs helm (`scripts/helm --path` builds it).

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Outcome, lateen, report, run};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// helm, or a note that there is none.
fn helm(test: &str) -> Option<PathBuf> {
    let known = run(Command::new(root().join("scripts/helm")).arg("--check"));
    if !known.ok() {
        report::not_possible(test, known.stderr.trim());
        return None;
    }
    Some(PathBuf::from(known.stdout.trim()))
}

fn template(helm: &Path, namespace: &str, settings: &[&str]) -> Outcome {
    let mut command = Command::new(helm);
    command
        .args(["template", "lateen"])
        .arg(root().join("deploy/helm/lateen"))
        .args(["--namespace", namespace]);
    run(command.args(settings.iter().flat_map(|setting| ["--set", *setting])))
}

fn manifest(namespace: &str, settings: &[&str]) -> Outcome {
    let mut command = Command::new(lateen());
    command.args(["manifest", "--no-definitions", "-n", namespace]);
    run(command.args(settings.iter().flat_map(|setting| ["--set", *setting])))
}

/// The objects, ordered by what they are called.
fn objects(text: &str) -> Vec<Value> {
    let read: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    let mut objects: Vec<Value> = read.into_iter().filter(|one| !one.is_null()).map(sorted).collect();
    objects.sort_by_key(|one| format!("{} {}", one["kind"], one["metadata"]["name"]));
    objects
}

/// Whatever order its keys were written in.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.into_iter().collect()
        }
        Value::Array(list) => list.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Each turns another condition of a template, or writes a value that needs care.
const SETTINGS: [&[&str]; 8] = [
    &[],
    &["ctrl.autoscaling.enabled=true", "ctrl.autoscaling.min=3"],
    &["image.hub=registry.example:5000/mesh", "image.tag=next", "image.pullSecrets[0].name=one"],
    &["mesh.podCidrs={10.244.0.0/16,fd00:10:244::/48}", "ctrl.env.LOG_LEVEL=info\\,kube=off"],
    &["revision=canary", "revisionTags={next,test}"],
    &["revision=1-2", "nodeAgent.enabled=true", "nodeAgent.revision=default"],
    &["ctrl.priorityClassName=", "nodeAgent.priorityClassName=", "nodeAgent.maxUpdated=5"],
    &[
        "ctrl.podAnnotations.note=say: \"yes\" # no",
        "nodeAgent.env.WORKER_THREADS=2",
        "nodeAgent.podAnnotations.a=b",
    ],
];

#[test]
fn lateen_makes_of_the_chart_what_helm_makes() {
    let Some(helm) = helm("lateen_makes_of_the_chart_what_helm_makes") else { return };
    for settings in SETTINGS {
        // What helm's and our command line write differently: lists of maps are for files of values.
        if settings.iter().any(|setting| setting.contains('[')) {
            continue;
        }
        let theirs = template(&helm, "elsewhere", settings);
        assert!(theirs.ok(), "{theirs}");
        let plain: Vec<String> = settings.iter().map(|setting| setting.replace("\\,", ",")).collect();
        let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
        let ours = manifest("elsewhere", &plain);
        assert!(ours.ok(), "{ours}");
        let (theirs, ours) = (objects(&theirs.stdout), objects(&ours.stdout));
        assert_eq!(theirs.len(), ours.len(), "{settings:?}");
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!(theirs, ours, "{settings:?}");
        }
    }
}

#[test]
fn what_is_kept_of_the_chart_is_current() {
    let Some(helm) = helm("what_is_kept_of_the_chart_is_current") else { return };
    let now = template(&helm, "istio-system", &[]);
    assert!(now.ok(), "{now}");
    let kept = std::fs::read_to_string(root().join("deploy/manifests/lateen.yaml")).expect("it is kept");
    let kept = kept.split_once('\n').expect("a line says what it is").1;
    assert!(kept == now.stdout, "deploy/manifests is not what the chart makes: run make manifests");
}

#[test]
fn both_refuse_the_same_values() {
    let Some(helm) = helm("both_refuse_the_same_values") else { return };
    for setting in [
        "ctrl.replica=3",
        "ctrl.replicas=many",
        "ctrl.replicas=0",
        "image.pullPolicy=Sometimes",
        "image.hub=",
        "ctrl.autoscaling.cpu=101",
        "mesh.podCidrs=10.0.0.0/8",
    ] {
        let theirs = template(&helm, "istio-system", &[setting]);
        assert!(!theirs.ok(), "helm takes {setting}");
        let ours = manifest("istio-system", &[setting]);
        assert_eq!(ours.code, 1, "{setting}: {ours}");
        let name = setting.split(['=', '.']).next().expect("a name");
        assert!(ours.stderr.contains(name), "{setting}: {ours}");
    }
}

#[test]
fn the_charts_pass_helms_own_lint() {
    let Some(helm) = helm("the_charts_pass_helms_own_lint") else { return };
    for chart in ["crds", "lateen"] {
        let looked =
            run(Command::new(&helm).args(["lint", "--strict"]).arg(root().join("deploy/helm").join(chart)));
        assert!(looked.ok(), "{looked}");
    }
}

/// Time for what is left to be reset, and for the agent to tell an uninstallation from its replacement.
#[test]
fn an_agent_is_given_more_time_than_its_connections() {
    let text = std::fs::read_to_string(root().join("deploy/manifests/lateen.yaml")).expect("it is kept");
    let agent =
        objects(&text).into_iter().find(|object| object["kind"] == "DaemonSet").expect("there is one");
    let pod = &agent["spec"]["template"]["spec"];
    let environment = pod["containers"][0]["env"].as_array().expect("it has settings");
    let drain = environment.iter().find(|one| one["name"] == "TERMINATION_GRACE_PERIOD").expect("it is set");
    let drain = drain["value"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
    let grace = pod["terminationGracePeriodSeconds"].as_u64();
    assert!(drain.zip(grace).is_some_and(|(drain, grace)| drain + 8 <= grace), "{drain:?} of {grace:?}");
}
