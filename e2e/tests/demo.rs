//! The demo: it shows what it says, and whenever it is ended, nothing of it stays behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::left::{Before, Parts};
use e2e::report::{counted, full, size};
use e2e::{Outcome, lateen, pause, run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The demo as a terminal starts it: no signal is ignored. Its files go to `temporary`.
fn command(temporary: &Path) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,HUP,TERM", "deploy/demo/demo"]).current_dir(root()).process_group(0);
    command.env("TMPDIR", temporary).env_remove("ONCE").stdin(Stdio::null());
    command.env("REQUESTS", size("1000", "10000"));
    command
}

/// With the commands that were built with this test, or having them built, which is a moment of its own.
fn with_commands(command: &mut Command, build: bool) -> &mut Command {
    if build {
        command.env("PROFILE", "debug").env_remove("LATEEN_BIN_DIR")
    } else {
        command.env("LATEEN_BIN_DIR", lateen().parent().expect("a file stands in a folder"))
    }
}

/// Whether this user could build: an ordinary user of the gate has no toolchain.
fn can_build() -> bool {
    // The commands of another build are not the ones to be tried.
    let ours = std::env::var_os("LATEEN_BIN").is_none() && std::env::var_os("CARGO_TARGET_DIR").is_none();
    let cargo = Command::new("cargo").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ours && cargo.is_ok_and(|status| status.success())
}

/// A demo that runs.
struct Demo {
    child: Child,
    said: BufReader<ChildStdout>,
    text: String,
    mesh: String,
    temporary: tempfile::TempDir,
    before: Before,
}

