//! Two nodes of a cluster with the mesh of the chart on them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::Cluster;
use crate::{Outcome, pause, run};

/// How long a pod of such a cluster may take: its nodes share this machine with everything else.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Nodes that are there as long as their cluster is.
#[derive(Debug)]
pub struct Nodes<'a> {
    cluster: &'a Cluster,
}

impl<'a> Nodes<'a> {
    /// Starts two.
    ///
    /// # Panics
    /// They do not become ready.
    pub fn start(cluster: &'a Cluster) -> Self {
        let started = run(&mut cluster.script("nodes"));
        assert!(started.ok(), "e2e/cluster/nodes: {started}");
        Self { cluster }
    }

    /// Installs the definitions and the rendered chart, with images of the binaries beside this test.
    ///
    /// # Panics
    /// A part of it does not become ready.
    pub fn install(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let binary = crate::built("node-agent", "cargo build --workspace --bins");
        let profile = binary.parent().and_then(Path::file_name).expect("binaries stand in target/PROFILE");
        let mut images = Command::new(root.join("deploy/images/build"));
        let made =
            run(images.args(["ctrl", "node-agent"]).env("PROFILE", profile).env("INTO", folder.path()));
        assert!(made.ok(), "deploy/images/build: {made}");
        let archives = ["ctrl.tar", "node-agent.tar"].map(|name| folder.path().join(name));
        self.import(&archives);
        self.cluster.define();
        let chart = std::fs::read_to_string(root.join("deploy/manifests/lateen.yaml"));
        let chart = chart.expect("the chart is rendered: make manifests");
        let ranges = "{name: POD_CIDRS, value: \"10.244.0.0/16\"}";
        self.cluster.apply(&chart.replace("{name: POD_CIDRS, value: \"\"}", ranges));
        self.rolled_out("deployment/lateen-ctrl");
        self.agents_ready();
    }

    /// Gives the nodes an image of etcd, a server that answers the kubelet's gRPC probes.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn etcd(&self) -> &'static str {
        const IMAGE: &str = "lateen.test/etcd:1";
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("etcd.tar");
        let binaries = run(self.cluster.script("build").arg("--check")).stdout;
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images/image");
        let program = format!("/bin/etcd={}/kubernetes", binaries.trim());
        let made = run(Command::new(image).arg(IMAGE).arg(&archive).args(["--program", &program]));
        assert!(made.ok(), "deploy/images/image: {made}");
        self.import(&[archive]);
        IMAGE
    }

    fn import(&self, archives: &[PathBuf]) {
        let imported = run(self.cluster.script("import").args(archives));
        assert!(imported.ok(), "e2e/cluster/import: {imported}");
    }

    /// Waits until every node has its agent.
    ///
    /// # Panics
    /// One does not come.
    pub fn agents_ready(&self) {
        self.rolled_out("daemonset/lateen-node-agent");
    }

    fn rolled_out(&self, what: &str) {
        let wait = ["rollout", "status", "-n", "istio-system", what, "--timeout=120s"];
        let done = self.cluster.kubectl(&wait);
        assert!(done.ok(), "{what}: {done}\n{}", self.said());
    }

    /// What the mesh's own pods have to say.
    fn said(&self) -> String {
        let pods = self.cluster.kubectl(&["get", "pods", "-A", "-owide"]).stdout;
        let logs = |app: &str| {
            let selected = format!("-lapp={app}");
            self.cluster.kubectl(&["logs", "-n", "istio-system", &selected, "--tail=40", "--prefix"]).stdout
        };
        format!("{pods}\n{}\n{}", logs("lateen-ctrl"), logs("lateen-node-agent"))
    }

    /// Runs a command in a node's own network.
    pub fn inside(&self, number: u8, command: &[&str]) -> Outcome {
        let space = format!("{}-n{number}", self.cluster.name);
        run(Command::new("ip").args(["netns", "exec", &space]).args(command))
    }

    /// Asks for a page from a node itself, as root.
    pub fn curl(&self, number: u8, url: &str) -> Outcome {
        self.inside(number, &["curl", "-sSf", "--max-time", "10", url])
    }

    /// Where this machine has the files that are a node's own.
    pub fn folder(&self, number: u8) -> PathBuf {
        let state = std::env::var_os("LATEEN_CLUSTER_STATE").map(PathBuf::from);
        let state = state.unwrap_or_else(|| "/var/lib/lateen-cluster".into());
        state.join(&self.cluster.name).join(format!("node-{number}"))
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// It does not in time.
    pub fn eventually(&self, what: &str, mut check: impl FnMut() -> Result<(), String>) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(reason) = check() {
            assert!(Instant::now() < deadline, "{what}: {reason}\n{}", self.said());
            pause();
        }
    }
}
