//! Looking at what crosses the links of a node while a test goes on (`lateen capture`), for the one thing that must
//! never be there: what an application of the mesh said, in the clear.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::nodes::Nodes;
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

/// What captures have seen.
#[derive(Debug, Default)]
pub struct Crossed {
    /// Packets.
    pub packets: u64,
    /// Those with the marker in them.
    pub marked: u64,
    /// TCP packets with content, by the lower of their two ports.
    pub by_port: BTreeMap<u16, u64>,
}

impl Capture {
    /// Starts to look. The mesh needs [`watchers`].
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(mesh: &Mesh) -> Self {
        Self::by(|number| {
            let mut command = Command::new(crate::lateen());
            command.args(["exec", "--mesh", mesh.name(), "--privileged", "-n", "kube-system"]);
            command.args([&format!("watch-{number}"), "--", "lateen"]);
            command
        })
    }

    /// Starts to look on a cluster's nodes: at their link and at those of their pods.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start_on(nodes: &Nodes) -> Self {
        Self::by(|number| nodes.command(number, crate::lateen()))
    }

    fn by(lateen: impl Fn(u8) -> Command) -> Self {
        let marker: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
        Self([1, 2].map(|number| {
            let mut child = lateen(number)
                .args(["capture", "--seconds", "86400"])
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
    pub fn finish(self) -> (u64, u64) {
        let crossed = self.end();
        (crossed.packets, crossed.marked)
    }

    /// The same with everything that was counted.
    ///
    /// # Panics
    /// The capture failed.
    pub fn end(mut self) -> Crossed {
        let mut sums = Crossed::default();
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
            sums.packets += number("packets");
            sums.marked += number("marked");
            for (port, count) in seen["tcpByPort"].as_object().into_iter().flatten() {
                let port = port.parse().expect("a port");
                *sums.by_port.entry(port).or_default() += count.as_u64().unwrap_or_default();
            }
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
