//! Nothing stays behind, however a mesh ends; and pods that run join and leave it without losing a connection.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use e2e::client::{Client, Load};
use e2e::left::{Before, GONE, Parts};
use e2e::processes::base;
use e2e::report::{counted, size};
use e2e::{Mesh, lateen, manifests, run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A mesh in front of us.
struct Foreground {
    name: String,
    folder: tempfile::TempDir,
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    before: Before,
}

impl Foreground {
    fn up() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("app.yaml"), manifests::client_and_server("ambient"))
            .expect("written");
        let name = e2e::fresh_name();
        let before = Before::of(&name);
        let mut child = Command::new(lateen())
            .args(["up", "--mesh", &name, "-f"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("lateen starts");
        let said = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { name, folder, child, said, before }
    }

    /// Reads what it says until it says this; with nothing to say, until its folder is there.
    fn until(&mut self, word: &str) {
        if word.is_empty() {
            wait("the state folder", || base().join(&self.name).join("mesh.json").exists());
            return;
        }
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let read = self.said.read_line(&mut line).expect("it says something");
            assert!(read > 0, "it ended without saying {word:?}");
        }
    }

    fn parts(&self) -> Parts {
        Parts::of(self.child.id(), &self.name)
    }

    /// Ends `lateen up` by a signal; its exit code.
    fn signal(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a process number")), signal)
            .expect("it runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // Gone already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = run(Command::new(lateen()).args(["down", "--mesh", &self.name]));
        let _ = &self.folder;
    }
}

#[track_caller]
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let held = until(GONE, || if holds() { Ok(()) } else { Err(String::new()) });
    assert!(held.is_ok(), "waited {GONE:?} for {what}");
}

#[test]
fn ctrl_c_at_any_moment_leaves_nothing() {
    let moments = ["", "ctrl ", "node-agent/node-1 ", "pod test/", "is up"];
    let rounds = size(1, 5);
    for _ in 0..rounds {
        for (moment, signal) in moments.iter().zip([Signal::SIGINT, Signal::SIGTERM].iter().cycle()) {
            let mut mesh = Foreground::up();
            mesh.until(moment);
            let parts = mesh.parts();
            assert_eq!(mesh.signal(*signal), Some(128 + *signal as i32), "{signal} at {moment:?}");
            mesh.before.assert_gone(&format!("{signal} at {moment:?}"), &parts);
        }
    }
    counted(&format!("ended {} times, at {} moments", rounds * moments.len(), moments.len()));
}

#[test]
fn a_kill_leaves_nothing_either() {
    let mut mesh = Foreground::up();
    mesh.until("is up");
    let parts = mesh.parts();
    assert!(
        parts.processes.iter().any(|process| process.command.ends_with("node-agent proxy")),
        "{parts:#?}"
    );
    mesh.signal(Signal::SIGKILL);
    mesh.before.assert_gone("lateen up was killed", &parts);

    // Whoever holds the mesh from outside is killed: its folder is all that can be left, and `down` removes it.
    let mut mesh = Foreground::up();
    mesh.until("is up");
    let parts = mesh.parts();
    let keeper =
        parts.processes.iter().find(|process| process.command.contains("__keeper")).expect("a keeper");
    keeper.kill();
    mesh.child.wait().expect("lateen up ends with it");
    let down = || run(Command::new(lateen()).args(["down", "--mesh", &mesh.name]));
    let (first, second) = (down(), down());
    assert!(first.ok() && second.ok(), "down can be repeated: {first} {second}");
    mesh.before.assert_gone("the keeper was killed", &parts);
    counted(&format!(
        "2 meshes killed, {} processes and {} namespaces each",
        parts.processes.len(),
        parts.namespaces.len()
    ));
}

/// Client and server with the namespace's label as given.
fn app(mode: &str) -> String {
    manifests::client_and_server(mode)
}

#[test]
fn running_pods_join_and_leave_by_a_label() {
    let mesh = Mesh::start(&[("app.yaml", &app("none"))]);
    let load = Load::start(&mesh, "test", "client", "server:8080", 50);
    let mut held = Vec::new();
    let rounds = size(2, 20);
    for round in 0..rounds {
        for (mode, tunnels) in [("ambient", true), ("none", false)] {
            // One live transfer for each change that is to come.
            let client = Client::start(&mesh, "test", "client", &["hold", "server:9000"]);
            client.wait_for("open", e2e::PATIENCE);
            held.push(client);
            mesh.apply("app.yaml", &app(mode));
            let annotation = "ambient.istio.io/redirection";
            for pod in ["client", "server"] {
                mesh.eventually(&format!("round {round}: {pod} {mode}"), |mesh| {
                    let shown = mesh.lateen(&["get", "pod", pod, "-n", "test", "-o", "yaml"]).stdout;
                    let captured =
                        shown.lines().any(|line| line.contains(annotation) && line.contains("enabled"));
                    if captured == tunnels { Ok(()) } else { Err(shown) }
                });
            }
            mesh.eventually(&format!("round {round}: new connections, {mode}"), |mesh| {
                let before =
                    e2e::lines(&mesh.logs("node-agent/node-2"), &["direction=\"inbound\"", "dst.hbone_addr"])
                        .len();
                let answer = mesh.exec("test", "client", &["curl", "-sS", "-m", "5", "http://server:8080/"]);
                assert!(answer.ok(), "a new connection while the label changes: {answer}");
                // Requests of the load are counted too, which does no harm: they go the same way.
                let after =
                    e2e::lines(&mesh.logs("node-agent/node-2"), &["direction=\"inbound\"", "dst.hbone_addr"])
                        .len();
                if (after > before) == tunnels {
                    Ok(())
                } else {
                    Err(format!("{before} then {after} tunnelled"))
                }
            });
        }
    }
    for client in held.drain(..) {
        let last = client.finish();
        assert!(last.starts_with("whole"), "a live transfer was lost: {last}");
    }
    let report = load.finish();
    assert_eq!(report.failed, 0, "{}", report.text);
    counted(&format!(
        "{rounds} times into the mesh and out of it: {} live transfers whole, {} requests of which {} failed, slowest {} ms",
        rounds * 2,
        report.requests,
        report.failed,
        report.slowest
    ));
}
