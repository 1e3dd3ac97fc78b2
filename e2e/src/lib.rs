//! End-to-end tests: a real mesh on this machine for each test, by the commands that people type.
//!
//! ```no_run
//! let mesh = e2e::Mesh::start(&[("app.yaml", &e2e::manifests::client_and_server("ambient"))]);
//! let answer = mesh.exec("test", "client", &["curl", "-s", "http://server:8080/"]);
//! assert!(answer.ok(), "{answer}");
//! ```

#![allow(clippy::panic, reason = "a condition that does not hold fails the test that asked")]

pub mod capture;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod costs;
mod failed;
pub mod fidelity;
pub mod left;
pub mod manifests;
pub mod message;
pub mod payloads;
pub mod processes;
pub mod programs;
pub mod pulse;
pub mod raw;
pub mod report;
pub mod scenario;
pub mod shop;
pub mod streams;
pub mod traffic;
pub mod verdicts;
pub mod waypoints;
pub mod wire;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition is waited for unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running mesh; taken down when dropped.
#[derive(Debug)]
pub struct Mesh {
    name: String,
    binary: PathBuf,
    manifests: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Outcome {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }
}

/// The `lateen` that was built with the tests, or the one that `LATEEN_BIN` names.
///
/// # Panics
/// There is none: build it first.
pub fn lateen() -> PathBuf {
    match std::env::var_os("LATEEN_BIN") {
        Some(path) => path.into(),
        None => built("lateen", "cargo build --workspace --bins"),
    }
}

/// A program of `e2e/examples`, to run inside pods.
///
/// # Panics
/// There is none: build it first.
pub fn example(name: &str) -> String {
    built(&format!("examples/{name}"), "cargo build -p e2e --examples").to_string_lossy().into_owned()
}

/// A program beside this test's own.
///
/// # Panics
/// There is none; `how` says what builds it.
pub fn built(relative: &str, how: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test program has a path");
    let folder = test.parent().and_then(Path::parent).expect("test programs stand in target/*/deps");
    let path = folder.join(relative);
    assert!(path.exists(), "{} is not there; build it: {how}", path.display());
    path
}

