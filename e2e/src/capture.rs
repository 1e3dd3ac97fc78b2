//! Looking at what crosses the links of a node while a test goes on (`lateen capture`), for the one thing that must
//! never be there: what an application of the mesh said, in the clear.

use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Mesh, manifests};

/// What the clients of these tests say in every request (`e2e/examples/peer.rs`).
pub const MARKER: &str = "said-in-the-clear";

/// A capture on both nodes.
#[derive(Debug)]
pub struct Capture([Option<Child>; 2]);

/// Pods in the nodes' own networks, from which they can be looked at; they are no part of the mesh.
pub fn watchers() -> String {
    [1, 2]
        .map(|number| {
            let pod = manifests::shell(&format!("watch-{number}"), "kube-system", &format!("node-{number}"));
            pod.replace("spec:\n", "spec:\n  hostNetwork: true\n")
        })
        .concat()
}

impl Capture {
    /// Starts to look. The mesh needs [`watchers`].
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(mesh: &Mesh) -> Self {
        let marker: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
        Self([1, 2].map(|number| {
            let mut command = std::process::Command::new(crate::lateen());
            command.args(["exec", "--mesh", mesh.name(), "--privileged", "-n", "kube-system"]);
            command.args([&format!("watch-{number}"), "--", "lateen", "capture", "--seconds", "86400"]);
            let mut child = command
                .args(["--marker", &marker])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("lateen exec starts");
            let stderr = child.stderr.as_mut().expect("stderr is a pipe");
            // It says so when it looks.
            std::io::Read::read_exact(stderr, &mut [0]).expect("the capture begins");
            Some(child)
        }))
    }

    /// Ends the looking: how many packets were seen, and how many of them had the marker in them.
    ///
    /// # Panics
    /// The capture failed.
    pub fn finish(mut self) -> (u64, u64) {
        let mut sums = (0, 0);
        for child in self.0.iter_mut().filter_map(Option::take) {
            let pid = i32::try_from(child.id()).expect("a process number");
            kill(Pid::from_raw(pid), Signal::SIGINT).expect("the capture still runs");
            let output = child.wait_with_output().expect("the capture ends");
            let told = String::from_utf8_lossy(&output.stdout);
            let seen: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|error| {
                panic!("{error}: {told} {}", String::from_utf8_lossy(&output.stderr))
            });
            if let Some(sightings) = seen.get("sightings") {
                eprintln!("in the clear, in milliseconds since 1970: {sightings}");
            }
            let number = |name: &str| seen[name].as_u64().unwrap_or_else(|| panic!("no {name} in {seen}"));
            sums = (sums.0 + number("packets"), sums.1 + number("marked"));
        }
        sums
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            // The test has failed already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