impl Demo {
    fn start(build: bool) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let mut command = command(temporary.path());
        let command = with_commands(&mut command, build);
        // Its mesh is called by its process number, which is not known yet; nothing is called so.
        let before = Before::of("demo-0").and_in(temporary.path());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the demo starts");
        let said = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mesh = format!("demo-{}", child.id());
        Self { before: before.named(&mesh), child, said, text: String::new(), mesh, temporary }
    }

    /// Reads what it says until it says this.
    fn until(&mut self, word: &str) {
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).expect("it says something");
            assert!(read > 0, "it ended without saying {word:?}:\n{}", self.text);
            self.text.push_str(&line);
            if line.contains(word) {
                return;
            }
        }
    }

    /// Ends it as a terminal does, by a signal to all that is in front; impatiently, if told so. Its exit code.
    fn signal(&mut self, signal: Signal, again_and_again: bool) -> Option<i32> {
        let group = Pid::from_raw(-i32::try_from(self.child.id()).expect("a process number"));
        kill(group, signal).expect("it runs");
        let ended = until(e2e::left::GONE, || {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                // Within its first moments the shell has made nothing, and a signal just ends it.
                return Ok(status.code().or_else(|| status.signal().map(|number| 128 + number)));
            }
            if again_and_again {
                // It may have ended meanwhile.
                let _ = kill(group, signal);
            }
            Err(String::new())
        });
        assert!(ended.is_ok(), "it does not end:\n{}", self.text);
        ended.ok().flatten()
    }

    /// Ends it at this moment, and looks for what is left.
    fn end(mut self, moment: &str, signal: Signal, again_and_again: bool) {
        let parts = Parts::of(self.child.id(), &self.mesh);
        let what =
            format!("{signal} at {moment:?}{}", if again_and_again { ", again and again" } else { "" });
        let code = self.signal(signal, again_and_again);
        assert_eq!(code, Some(128 + signal as i32), "{what}:\n{}", self.text);
        self.before.assert_gone(&what, &parts);
        // Those of its group that nobody has waited for have ended all the same: they have no command line.
        let group = i32::try_from(self.child.id()).expect("a process number");
        let gone = until(e2e::left::GONE, || {
            let all = e2e::processes::all().into_iter();
            let left: Vec<_> =
                all.filter(|process| process.group == group && !process.command.is_empty()).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
        assert_eq!(gone, Ok(()), "{what}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Gone already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = run(Command::new(lateen()).args(["down", "--mesh", &self.mesh]));
        let _ = &self.temporary;
    }
}

/// What it says, from its beginning to its end.
const MOMENTS: [&str; 16] = [
    "Starting a mesh",
    "ctrl ",
    "pod bookshop/",
    "Who is there",
    "A customer opens the shop",
    "Who called whom",
    "What crosses the link",
    "the customer sends 32 random bytes",
    "not enrolled: the bytes",
    "A policy, and what it changes",
    "Prometheus, outside the mesh",
    "A waypoint in front of reviews",
    "A canary",
    "Retries over ratings",
    "A policy by method and path",
    "The mesh stays up",
];

#[test]
fn ended_at_any_moment_it_leaves_nothing() {
    let begun = Instant::now();
    let mut ended = 0;
    let mut signals =
        [Signal::SIGINT, Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].iter().cycle();
    let mut end = |demo: Demo, moment: &str| {
        ended += 1;
        demo.end(moment, *signals.next().expect("a cycle has no end"), ended % 3 == 0);
    };
    if can_build() {
        let mut demo = Demo::start(true);
        demo.until("Building");
        end(demo, "Building");
    }
    // In the short form every other one: each costs the way to it.
    for moment in MOMENTS.iter().skip(1).step_by(if full() { 1 } else { 2 }) {
        let mut demo = Demo::start(false);
        demo.until(moment);
        end(demo, moment);
    }
    if full() {
        // And at moments that nobody has thought of.
        for step in 0..40 {
            let demo = Demo::start(false);
            let moment = Instant::now() + Duration::from_millis(20 + step * 210);
            while Instant::now() < moment {
                pause();
            }
            end(demo, &format!("after {} ms", 20 + step * 210));
        }
    }
    counted(&format!("the demo ended at {ended} moments, in {:.0?}", begun.elapsed()));
}

#[test]
fn once_through_all_of_it_holds() {
    let mut demo = Demo::start(false);
    demo.until("Who is there");
    let parts = Parts::of(demo.child.id(), &demo.mesh);
    // It is ended by the test above in all other cases; here by itself.
    demo.until("The mesh stays up");
    assert!(!demo.text.contains('✘'), "{}", demo.text);
    assert!(parts.processes.len() > 10, "{parts:#?}");
    demo.end("all of it held", Signal::SIGINT, false);

    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut command = command(temporary.path());
    let told = run(with_commands(&mut command, false).env("ONCE", "1"));
    assert_eq!(told.code, 0, "{told}");
    let held = told.stdout.matches('✔').count();
    assert!(held >= 25 && !told.stdout.contains('✘'), "{told}");
    let left = std::fs::read_dir(temporary.path()).expect("listed").count();
    assert_eq!(left, 0, "files are left");
    counted(&format!("{held} things shown by the demo held"));
}

#[test]
fn what_is_missing_is_named_with_the_way_to_get_it() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    // A machine with little on it: only what the script itself is made of.
    let tools = tempfile::tempdir().expect("a temporary folder");
    for tool in ["bash", "dirname", "mkdir", "rm", "id", "env"] {
        let found = run(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
        std::os::unix::fs::symlink(found.stdout.trim(), tools.path().join(tool)).expect("a link");
    }
    let on_it = |with: &dyn Fn(&mut Command)| -> Outcome {
        let mut command = Command::new("env");
        command.args(["bash", "deploy/demo/demo"]).current_dir(root());
        command.env("TMPDIR", temporary.path()).env("PATH", tools.path()).env_remove("LATEEN_BIN_DIR");
        with(&mut command);
        run(&mut command)
    };
    let told = on_it(&|command| {
        with_commands(command, false);
    });
    assert_eq!(told.code, 77, "{told}");
    for part in ["lacks: ", "curl", "sudo apt-get install", "curl\n"] {
        assert!(told.stdout.contains(part), "no {part:?} in {told}");
    }
    let told = on_it(&|_| ());
    assert_eq!(told.code, 77, "{told}");
    for part in ["cargo", "https://sh.rustup.rs", "sudo apt-get install", "gcc"] {
        assert!(told.stdout.contains(part), "no {part:?} in {told}");
    }
    let told = on_it(&|command| {
        command.env("PATH", format!("{}:/usr/bin:/bin", tools.path().display()));
        command.env("LATEEN_BIN_DIR", "/nowhere");
    });
    assert!(told.code == 1 && told.stderr.contains("/nowhere/lateen"), "{told}");
    assert_eq!(std::fs::read_dir(temporary.path()).expect("listed").count(), 0, "files are left");
    counted("3 machines that lack something");
}
