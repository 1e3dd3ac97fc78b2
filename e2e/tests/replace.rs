//! Waypoints replaced, ended and crashed under requests: whoever is replaced in order fails nobody, and a crash fails
//! what it was doing at that moment.

use std::process::Command;
use std::time::Duration;

use e2e::programs::Programs;
use e2e::report::{counted, size};
use e2e::waypoints::{Counted, Requests, front, metric, pods, processes, replaced, shop};
use e2e::{Mesh, run};
use nix::sys::signal::Signal;

/// Connections, requests a second, and milliseconds of each tenth request: shorter than a waypoint takes to drain.
const LOAD: (u32, u32, u32) = (8, 60, 2000);
const PROTOCOLS: [&str; 3] = ["http1", "http2", "grpc"];

fn loads(mesh: &Mesh, pod: &str) -> Vec<Requests> {
    PROTOCOLS.iter().map(|protocol| Requests::start(mesh, pod, protocol, LOAD)).collect()
}

/// Ends the loads; what became of them, by protocol.
fn ended(loads: Vec<Requests>) -> Vec<(&'static str, Counted)> {
    PROTOCOLS.into_iter().zip(loads.into_iter().map(Requests::finish)).collect()
}

/// That nothing has failed, and how much it was.
#[track_caller]
fn none_failed(loads: Vec<Requests>) -> String {
    let all = ended(loads);
    let failed: u64 = all.iter().map(|(_, counted)| counted.failed).sum();
    assert_eq!(failed, 0, "{all:#?}");
    let told = all.iter().map(|(protocol, counted)| {
        assert!(counted.requests > 0, "{protocol}");
        format!("{protocol} {} requests, p99 {} ms", counted.requests, counted.p99 / 1000)
    });
    told.collect::<Vec<_>>().join(", ")
}

#[test]
fn replacing_a_waypoint_fails_no_request() {
    let mesh = Mesh::start(&[("app.yaml", &shop()), ("front.yaml", &front(1, 0))]);
    let loads = loads(&mesh, "client");
    let times = size(3, 100);
    let mut before = pods(&mesh).expect("pods");
    for turn in 1..=times {
        mesh.apply("front.yaml", &front(1, turn));
        before = replaced(&mesh, 1, &before);
    }
    let told = none_failed(loads);
    counted(&format!("{times} replacements of a waypoint: {told}, 0 failed"));
}

#[test]
fn an_upgrade_replaces_waypoints_too_and_keeps_them_where_it_fails() {
    let programs = Programs::linked();
    let files = [("app.yaml", &*shop()), ("front.yaml", &*front(2, 0))];
    let mesh = Mesh::start_by(programs.lateen(), &files, &[]);
    let loads = loads(&mesh, "client");
    let before = pods(&mesh).expect("pods");
    let next = Programs::linked();
    let upgraded = run(Command::new(next.lateen()).args(["upgrade", "--mesh", mesh.name()]));
    assert!(upgraded.ok(), "{upgraded}");
    assert!(upgraded.stdout.contains("waypoint/test/front"), "{upgraded}");
    let now = replaced(&mesh, 2, &before);
    let folder = next.lateen().with_file_name("waypoint").to_string_lossy().into_owned();
    let of_next = processes(&mesh).iter().filter(|process| process.command == folder).count();
    assert_eq!(of_next, 2, "they run the program of the upgrade: {:?}", processes(&mesh));

    std::fs::remove_file(programs.lateen().with_file_name("waypoint")).expect("a link of its own");
    let upgraded = run(Command::new(programs.lateen()).args(["upgrade", "--mesh", mesh.name()]));
    assert!(upgraded.code == 1 && upgraded.stderr.contains("waypoint"), "{upgraded}");
    assert_eq!(pods(&mesh).expect("pods"), now, "what serves goes on");
    counted(&format!("an upgrade of ctrl, agents and two replicas: {}, 0 failed", none_failed(loads)));
}

/// The only replica, told to end: it is away for a moment, and who comes meanwhile waits.
#[test]
fn a_waypoint_that_is_told_to_end_fails_no_request() {
    let mesh = Mesh::start(&[("app.yaml", &shop()), ("front.yaml", &front(1, 0))]);
    let loads = loads(&mesh, "client");
    let old = processes(&mesh);
    old.iter().for_each(|process| process.signal(Signal::SIGTERM));
    mesh.within(Duration::from_secs(40), "another process is ready", |mesh| {
        let now = processes(mesh);
        let ready = pods(mesh)?.values().all(|ready| *ready);
        let others = !now.is_empty() && now.iter().all(|process| old.iter().all(|o| o.pid != process.pid));
        if others && ready { Ok(()) } else { Err(format!("{now:?}, ready: {ready}")) }
    });
    counted(&format!("the only replica of a waypoint told to end: {}, 0 failed", none_failed(loads)));
}

#[test]
fn a_replica_that_crashes_fails_what_it_was_doing_and_no_more() {
    let mesh = Mesh::start(&[("app.yaml", &shop()), ("front.yaml", &front(3, 0))]);
    // Each agent spreads over all of them.
    for pod in ["client", "other"] {
        loads(&mesh, pod).into_iter().for_each(|load| drop(load.finish()));
    }
    let asked = pods(&mesh).expect("pods");
    assert_eq!(asked.len(), 3, "{asked:?}");
    let during = loads(&mesh, "client");
    let crashes = size(2, 6);
    for crash in 0..crashes {
        let victim = processes(&mesh).into_iter().nth(crash % 3).expect("three replicas");
        victim.kill();
        // Who asks from now on is not told of it.
        let after = loads(&mesh, "other");
        mesh.within(Duration::from_secs(40), "all three are ready", |mesh| {
            let ready = pods(mesh)?.values().filter(|ready| **ready).count();
            let gateway = mesh.lateen(&["get", "gateways", "-n", "test"]).stdout;
            assert!(gateway.contains("True"), "two are ready: {gateway}");
            if ready == 3 && processes(mesh).len() == 3 { Ok(()) } else { Err(format!("{ready}")) }
        });
        none_failed(after);
    }
    let all = ended(during);
    let failed: u64 = all.iter().map(|(_, counted)| counted.failed).sum();
    let requests: u64 = all.iter().map(|(_, counted)| counted.requests).sum();
    // What was under way at one of three: of 24 connections and some 12 long requests.
    let most = u64::try_from(crashes).expect("few") * 36;
    assert!(failed <= most, "{failed} of {requests}: {all:#?}");
    assert!(metric(&mesh, &["istio_requests_total"]) > 0.0);
    counted(&format!(
        "{crashes} crashes of one of three replicas: {failed} of {requests} requests failed, of those begun afterwards none"
    ));
}

/// Nobody else is there: who comes while it is started again waits for it.
#[test]
fn the_only_replica_is_waited_for_after_a_crash() {
    let mesh = Mesh::start(&[("app.yaml", &shop()), ("front.yaml", &front(1, 0))]);
    let old = processes(&mesh);
    old.iter().for_each(|process| process.kill());
    let after = loads(&mesh, "client");
    mesh.eventually("another is ready", |mesh| {
        let ready = pods(mesh)?.values().all(|ready| *ready);
        let now = processes(mesh);
        let others = !now.is_empty() && now.iter().all(|process| old.iter().all(|o| o.pid != process.pid));
        if ready && others { Ok(()) } else { Err(format!("{now:?}")) }
    });
    counted(&format!("after a crash of the only replica: {}, 0 failed", none_failed(after)));
}
