//! Scenarios (`e2e/scenarios`) on a Kubernetes of two nodes with the mesh installed; `scenarios.rs` plays the same on a mesh of
//! this machine. Needs what `e2e/cluster/build` builds (`make e2e-kubernetes`).

use std::time::Instant;

use e2e::cluster::Cluster;
use e2e::lines;
use e2e::report::told;
use e2e::scenario::{OnCluster, Script, Stage};
use serde_json::{Value, json};

/// This cluster's ranges of addresses.
const RANGES: [&str; 2] = ["mesh.podCidrs={10.244.0.0/16}", "mesh.serviceCidrs={10.96.0.0/16}"];

/// A cluster with the mesh, and images of what scenarios run.
fn cluster(test: &str) -> Option<Cluster> {
    let cluster = Cluster::with_nodes(test, 2)?;
    let begun = Instant::now();
    cluster.define_gateway_api();
    let installed = cluster.lateen(&["install", "--set", RANGES[0], "--set", RANGES[1]]);
    assert!(installed.ok(), "{installed}");
    told("mesh installed", begun);
    let begun = Instant::now();
    cluster.import_demo();
    told("images of the demo made and imported", begun);
    Some(cluster)
}

fn staged<'a>(cluster: &'a Cluster, script: &Script) -> OnCluster<'a> {
    let begun = Instant::now();
    let stage = script.on(cluster);
    told("application ready", begun);
    stage
}

#[test]
fn the_bookshop_is_served_as_it_is_written() {
    let Some(cluster) = cluster("the_bookshop_is_served_as_it_is_written") else { return };
    let script = Script::read("bookshop");
    script.play(&staged(&cluster, &script));
}

const JOBS: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: report, namespace: shop}
spec:
  backoffLimit: 0
  template:
    spec:
      serviceAccountName: client
      restartPolicy: Never
      initContainers:
      - {name: prepare, image: 'lateen.dev/demo/shell:1', command: [curl, -sSf, 'http://server:8081/']}
      containers:
      - {name: ask, image: 'lateen.dev/demo/shell:1', command: [curl, -sSf, 'http://server:8080/']}
      - {name: beside, image: 'lateen.dev/demo/shell:1', command: [sleep, '1']}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: '* * * * *'
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          serviceAccountName: client
          restartPolicy: Never
          containers:
          - {name: ask, image: 'lateen.dev/demo/shell:1', command: [curl, -sSf, 'http://server:8080/']}
";

#[test]
fn monitoring_reaches_one_port_and_jobs_end() {
    let Some(cluster) = cluster("monitoring_reaches_one_port_and_jobs_end") else { return };
    let script = Script::read("monitoring");
    let stage = staged(&cluster, &script);
    script.play(&stage);
    // The last step's STRICT and waypoints are in force.
    let begun = Instant::now();
    cluster.apply(JOBS);
    ended(&cluster, &stage, "report", (json!(["ask", "beside"]), json!(["prepare"])));
    told("a Job has ended", begun);
    ended(&cluster, &stage, "nightly-", (json!(["ask"]), Value::Null));
    told("a Job of a CronJob has ended", begun);
}

/// Waits until the Job whose name begins so has succeeded; its pod had these containers, and those that came before them, and
/// nothing more; and it came to the server through a tunnel, as itself.
fn ended(cluster: &Cluster, stage: &OnCluster<'_>, job: &str, (containers, before): (Value, Value)) {
    let list = |kind: &str| -> Vec<Value> {
        let told = cluster.kubectl(&["get", kind, "-n", "shop", "-ojson"]);
        let all: Value = serde_json::from_str(&told.stdout).unwrap_or_default();
        let ours = |one: &&Value| one["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(job));
        all["items"].as_array().into_iter().flatten().filter(ours).cloned().collect()
    };
    stage.until(&format!("the end of {job}"), || match list("jobs").first() {
        Some(one) if one["status"]["succeeded"] == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let pod = list("pods").remove(0);
    let names = |of: &Value| match of.as_array() {
        Some(all) => all.iter().map(|one| one["name"].clone()).collect(),
        None => Value::Null,
    };
    assert_eq!(names(&pod["spec"]["containers"]), containers);
    assert_eq!(names(&pod["spec"]["initContainers"]), before);
    assert_eq!(pod["spec"]["ephemeralContainers"], Value::Null);
    for (of, wanted) in [("containerStatuses", &containers), ("initContainerStatuses", &before)] {
        assert_eq!(names(&pod["status"][of]), *wanted, "what ran");
    }
    let workload = format!("src.workload={}", pod["metadata"]["name"]);
    stage.until(&format!("a tunnel of {job}"), || {
        let identity = "src.identity=\"spiffe://cluster.local/ns/shop/sa/client\"";
        let log = stage.agent_logs();
        match lines(&log, &["connection complete", &workload, identity, "dst.hbone_addr="]).is_empty() {
            true => Err(lines(&log, &[&workload]).join("\n")),
            false => Ok(()),
        }
    });
}
