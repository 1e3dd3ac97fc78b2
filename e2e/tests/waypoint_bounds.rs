//! Clients of a waypoint that are slow, huge or many: what they cost the others, and what memory they make it hold.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::time::Duration;

use e2e::client::Client;
use e2e::report::{counted, size};
use e2e::waypoints::{Counted, Requests, front, memory, metric, processes, shop};
use e2e::{Mesh, example};

/// Connections and requests a second of who does nothing wrong.
const BYSTANDER: (u32, u32, u32) = (8, 100, 0);
/// What windows may have beyond the least, in MiB.
const WINDOWS: u64 = 48;
/// What offenders may add to the memory of the waypoint, in MiB: that, twice.
const MOST_MEMORY: u64 = 2 * WINDOWS;

fn mesh() -> Mesh {
    Mesh::start(&[("app.yaml", &shop()), ("front.yaml", &front(1, 0))])
}

/// What a bystander on the same node sees for some seconds.
fn bystander(mesh: &Mesh) -> Counted {
    let load = Requests::start(mesh, "bystander", "http1", BYSTANDER);
    let seconds = size(3, 15);
    let begun = std::time::Instant::now();
    mesh.within(Duration::from_secs(60), "time passes under load", |_| {
        if begun.elapsed() >= Duration::from_secs(seconds) { Ok(()) } else { Err(String::new()) }
    });
    let seen = load.finish();
    assert_eq!(seen.failed, 0, "{}", seen.text);
    seen
}

/// Starts what a client should not do, and waits until it does it.
fn offend(mesh: &Mesh, arguments: &[&str]) -> Client {
    let client = Client::start_example("requests", mesh, "test", "other", arguments);
    client.wait_for("open", Duration::from_secs(120));
    client
}

/// Runs one to its end; its last word.
fn run(mesh: &Mesh, arguments: &[&str]) -> String {
    let program = example("requests");
    let told = mesh.exec("test", "other", &[&[program.as_str()], arguments].concat());
    assert!(told.ok(), "{arguments:?}: {told}");
    told.stdout.lines().last().unwrap_or_default().to_owned()
}

/// Resident memory of the waypoint, in MiB.
fn mebibytes(mesh: &Mesh) -> u64 {
    memory(&processes(mesh)) >> 20
}

fn hits(mesh: &Mesh, limit: &str) -> f64 {
    metric(mesh, &["lateen_limit_hits_total", &format!("\"{limit}\"")])
}

/// That a bystander's answers come about as fast as before: on a machine that has others to serve, within a factor and
/// a fifth of a second.
#[track_caller]
fn about_as_fast(what: &str, before: &Counted, now: &Counted) {
    let most = before.p99 * 5 + 200_000;
    assert!(now.p99 <= most, "{what}: p99 {} us, before {} us", now.p99, before.p99);
}

#[test]
fn who_does_not_read_or_write_costs_others_nothing() {
    let mesh = mesh();
    let before = bystander(&mesh);
    let (streams, slow): (u32, u32) = (size(300, 1000), size(100, 1000));
    let quiet = mebibytes(&mesh);
    let stalled = offend(&mesh, &["stall", "server:8081", &streams.to_string()]);
    let slow_ones = offend(&mesh, &["slow", "server:8080", &slow.to_string()]);
    let now = bystander(&mesh);
    let held = mebibytes(&mesh);
    about_as_fast("stalled and slow", &before, &now);
    // Beside what all windows may have together, each has the least of them, and a piece or two of what it asked for: an eighth
    // of a MiB is enough.
    let most = quiet + WINDOWS + u64::from(streams + slow) / 8;
    assert!(
        held <= most,
        "{held} MiB with {streams} stalled streams and {slow} slow connections, {quiet} before"
    );
    assert!(stalled.finish().contains(&format!("{streams}")), "all of them are held");
    drop(slow_ones);
    counted(&format!(
        "{streams} stalled streams, {slow} slow connections: bystander's p99 {} us, before {} us; waypoint {held} MiB, before {quiet} MiB",
        now.p99, before.p99
    ));
}

#[test]
fn large_bodies_pass_in_small_memory() {
    let mesh = mesh();
    let before = bystander(&mesh);
    let quiet = mebibytes(&mesh);
    let bytes: u64 = size(64 << 20, 1 << 30);
    let text = bytes.to_string();
    let mut told = Vec::new();
    for way in ["down", "up"] {
        let program = example("requests");
        let mut moving = mesh.command("test", "other", &[&program, "bulk", way, "server:8080", &text]);
        let moving = moving.stdout(std::process::Stdio::piped()).spawn().expect("lateen exec starts");
        let now = bystander(&mesh);
        let held = mebibytes(&mesh);
        let moved = moving.wait_with_output().expect("it ends");
        let moved = String::from_utf8_lossy(&moved.stdout).trim().to_owned();
        assert!(moved.contains(&format!("\"moved\": {bytes}")), "{way}: {moved}");
        about_as_fast(way, &before, &now);
        assert!(held <= quiet + MOST_MEMORY, "{way}: {held} MiB, {quiet} before");
        told.push(format!("{way} {moved}, waypoint {held} MiB, bystander's p99 {} us", now.p99));
    }
    counted(&format!(
        "{} MiB each way: {}; before {quiet} MiB, p99 {} us",
        bytes >> 20,
        told.join("; "),
        before.p99
    ));
}

#[test]
fn huge_heads_and_many_resets_are_refused_and_counted() {
    let mesh = mesh();
    let before = bystander(&mesh);
    let quiet = mebibytes(&mesh);
    assert_eq!(run(&mesh, &["huge", "server:8080", "30000"]), "200", "within the limit");
    assert_eq!(run(&mesh, &["huge", "server:8080", "200000"]), "431");
    assert!(hits(&mesh, "request_head") >= 1.0, "it is counted");
    let times: u32 = size(2000, 20_000);
    let text = times.to_string();
    let reset = run(&mesh, &["reset", "server:8081", &text]);
    let now = bystander(&mesh);
    about_as_fast("resets", &before, &now);
    let held = mebibytes(&mesh);
    assert!(held <= quiet + MOST_MEMORY, "{held} MiB, {quiet} before");
    counted(&format!(
        "{times} resets ({reset}), heads of 200 kB: bystander's p99 {} us, before {} us; waypoint {held} MiB, before {quiet} MiB",
        now.p99, before.p99
    ));
}
