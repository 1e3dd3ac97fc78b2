//! Agents and controller replaced under live connections: nothing breaks, nothing is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::client::Load;
use e2e::programs::Programs;
use e2e::report::{counted, size};
use e2e::streams::{self, Streams};
use e2e::{Mesh, manifests, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Requests a second beside the connections.
const RATE: u32 = 500;

/// A client on node-1; servers of long connections on either node, and of requests on node-2.
fn mesh(programs: &Programs) -> Mesh {
    let far = manifests::server("far", "test", "node-2", &streams::server(9000), &[9000]);
    let near = manifests::server("near", "test", "node-1", &streams::server(9000), &[9000]);
    let text = manifests::client_and_server("ambient") + &far + &near;
    // Somebody outside the mesh: to and from there nothing is tunnelled.
    let outside = manifests::namespace("outside", "")
        + &manifests::server("plain", "outside", "node-2", &streams::server(9000), &[9000])
        + &manifests::shell("stranger", "outside", "node-1");
    Mesh::start_by(programs.lateen(), &[("app.yaml", &text), ("outside.yaml", &outside)], &[])
}

fn pids(mesh: &Mesh) -> Vec<i32> {
    ["node-1", "node-2"].iter().flat_map(|node| [mesh.redirect(node).pid, mesh.proxy(node).pid]).collect()
}

/// Waits until every connection has said something more.
#[track_caller]
fn go_on(mesh: &Mesh, streams: &mut Streams, count: usize, mut look: impl FnMut(&streams::Seen)) {
    let sent = streams.report().messages;
    mesh.eventually("all connections go on", |_| {
        let seen = streams.report();
        look(&seen);
        assert_eq!(seen.failed, 0, "{:?}", seen.failures);
        if seen.messages > sent + 2 * count as u64 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn upgrades_break_no_connection() {
    let programs = Programs::linked();
    let mesh = mesh(&programs);
    let (count, upgrades) = (size(100, 1000), size(3, 10));
    let every = Duration::from_millis(500);
    let far = format!("[{}]:9000", mesh.address("test", "far", true));
    let plain = format!("{}:9000", mesh.address("outside", "plain", false));
    let targets = ["far:9000", far.as_str(), "near:9000", plain.as_str()];
    let mut tunnelled = Streams::start(&mesh, ("test", "client"), count, every, &targets);
    let incoming =
        Streams::start(&mesh, ("outside", "stranger"), count / 10, every, &["far.test:9000", far.as_str()]);
    let load = Load::start(&mesh, "test", "client", "server:8080", size(RATE / 5, RATE));
    go_on(&mesh, &mut tunnelled, count, |_| {});
    let quiet = tunnelled.report();

    let mut stalls = Vec::new();
    for upgrade in 0..upgrades {
        let before = pids(&mesh);
        let upgraded = run(Command::new(programs.lateen()).args(["upgrade", "--mesh", mesh.name()]));
        assert!(upgraded.ok(), "upgrade {upgrade}: {upgraded}");
        assert_eq!(upgraded.stdout.matches(" replaced ").count(), 3, "{upgraded}");
        mesh.eventually("the old processes have ended", |mesh| {
            let mut left = mesh.processes();
            left.retain(|process| before.contains(&process.pid));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
        let mut slowest: f64 = 0.0;
        let mut one_in_a_hundred: f64 = 0.0;
        go_on(&mesh, &mut tunnelled, count, |seen| {
            slowest = slowest.max(seen.max_ms);
            one_in_a_hundred = one_in_a_hundred.max(seen.p99_ms);
        });
        stalls.push((one_in_a_hundred, slowest));
    }
    let (requests, tunnelled, incoming) = (load.finish(), tunnelled.finish(), incoming.finish());
    assert_eq!(tunnelled.failed, 0, "{:?}", tunnelled.failures);
    assert_eq!(incoming.failed, 0, "{:?}", incoming.failures);
    assert_eq!(requests.failed, 0, "{}", requests.text);
    let most = |of: fn(&(f64, f64)) -> f64| stalls.iter().map(of).fold(0.0, f64::max);
    counted(&format!(
        "{upgrades} upgrades of ctrl and both agents: {} connections, {} messages ({} MB), 0 broken; {} requests, 0 failed, \
         slowest {} ms; slowest answer of a connection during an upgrade: p99 {:.0} ms, most {:.0} ms (before: p99 {:.0} ms)",
        tunnelled.opened + incoming.opened,
        tunnelled.messages + incoming.messages,
        (tunnelled.bytes + incoming.bytes) >> 20,
        requests.requests,
        requests.slowest,
        most(|stall| stall.0),
        most(|stall| stall.1),
        quiet.p99_ms,
    ));
}

/// Puts a script in the place of the agent among these programs.
fn script_for_agent(programs: &Programs, script: &str) -> PathBuf {
    let agent = programs.lateen().with_file_name("node-agent");
    std::fs::remove_file(&agent).expect("a link of its own");
    std::fs::write(&agent, format!("#!/bin/sh\n{script}\n")).expect("the folder takes files");
    std::fs::set_permissions(&agent, PermissionsExt::from_mode(0o755)).expect("the file is ours");
    agent
}

/// Once a new agent has what the old one had it stays, whatever becomes of its proxy: the node is never without one.
#[test]
fn an_agent_without_a_proxy_of_its_own_stays_and_can_be_replaced() {
    let programs = Programs::linked();
    let mesh = mesh(&programs);
    let mut streams =
        Streams::start(&mesh, ("test", "client"), 20, Duration::from_millis(100), &["far:9000"]);
    let (redirect, proxy) = (mesh.redirect("node-1").pid, mesh.proxy("node-1").pid);
    let next = Programs::linked();
    let real = programs.lateen().with_file_name("node-agent");
    script_for_agent(&next, &format!("exec env START_PROXY=false {} \"$@\"", real.display()));
    let upgraded = run(Command::new(next.lateen()).args(["upgrade", "--mesh", mesh.name()]));
    assert_eq!(upgraded.code, 1, "{upgraded}");
    for part in ["node-agent/node-1: the new one has taken over and stays", "upgrade again"] {
        assert!(upgraded.stderr.contains(part), "{upgraded}");
    }
    assert!(!upgraded.stderr.contains("the one before goes on"), "{upgraded}");
    let others = |mesh: &Mesh| {
        let command = |process: &e2e::processes::Process| {
            process.command.contains("redirect ") && process.command.contains("--node node-1 ")
        };
        mesh.processes().into_iter().filter(|process| command(process) && process.pid != redirect).count()
    };
    assert_eq!(others(&mesh), 1, "the new one stays");
    let runs = |mesh: &Mesh, pid| mesh.processes().iter().any(|process| process.pid == pid);
    assert!(runs(&mesh, proxy), "nobody has taken its place");
    // Pods still join, and are served.
    mesh.apply("late.yaml", &manifests::server("late", "test", "node-1", &streams::server(9000), &[9000]));
    mesh.eventually("a pod that comes now answers", |mesh| {
        let ask = "exec 3<>/dev/tcp/late/9000; echo a >&3; read -t 2 -u 3 answer && echo $answer";
        let answer = mesh.exec("test", "client", &["bash", "-c", ask]);
        if answer.ok() { Ok(()) } else { Err(answer.to_string()) }
    });
    go_on(&mesh, &mut streams, 20, |_| {});

    let upgraded = run(Command::new(programs.lateen()).args(["upgrade", "--mesh", mesh.name()]));
    assert!(upgraded.ok(), "{upgraded}");
    mesh.eventually("the old proxy has ended", |mesh| {
        if runs(mesh, proxy) { Err(format!("{:#?}", mesh.processes())) } else { Ok(()) }
    });
    go_on(&mesh, &mut streams, 20, |_| {});
    assert_eq!(streams.finish().failed, 0);
}

/// Somebody ends the proxies and nothing else: others take their places, with everything. Told again while they hand over
/// (a kubelet does, as soon as the new one is ready), they do not let go of what has not had its turn.
#[test]
fn a_proxy_that_is_told_to_end_hands_over() {
    let programs = Programs::linked();
    let mesh = mesh(&programs);
    let count = 300;
    let mut streams = Streams::start(
        &mesh,
        ("test", "client"),
        count,
        Duration::from_millis(500),
        &["far:9000", "near:9000"],
    );
    let load = Load::start(&mesh, "test", "client", "server:8080", 50);
    for node in ["node-1", "node-2", "node-1"] {
        go_on(&mesh, &mut streams, count, |_| {});
        let (redirect, proxy) = (mesh.redirect(node).pid, mesh.proxy(node).pid);
        let end = || kill(Pid::from_raw(proxy), Signal::SIGTERM);
        end().expect("it runs");
        mesh.eventually("another proxy is there alone", |mesh| {
            let all = mesh.processes();
            let ended = all.iter().all(|process| process.pid != proxy);
            if !ended {
                let _ = end();
            }
            let own = all.iter().filter(|process| process.parent == redirect).count();
            if ended && own == 1 { Ok(()) } else { Err(format!("{all:#?}")) }
        });
        go_on(&mesh, &mut streams, count, |_| {});
    }
    let (requests, streams) = (load.finish(), streams.finish());
    assert_eq!(streams.failed, 0, "{:?}", streams.failures);
    assert_eq!(requests.failed, 0, "{}", requests.text);
    counted(&format!(
        "3 proxies told to end: {} connections, {} messages, 0 broken; {} requests, 0 failed, slowest {} ms",
        streams.opened, streams.messages, requests.requests, requests.slowest
    ));
}

#[test]
fn what_does_not_start_replaces_nothing() {
    let programs = Programs::linked();
    let mesh = mesh(&programs);
    let mut streams =
        Streams::start(&mesh, ("test", "client"), 20, Duration::from_millis(100), &["far:9000"]);
    let before = pids(&mesh);
    let next = Programs::linked();
    let agent = script_for_agent(&next, "exit 3");
    let upgrade = || run(Command::new(next.lateen()).args(["upgrade", "--mesh", mesh.name()]));
    let upgraded = upgrade();
    assert_eq!(upgraded.code, 1, "{upgraded}");
    for part in ["node-agent/node-1: the new one has ended (exit status: 3)", "the one before goes on"] {
        assert!(upgraded.stderr.contains(part), "{upgraded}");
    }
    assert_eq!(pids(&mesh), before);

    std::fs::remove_file(&agent).expect("it is still there");
    let upgraded = upgrade();
    assert!(upgraded.code == 1 && upgraded.stderr.contains("node-agent"), "{upgraded}");
    go_on(&mesh, &mut streams, 20, |_| {});
    assert_eq!(streams.finish().failed, 0);
}
