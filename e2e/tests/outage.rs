//! Parts of the mesh that crash: what goes on, what waits, and that nothing is ever said in the clear.

#![allow(clippy::panic, reason = "a condition that does not hold fails the test")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use e2e::capture::{Capture, watchers};
use e2e::client::{Client, Load};
use e2e::manifests::crowd;
use e2e::programs::Programs;
use e2e::report::{counted, full, size};
use e2e::{Mesh, example, manifests};

/// What is measured here is how long nothing answers: one mesh at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests per second while a part is gone.
const RATE: u32 = 200;

fn mesh(programs: &Programs, extra: &str) -> Mesh {
    let text = manifests::client_and_server("ambient");
    Mesh::start_by(
        programs.lateen(),
        &[("app.yaml", &text), ("watch.yaml", &watchers()), ("extra.yaml", &format!("# more\n{extra}"))],
        &[],
    )
}

/// The sum over both nodes of a counter of their agents.
fn counter(mesh: &Mesh, name: &str, label: &str) -> u64 {
    let of_node = |number: u32| {
        let page = mesh.exec(
            "kube-system",
            &format!("node-agent/node-{number}"),
            &["curl", "-sS", "-m", "10", "http://127.0.0.1:15020/metrics"],
        );
        let series = page.stdout.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    of_node(1) + of_node(2)
}

/// Whether a request passes.
fn passes(mesh: &Mesh, pod: &str, target: &str) -> Result<(), String> {
    let outcome = mesh.exec("test", pod, &[&example("peer"), "probe", target]);
    if outcome.stdout == format!("{target} passed\n") { Ok(()) } else { Err(outcome.to_string()) }
}

/// The capture sees what it is there to see: something said from outside the mesh.
fn try_capture(mesh: &Mesh) {
    let capture = Capture::start(mesh);
    let target = format!("{}:8080", mesh.address("test", "server", false));
    let plain = mesh.exec("kube-system", "watch-1", &[&example("peer"), "probe", &target]);
    assert!(plain.stdout.contains("passed"), "{plain}");
    let (_, marked) = capture.finish();
    assert!(marked > 0, "what is said in plain is not seen, so this capture proves nothing");
}

const BYTES: &str = "istio_xds_message_bytes_total";
const ADDRESS: &str = "istio.workload.Address";

#[test]
fn without_its_controller_the_mesh_goes_on_and_lets_nobody_in() {
    let _alone = alone();
    let programs = Programs::linked();
    let workloads = size(100, 1000);
    let mesh = mesh(&programs, &crowd(workloads));
    try_capture(&mesh);
    let capture = Capture::start(&mesh);
    let load = Load::start(&mesh, "test", "client", "server:8080", RATE);
    let loaded = counter(&mesh, BYTES, ADDRESS);
    programs.take_ctrl(&mesh);

    // Pods that start now are known to nobody: what comes from them and what goes to them is refused.
    let late = manifests::shell("late", "test", "node-1")
        + &manifests::server("late-server", "test", "node-2", "lateen, echo, --http, \"8080\"", &[8080]);
    mesh.apply("late.yaml", &late);
    let server = format!("{}:8080", mesh.address("test", "server", false));
    mesh.eventually("the new pods run", |mesh| {
        let here = mesh.exec("test", "late", &["true"]);
        let there = mesh.exec("test", "late-server", &["true"]);
        if here.ok() && there.ok() { Ok(()) } else { Err(format!("{here}\n{there}")) }
    });
    let late_server = format!("{}:8080", mesh.address("test", "late-server", false));
    // Its service's address is one of the mesh's own as well: the node would balance it to the pod, in plain.
    let late_service = "late-server:8080".to_owned();
    let all =
        [("late", &server), ("client", &late_server), ("late", &late_server), ("client", &late_service)];
    thread::scope(|scope| {
        for (pod, target) in all {
            let mesh = &mesh;
            scope.spawn(move || {
                let refused = passes(mesh, pod, target).expect_err("an unknown pod is not passed");
                assert!(refused.contains("refused: "), "{pod} to {target}: {refused}");
            });
        }
    });
    passes(&mesh, "client", &server).unwrap_or_else(|what| panic!("what was known goes on: {what}"));

    programs.give_ctrl_back();
    for (pod, target) in all {
        mesh.eventually(&format!("{pod} to {target}"), |mesh| passes(mesh, pod, target));
    }
    let report = load.finish();
    assert_eq!(report.failed, 0, "{}", report.text);
    let (packets, marked) = capture.finish();
    assert_eq!(marked, 0, "of {packets} packets on the nodes");

    let resent = counter(&mesh, BYTES, ADDRESS) - loaded;
    // Two pods and a service are new; each is sent to both nodes a few times as it becomes ready.
    assert!(resent < 20_000.min(loaded / 2), "{resent} bytes after the outage, {loaded} at the start");
    counted(&format!(
        "controller gone: {} requests, {} failed, slowest {} ms; {workloads} further workloads; {loaded} bytes of \
         workloads at first, {resent} after the outage; {packets} packets, {marked} in the clear",
        report.requests, report.failed, report.slowest
    ));
}

/// Kills the proxy of a node under fresh connections; how long none was answered.
fn kill_proxy(mesh: &Mesh, node: &str) -> u64 {
    let client = Client::start(mesh, "test", "client", &["gap", "server:8080"]);
    client.wait_for("started", e2e::PATIENCE);
    let proxy = mesh.proxy(node);
    proxy.kill();
    mesh.eventually("another proxy", |mesh| match mesh.proxy_now(node) {
        Some(other) if other.pid != proxy.pid => Ok(()),
        other => Err(format!("{other:?}")),
    });
    mesh.eventually("it serves", |mesh| passes(mesh, "client", "server:8080"));
    let text = client.finish();
    let report: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    // One that ends as soon as it has started is a program that cannot run; it is not replaced at once.
    #[allow(
        clippy::disallowed_methods,
        reason = "the process must have run that long, whatever its condition"
    )]
    thread::sleep(Duration::from_secs(1));
    // A connection that was under way on each thread may be lost at each end.
    assert!(report["failed"].as_u64() <= Some(8), "{text}");
    report["longest"].as_u64().unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_killed_proxy_is_back_at_once_also_without_a_controller() {
    let _alone = alone();
    let programs = Programs::linked();
    let workloads = size(100, 1000);
    let mesh = mesh(&programs, &crowd(workloads));
    let capture = Capture::start(&mesh);
    let rounds = size(2, 5);
    let mut gaps = Vec::new();
    for ctrl in [true, false] {
        if !ctrl {
            programs.take_ctrl(&mesh);
        }
        for round in 0..rounds {
            gaps.push(kill_proxy(&mesh, if round % 2 == 0 { "node-1" } else { "node-2" }));
        }
    }
    let (packets, marked) = capture.finish();
    assert_eq!(marked, 0, "of {packets} packets on the nodes");
    gaps.sort_unstable();
    counted(&format!(
        "proxy killed {} times, half of them without a controller, {workloads} further workloads: no answer for {gaps:?} ms; \
         {packets} packets, {marked} in the clear",
        gaps.len()
    ));
    // The machine is shared where this is run in its short form.
    let slowest = gaps[gaps.len() - 1];
    assert!(slowest <= if full() { 200 } else { 1000 }, "{gaps:?}");
}
