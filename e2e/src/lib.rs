//! End-to-end tests: a real mesh on this machine for each test, by the commands that people type.
//!
//! ```no_run
//! let mesh = e2e::Mesh::start(&[("app.yaml", &e2e::manifests::client_and_server("ambient"))]);
//! let answer = mesh.exec("test", "client", &["curl", "-s", "http://server:8080/"]);
//! assert!(answer.ok(), "{answer}");
//! ```

pub mod manifests;

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
    if let Some(path) = std::env::var_os("LATEEN_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test program has a path");
    let folder = test.parent().and_then(Path::parent).expect("test programs stand in target/*/deps");
    let path = folder.join("lateen");
    assert!(path.exists(), "{} is not there; build it: cargo build --workspace --bins", path.display());
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
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
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
        let mesh = Self { name: fresh_name(), manifests: tempfile::tempdir().expect("a temporary folder") };
        for (file, content) in files {
            mesh.apply(file, content);
        }
        let started = run(Command::new(lateen())
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

    /// What `lateen logs` prints.
    pub fn logs(&self, of: &str) -> String {
        self.lateen(&["logs", of]).stdout
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
    pub fn eventually(&self, what: &str, mut check: impl FnMut(&Self) -> Result<(), String>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match check(self) {
                Ok(()) => return,
                Err(last) if Instant::now() >= deadline => {
                    panic!("{what}: still not after {PATIENCE:?}: {last}\n{}", self.agent_logs())
                }
                Err(_) => pause(),
            }
        }
    }

    /// Waits until a command inside a pod succeeds and its output satisfies a condition.
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
}

/// Between two looks at a condition.
#[allow(clippy::disallowed_methods, reason = "a test of its own thread, polling a condition with a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- ctrl\n{}\n--- agents\n{}", self.logs("ctrl"), self.agent_logs());
        }
        let down = run(Command::new(lateen()).args(["down", "--mesh", &self.name]));
        if !down.ok() && !std::thread::panicking() {
            panic!("lateen down: {down}");
        }
    }
}