/// Runs a command to its end.
///
/// # Panics
/// It cannot be started.
pub fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A name that no other mesh of this machine has.
pub fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("e2e-{}-{:03}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Mesh {
    /// Starts a mesh of two nodes from manifests, by file name and content, and waits until it is ready.
    ///
    /// # Panics
    /// It does not start; the text is what `lateen up` said.
    pub fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[])
    }

    /// The same with further arguments of `lateen up`.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_with(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_by(lateen(), files, arguments)
    }

    /// The same by a `lateen` of its own, with the other programs beside it.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_by(binary: PathBuf, files: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_under(binary, files, arguments, &[])
    }

    /// The same with settings of its components as variables of the environment.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_under(
        binary: PathBuf,
        files: &[(&str, &str)],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        failed::remember();
        let manifests = tempfile::tempdir().expect("a temporary folder");
        let mesh = Self { name: fresh_name(), binary, manifests };
        for (file, content) in files {
            mesh.apply(file, content);
        }
        let started = run(Command::new(&mesh.binary)
            .envs(environment.iter().copied())
            .args(["up", "--detach", "--mesh", &mesh.name, "-f"])
            .arg(mesh.manifests.path())
            .args(arguments));
        assert!(started.ok(), "lateen up: {started}");
        mesh
    }

    /// The mesh's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its manifests.
    pub fn folder(&self) -> &Path {
        self.manifests.path()
    }

    /// Writes a manifest; the mesh takes it up by itself.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn apply(&self, file: &str, content: &str) {
        // Whole or not at all, as an editor saves it.
        let temporary = self.manifests.path().join(format!(".{file}.new"));
        std::fs::write(&temporary, content).expect("the temporary folder takes files");
        std::fs::rename(&temporary, self.manifests.path().join(file)).expect("a rename within a folder");
    }

    /// Removes a manifest.
    ///
    /// # Panics
    /// It is not there.
    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.manifests.path().join(file)).expect("the manifest is there");
    }

    /// `lateen ARGUMENTS --mesh THIS`
    pub fn lateen(&self, arguments: &[&str]) -> Outcome {
        run(Command::new(lateen()).args(["--mesh", &self.name]).args(arguments))
    }

    /// A command inside a pod, not yet started.
    pub fn command(&self, namespace: &str, pod: &str, command: &[&str]) -> Command {
        let mut built = Command::new(lateen());
        built.args(["exec", "--mesh", &self.name, "-n", namespace, pod, "--"]).args(command);
        built
    }

    /// Runs a command inside a pod.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Outcome {
        run(&mut self.command(namespace, pod, command))
    }

    /// What `lateen logs` prints of a component.
    pub fn logs(&self, of: &str) -> String {
        self.lateen(&["logs", of]).stdout
    }

    /// What `lateen logs` prints of a pod.
    pub fn pod_logs(&self, namespace: &str, pod: &str) -> String {
        self.lateen(&["logs", "-n", namespace, pod]).stdout
    }

    /// The logs of both nodes' agents.
    pub fn agent_logs(&self) -> String {
        self.logs("node-agent/node-1") + &self.logs("node-agent/node-2")
    }

    /// Waits until something holds, and fails with the last word on it where it never does.
    ///
    /// # Panics
    /// It does not come to hold in time.
    #[track_caller]
    pub fn eventually(&self, what: &str, check: impl FnMut(&Self) -> Result<(), String>) {
        self.within(PATIENCE, what, check);
    }

    /// The same with a deadline of its own; returns how long it took.
    ///
    /// # Panics
    /// It does not come to hold in time.
    #[track_caller]
    pub fn within(
        &self,
        time: Duration,
        what: &str,
        mut check: impl FnMut(&Self) -> Result<(), String>,
    ) -> Duration {
        let begun = Instant::now();
        match until(time, || check(self)) {
            Ok(()) => begun.elapsed(),
            Err(last) => panic!("{what}: still not after {time:?}: {last}"),
        }
    }

    /// Waits until a command inside a pod succeeds and its output satisfies a condition.
    ///
    /// # Panics
    /// It does not in time.
    #[track_caller]
    pub fn eventually_exec(
        &self,
        namespace: &str,
        pod: &str,
        command: &[&str],
        holds: impl Fn(&Outcome) -> bool,
    ) {
        self.eventually(&format!("{command:?} in {namespace}/{pod}"), |mesh| {
            let outcome = mesh.exec(namespace, pod, command);
            if holds(&outcome) { Ok(()) } else { Err(outcome.to_string()) }
        });
    }

    /// Waits until the agents' logs have a line that holds all of these parts.
    ///
    /// # Panics
    /// None comes in time.
    #[track_caller]
    pub fn eventually_logged(&self, parts: &[&str]) {
        self.eventually(&format!("a line of the agents' logs with {parts:?}"), |mesh| {
            let log = mesh.agent_logs();
            if lines(&log, parts).is_empty() { Err(String::from("there is none")) } else { Ok(()) }
        });
    }

    /// The one address of a family that a pod has.
    ///
    /// # Panics
    /// It has none.
    #[track_caller]
    pub fn address(&self, namespace: &str, pod: &str, v6: bool) -> String {
        let told = self.exec(namespace, pod, &["hostname", "-I"]);
        let mut addresses = told.stdout.split_whitespace().filter(|ip| ip.contains(':') == v6);
        addresses.next().unwrap_or_else(|| panic!("no such address of {pod}: {told}")).to_owned()
    }
}

/// A log's lines that hold all of these parts.
pub fn lines<'a>(log: &'a str, parts: &[&str]) -> Vec<&'a str> {
    log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
}

/// Looks again and again until there is what `look` looks for.
///
/// # Errors
/// There is not after so long: what was said of it last.
pub fn until<T>(time: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match look() {
            Err(_) if begun.elapsed() < time => pause(),
            outcome => return outcome,
        }
    }
}

/// Between two looks at a condition.
#[allow(clippy::disallowed_methods, reason = "a test of its own thread, polling a condition with a deadline")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            failed::tell(self);
        }
        let down = run(Command::new(lateen()).args(["down", "--mesh", &self.name]));
        if !down.ok() && !std::thread::panicking() {
            panic!("lateen down: {down}");
        }
    }
}
