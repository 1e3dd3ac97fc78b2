//! Clients inside pods that run while a test does something to the mesh (`e2e/examples/peer.rs`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::{Mesh, example};

/// A client that says on its stdout what happens, line by line, and ends when its stdin does.
#[derive(Debug)]
pub struct Client {
    child: Child,
    lines: Receiver<(Instant, String)>,
    what: String,
}

impl Client {
    /// Starts `peer ARGUMENTS` in a pod.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start(mesh: &Mesh, namespace: &str, pod: &str, arguments: &[&str]) -> Self {
        Self::start_example("peer", mesh, namespace, pod, arguments)
    }

    /// The same with another program of `e2e/examples`.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start_example(program: &str, mesh: &Mesh, namespace: &str, pod: &str, arguments: &[&str]) -> Self {
        let program = example(program);
        let mut command = vec![program.as_str()];
        command.extend(arguments);
        let what = format!("{arguments:?} in {namespace}/{pod}");
        Self::of(mesh.command(namespace, pod, &command), what)
    }

    /// The same in a pod of a cluster whose image has the program ([`crate::cluster::nodes::Nodes::programs`]).
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start_on(
        cluster: &Cluster,
        program: &str,
        namespace: &str,
        pod: &str,
        arguments: &[&str],
    ) -> Self {
        let mut command = cluster.script("kubectl");
        let program = format!("/bin/{program}");
        command.args(["exec", "-i", "-n", namespace, pod, "--", &program]).args(arguments);
        Self::of(command, format!("{program} {arguments:?} in {namespace}/{pod}"))
    }

    /// Starts what is spoken with by lines.
    fn of(mut command: Command, what: String) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("lateen exec starts");
        let lines = follow(child.stdout.take().expect("stdout is a pipe"));
        Self { child, lines, what }
    }

    /// The same with the capabilities of the pod's node; it must say `ready`.
    ///
    /// # Errors
    /// It says something else: what.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start_privileged(
        program: &str,
        mesh: &Mesh,
        namespace: &str,
        pod: &str,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let program = example(program);
        let mut command = Command::new(crate::lateen());
        command
            .args(["exec", "--mesh", mesh.name(), "--privileged", "-n", namespace, pod, "--", &program])
            .args(arguments);
        let client = Self::of(command, format!("{program} in {namespace}/{pod}"));
        match client.lines.recv_timeout(crate::PATIENCE) {
            Ok((_, line)) if line == "ready" => Ok(client),
            Ok((_, line)) => Err(line),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Says a line to it that it does not answer.
    ///
    /// # Panics
    /// It has ended.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is a pipe");
        // In one piece.
        if let Err(error) = stdin.write_all(format!("{line}\n").as_bytes()) {
            let said: Vec<String> = self.lines.try_iter().map(|(_, line)| line).collect();
            panic!("{}: {error}; it said {said:?}", self.what);
        }
    }

    /// Waits for a line that begins so, and returns it with the moment it was read.
    ///
    /// # Panics
    /// It does not come in time.
    #[track_caller]
    pub fn wait_for(&self, beginning: &str, time: Duration) -> (Instant, String) {
        let deadline = Instant::now() + time;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, line)) if line.starts_with(beginning) => return (at, line),
                Ok((_, line)) => seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: no {beginning:?} within {time:?}; it said {seen:?}", self.what)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{}: ended without {beginning:?}; it said {seen:?}", self.what)
                }
            }
        }
    }

    /// Says a line to it and returns its next.
    ///
    /// # Panics
    /// It does not answer.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("stdin is a pipe");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{}: {error}", self.what));
        match self.lines.recv_timeout(crate::PATIENCE) {
            Ok((_, answer)) => answer,
            Err(error) => panic!("{}: no answer: {error}", self.what),
        }
    }

    /// Ends its stdin and returns its last line.
    ///
    /// # Panics
    /// It said nothing, or does not end.
    #[track_caller]
    pub fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let mut last = None;
        loop {
            match self.lines.recv_timeout(crate::PATIENCE) {
                Ok((_, line)) => last = Some(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: does not end; its last word: {last:?}", self.what)
                }
            }
        }
        last.unwrap_or_else(|| panic!("{}: said nothing", self.what))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Gone already, or of no more use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(stdout: ChildStdout) -> Receiver<(Instant, String)> {
    let (sender, lines) = sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// Steady requests from a pod.
#[derive(Debug)]
pub struct Load(Client);

/// What became of them.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// How many were sent.
    pub requests: u64,
    /// How many were not answered.
    pub failed: u64,
    /// The slowest answer, in milliseconds.
    pub slowest: u64,
    /// Everything, as it was printed.
    pub text: String,
}

impl Load {
    /// Starts requests from a pod, half on kept connections, half on fresh ones, and waits for the first answer.
    ///
    /// # Panics
    /// None is answered.
    #[track_caller]
    pub fn start(mesh: &Mesh, namespace: &str, pod: &str, target: &str, per_second: u32) -> Self {
        let client = Client::start(mesh, namespace, pod, &["rate", target, &per_second.to_string()]);
        client.wait_for("started", crate::PATIENCE);
        Self(client)
    }

    /// Ends the requests and says what became of them.
    ///
    /// # Panics
    /// The client failed.
    #[track_caller]
    pub fn finish(self) -> LoadReport {
        let text = self.0.finish();
        let parsed: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let number = |name: &str| parsed[name].as_u64().unwrap_or_else(|| panic!("no {name} in {text}"));
        LoadReport {
            requests: number("requests"),
            failed: number("failed"),
            slowest: number("slowest"),
            text,
        }
    }
}
