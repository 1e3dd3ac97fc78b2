//! Agents that ask for what their pods use, in a mesh of many more workloads: everything is as in one that is told all,
//! what is not used is not kept, and without a controller what is in use goes on.

#![allow(clippy::panic, reason = "a condition that does not hold fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::capture::{Capture, watchers};
use e2e::client::{Client, Load};
use e2e::manifests::crowd;
use e2e::programs::Programs;
use e2e::report::{counted, size};
use e2e::{Mesh, Outcome, example, manifests};
use serde_json::Value;

/// Requests a second while a part of the mesh is gone.
const RATE: u32 = 50;

/// Only the client may speak to the server, and nobody without mutual TLS.
const RULES: &str = r#"---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: strict
  namespace: test
spec:
  mtls:
    mode: STRICT
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: only-the-client
  namespace: test
spec:
  selector:
    matchLabels:
      app: server
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [cluster.local/ns/test/sa/client]
"#;

/// A mesh whose agents keep for `idle` what nobody uses.
fn mesh(programs: &Programs, idle: &str, workloads: usize) -> Mesh {
    let app = manifests::client_and_server("ambient") + &manifests::namespace("plain", "");
    let app = app + &manifests::shell("outsider", "plain", "node-1");
    let files = [
        ("app.yaml", app),
        ("rules.yaml", RULES.to_owned()),
        ("watch.yaml", watchers()),
        ("crowd.yaml", crowd(workloads)),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let environment = [("XDS_ON_DEMAND", "true"), ("XDS_ON_DEMAND_IDLE", idle)];
    Mesh::start_under(programs.lateen(), &files, &[], &environment)
}

fn ask(mesh: &Mesh, namespace: &str, pod: &str, target: &str) -> Outcome {
    mesh.exec(namespace, pod, &[&example("peer"), "probe", target])
}

#[track_caller]
fn passes(mesh: &Mesh, pod: &str, target: &str) {
    let outcome = ask(mesh, "test", pod, target);
    assert_eq!(outcome.stdout, format!("{target} passed\n"), "{pod}: {outcome}");
}

#[track_caller]
fn refused(mesh: &Mesh, namespace: &str, pod: &str, target: &str) {
    let outcome = ask(mesh, namespace, pod, target);
    assert!(outcome.stdout.starts_with(&format!("{target} refused: ")), "{pod}: {outcome}");
}

/// The server's address of a family with its port.
fn server(mesh: &Mesh, v6: bool) -> String {
    let ip = mesh.address("test", "server", v6);
    if v6 { format!("[{ip}]:8080") } else { format!("{ip}:8080") }
}

/// The virtual address of a family of the server's service with its port.
fn vip(mesh: &Mesh, v6: bool) -> String {
    let told = mesh.lateen(&["get", "svc", "server", "-n", "test", "-o", "json"]);
    let service: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    let ips = service["spec"]["clusterIPs"].as_array().unwrap_or_else(|| panic!("no addresses: {service}"));
    let ip = ips.iter().filter_map(Value::as_str).find(|ip| ip.contains(':') == v6);
    let ip = ip.unwrap_or_else(|| panic!("no such address: {ips:?}"));
    if v6 { format!("[{ip}]:8080") } else { format!("{ip}:8080") }
}

fn dump(mesh: &Mesh, node: u8) -> Value {
    let node = format!("node-agent/node-{node}");
    let page =
        mesh.exec("kube-system", &node, &["curl", "-sS", "-m", "10", "http://127.0.0.1:15000/config_dump"]);
    serde_json::from_str(&page.stdout).unwrap_or_else(|error| panic!("{error}: {page}"))
}

/// The names of what an agent knows, workloads and services.
fn known(mesh: &Mesh, node: u8) -> BTreeSet<String> {
    let page = dump(mesh, node);
    let all = ["workloads", "services"].map(|kind| page[kind].as_array().cloned().unwrap_or_default());
    all.iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

/// The pods of node-1, which its agent knows unasked, and others.
fn with(others: &[&str]) -> BTreeSet<String> {
    let own = ["client", "other", "outsider", "watch-1"];
    own.iter().chain(others).map(|&name| name.to_owned()).collect()
}

#[test]
fn what_pods_use_is_asked_for_kept_up_to_date_and_forgotten() {
    let programs = Programs::linked();
    let workloads = size(500, 5000);
    let mesh = mesh(&programs, "6s", workloads);
    // Nothing but its own pods, until one of them wants something.
    mesh.eventually("node-1 knows its own pods only", |mesh| {
        let now = known(mesh, 1);
        if now == with(&[]) { Ok(()) } else { Err(format!("{now:?}")) }
    });

    // By name, by virtual address and by the pod's own, in both families; each for the first time.
    let targets = [
        "server:8080".to_owned(),
        "server.test.svc.cluster.local:8080".to_owned(),
        vip(&mesh, false),
        vip(&mesh, true),
        server(&mesh, false),
        server(&mesh, true),
    ];
    // Without an identity nobody comes in; what it says is on the wires all the same.
    for target in &targets {
        refused(&mesh, "plain", "outsider", target);
    }
    let capture = Capture::start(&mesh);
    for target in &targets {
        passes(&mesh, "client", target);
        refused(&mesh, "test", "other", target);
    }
    let curl =
        |family: &str, url: &str| mesh.exec("test", "client", &["curl", "-sS", "-m", "10", family, url]);
    for family in ["-4", "-6"] {
        let answer = curl(family, "http://server.test:8080/");
        assert!(answer.ok(), "{family}: {answer}");
    }
    let now = known(&mesh, 1);
    assert_eq!(now, with(&["server"]), "nothing else was asked for");

    // What is nowhere: a pod's address that none has is refused, a name that none has is said to be none.
    let started = std::time::Instant::now();
    refused(&mesh, "test", "client", "10.244.2.250:8080");
    assert!(started.elapsed() >= Duration::from_secs(4), "a pod may be about to be told of");
    let (code, name) = (curl("-4", "http://nobody.test:8080/").code, "nobody.test");
    assert_eq!(code, 6, "{name} is no name");
    // And what is in no mesh is reached as it is: the other node's own metrics.
    let outside = mesh.exec("kube-system", "watch-2", &["hostname", "-I"]);
    let outside = outside
        .stdout
        .split_whitespace()
        .find(|ip| ip.starts_with("172."))
        .unwrap_or_else(|| panic!("{outside}"))
        .to_owned();
    let metrics = curl("-4", &format!("http://{outside}:15020/metrics"));
    assert!(metrics.stdout.contains("istio_build"), "{outside}: {metrics}");

    // Another pod in its place: the same names, another address.
    let old = server(&mesh, false);
    let app = manifests::client_and_server("ambient") + &manifests::namespace("plain", "");
    let app = app + &manifests::shell("outsider", "plain", "node-1");
    mesh.apply("app.yaml", &app.replace("--http, \"8080\", --tcp", "--http, \"8080\", --version, v2, --tcp"));
    mesh.eventually("another server has another address", |mesh| {
        let now = mesh.exec("test", "server", &["hostname", "-I"]);
        let first = now.stdout.split_whitespace().next().map(|ip| format!("{ip}:8080"));
        if now.ok() && first.is_some_and(|now| now != old) { Ok(()) } else { Err(now.to_string()) }
    });
    mesh.eventually("it is reached by all its names", |mesh| {
        for target in ["server:8080".to_owned(), vip(mesh, true), server(mesh, false)] {
            let outcome = ask(mesh, "test", "client", &target);
            if outcome.stdout != format!("{target} passed\n") {
                return Err(outcome.to_string());
            }
        }
        Ok(())
    });
    refused(&mesh, "test", "client", &old);

    // What a connection uses is kept while it lasts, and forgotten when nobody has used it for a while.
    let held = Client::start(&mesh, "test", "client", &["hold", "server:9000"]);
    held.wait_for("open", e2e::PATIENCE);
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        assert!(known(&mesh, 1).contains("server"), "it is in use");
        e2e::pause();
    }
    drop(held);
    mesh.eventually("it is forgotten", |mesh| {
        let now = known(mesh, 1);
        if now == with(&[]) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    passes(&mesh, "client", "server:8080");

    let (packets, marked) = capture.finish();
    assert_eq!(marked, 0, "of {packets} packets on the nodes");
    counted(&format!(
        "{} ways to a server among {workloads} workloads; {packets} packets, {marked} in the clear",
        targets.len()
    ));
}

#[test]
fn without_its_controller_what_is_in_use_goes_on() {
    let programs = Programs::linked();
    let mesh = mesh(&programs, "1s", size(100, 1000));
    let capture = Capture::start(&mesh);
    let load = Load::start(&mesh, "test", "client", "server:8080", RATE);
    let direct = server(&mesh, true);
    passes(&mesh, "client", &direct);
    programs.take_ctrl(&mesh);

    // For much longer than anything idle is kept.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        assert!(known(&mesh, 1).contains("server"));
        e2e::pause();
    }
    passes(&mesh, "client", &direct);
    refused(&mesh, "test", "other", "server:8080");
    // Nobody can say what this is, so it is not passed on.
    refused(&mesh, "test", "client", "10.99.0.1:80");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{}", report.text);

    // A new proxy knows what the old one had asked for.
    let proxy = mesh.proxy("node-1");
    proxy.kill();
    mesh.eventually("another proxy", |mesh| match mesh.proxy_now("node-1") {
        Some(other) if other.pid != proxy.pid => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for target in [&direct, "server:8080", &vip(&mesh, false)] {
        passes(&mesh, "client", target);
    }
    refused(&mesh, "test", "other", "server:8080");

    programs.give_ctrl_back();
    mesh.eventually("what is new is asked for again", |mesh| {
        let outcome = mesh.exec("test", "client", &["curl", "-sS", "-m", "5", "http://crowd-0:80/"]);
        // Nobody listens there: the connection was let out, and found nothing.
        let tried = mesh.agent_logs().contains("crowd-0.test.svc.cluster.local");
        if tried { Ok(()) } else { Err(outcome.to_string()) }
    });
    let (packets, marked) = capture.finish();
    assert_eq!(marked, 0, "of {packets} packets on the nodes");
    counted(&format!(
        "controller gone: {} requests, {} failed; proxy killed meanwhile; {packets} packets, {marked} in the clear",
        report.requests, report.failed
    ));
}
