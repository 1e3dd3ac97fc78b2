//! Meshes for tests: started by the real command, as whoever runs the test and, if that is root, as an ordinary user
//! too; taken down whatever happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An ordinary user that no machine's passwd names.
const ORDINARY: u32 = 54_321;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// As whom `lateen` is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Me,
    Ordinary,
}

impl Caller {
    /// Everybody this test can be: a root has an ordinary user beside it.
    pub(crate) fn all() -> Vec<Caller> {
        if nix::unistd::geteuid().is_root() { vec![Caller::Me, Caller::Ordinary] } else { vec![Caller::Me] }
    }

    pub(crate) fn is_root(self) -> bool {
        self == Caller::Me && nix::unistd::geteuid().is_root()
    }

    fn uid(self) -> u32 {
        if self == Caller::Ordinary { ORDINARY } else { nix::unistd::geteuid().as_raw() }
    }

    /// Where this caller's meshes lie.
    fn base(self) -> PathBuf {
        match self.uid() {
            0 => PathBuf::from("/run/lateen"),
            uid => PathBuf::from(format!("/tmp/lateen-{uid}")),
        }
    }
}

/// A mesh, perhaps running.
pub(crate) struct Mesh {
    pub(crate) caller: Caller,
    pub(crate) name: String,
    folder: tempfile::TempDir,
}

impl Mesh {
    /// A mesh of a name of its own, from `manifests`.
    pub(crate) fn new(caller: Caller, manifests: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().expect("temporary folder");
        let everybody: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).expect("permissions");
        let mesh = Self { caller, name: format!("t{}-{number}", std::process::id()), folder };
        mesh.write("mesh.yaml", manifests);
        mesh
    }

    /// Started, with everything ready.
    pub(crate) fn up(caller: Caller, manifests: &str) -> Self {
        let mesh = Self::new(caller, manifests);
        let output = mesh.run_up(&["--detach"]);
        assert!(output.status.success(), "{caller:?}: {}\n{}", text(&output.stderr), mesh.log());
        mesh
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).expect("manifest");
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.caller.base().join(&self.name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.state().join("logs/mesh.log")).unwrap_or_default()
    }

    /// `lateen --mesh NAME …`, without agents.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
        command.env("LATEEN_NO_AGENT", "1").env_remove("XDG_RUNTIME_DIR").env_remove("LATEEN_MESH");
        command.arg("--mesh").arg(&self.name).args(args).stdin(Stdio::null());
        if self.caller == Caller::Ordinary {
            command.uid(ORDINARY).gid(ORDINARY).current_dir("/");
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("lateen runs")
    }

    pub(crate) fn run_up(&self, args: &[&str]) -> Output {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let mut all = vec!["up", "-f", &folder, "--timeout", "30"];
        all.extend(args);
        self.run(&all)
    }

    /// `lateen up` in front of us.
    pub(crate) fn spawn_up(&self) -> Child {
        let folder = self.folder.path().to_string_lossy().into_owned();
        self.command(&["up", "-f", &folder])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lateen starts")
    }

    /// What a shell command prints inside a pod; it must succeed.
    pub(crate) fn shell(&self, pod: &str, script: &str) -> String {
        let output = self.run(&["exec", pod, "--", "sh", "-c", script]);
        assert!(output.status.success(), "{:?} {script}: {}", self.caller, text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn exit_code(&self, args: &[&str]) -> i32 {
        self.run(args).status.code().expect("an exit code")
    }

    /// Processes of this mesh, known by its folder in their arguments.
    pub(crate) fn processes(&self) -> Vec<String> {
        let state = self.state().to_string_lossy().into_owned();
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let command_line = |path: PathBuf| {
            let line = fs::read_to_string(path.join("cmdline")).ok()?;
            let below = format!("{state}/");
            line.split('\0').any(|word| word == state || word.starts_with(&below)).then_some(line)
        };
        entries.filter_map(|entry| command_line(entry.path())).collect()
    }

    /// Waits until nothing of the mesh is left: no folder, no process.
    pub(crate) fn assert_gone(&self, what: &str) {
        let gone = || !self.state().exists() && self.processes().is_empty();
        wait_for(&format!("{what}: {:?} to be gone", self.state()), gone);
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let output = self.run(&["down"]);
        if !std::thread::panicking() {
            assert!(output.status.success(), "down: {}", text(&output.stderr));
            self.assert_gone("down");
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for a condition; a test that has to wait longer than [`PATIENCE`] fails.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        nix::poll::poll(&mut [], 20u16).expect("poll");
    }
}

/// Reads lines of a child until one contains `part`, or until it ends.
pub(crate) fn read_until(child: &mut Child, part: &str) -> Vec<String> {
    let stdout = child.stdout.take().expect("piped");
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("text");
        let found = line.contains(part);
        lines.push(line);
        if found {
            break;
        }
    }
    lines
}

pub(crate) fn signal(process: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process).expect("a process number"));
    nix::sys::signal::kill(pid, signal).expect("signal");
}
