//! Two nodes of a cluster with the mesh of the chart on them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Cluster;
use crate::processes::{self, Process};
use crate::{Outcome, run, until};

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
        self.install_replicas(1);
    }

    /// The same with so many controllers.
    ///
    /// # Panics
    /// A part of it does not become ready.
    pub fn install_replicas(&self, replicas: u8) {
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
        let chart = chart.replace("{name: POD_CIDRS, value: \"\"}", ranges);
        self.cluster.apply(&chart.replace("  replicas: 1\n", &format!("  replicas: {replicas}\n")));
        self.rolled_out("deployment/lateen-ctrl");
        self.agents_ready();
    }

    /// Gives the nodes an image of etcd, a server that answers the kubelet's gRPC probes.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn etcd(&self) -> &'static str {
        const IMAGE: &str = "lateen.test/etcd:1";
        let binaries = run(self.cluster.script("build").arg("--check")).stdout;
        self.image(IMAGE, &["--program".to_owned(), format!("/bin/etcd={}/kubernetes", binaries.trim())]);
        IMAGE
    }

    /// Gives the nodes an image that `deploy/images/image` makes of these arguments.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn image(&self, name: &str, arguments: &[String]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("image.tar");
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images/image");
        let made = run(Command::new(image).arg(name).arg(&archive).args(arguments));
        assert!(made.ok(), "deploy/images/image: {made}");
        self.import(&[archive]);
    }

    /// Ends a node at once with all that runs on it, as a crash would.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(&self, number: u8) {
        let stopped = run(self.cluster.script("node").args(["stop", &number.to_string()]));
        assert!(stopped.ok(), "e2e/cluster/node stop: {stopped}");
    }

    /// Starts a node again that was stopped. Its pods come by themselves.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart(&self, number: u8) {
        let address = format!("10.99.0.1{number}");
        let started = run(self.cluster.script("node").args(["start", &number.to_string(), &address]));
        assert!(started.ok(), "e2e/cluster/node start: {started}");
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

    /// Replaces all pods of a part of the mesh, as an update does, and waits until it is done.
    ///
    /// # Panics
    /// One does not come.
    pub fn roll(&self, what: &str) {
        let restarted = self.cluster.kubectl(&["rollout", "restart", "-n", "istio-system", what]);
        assert!(restarted.ok(), "{what}: {restarted}");
        self.rolled_out(what);
    }

    /// Waits until every pod of a part of the mesh is there, and as it should be.
    ///
    /// # Panics
    /// One does not come.
    pub fn rolled_out(&self, what: &str) {
        let wait = ["rollout", "status", "-n", "istio-system", what, "--timeout=180s"];
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

    /// Gives the nodes an image of programs of `e2e/examples`, which stand in `/bin` there; its name.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn programs(&self, names: &[&str]) -> &'static str {
        const IMAGE: &str = "lateen.test/programs:1";
        let program = |name: &&str| ["--program".to_owned(), format!("/bin/{name}={}", crate::example(name))];
        self.image(IMAGE, &names.iter().flat_map(program).collect::<Vec<_>>());
        IMAGE
    }

    /// A program to be run in a node's own network.
    pub fn command(&self, number: u8, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-n{number}", self.cluster.name)]).arg(program);
        command
    }

    /// Runs a command in a node's own network.
    pub fn inside(&self, number: u8, command: &[&str]) -> Outcome {
        run(self.command(number, command[0]).args(&command[1..]))
    }

    /// A process of a pod: that whose command line ends so.
    ///
    /// # Panics
    /// There is none.
    pub fn process(&self, pod: &Value, ending: &str) -> Process {
        let found = process(pod, |one| one.command.ends_with(ending));
        found.unwrap_or_else(|| panic!("{} has no process {ending:?}", pod["metadata"]["name"]))
    }

    /// Keeps a pod's network as long as what is returned is there, as a kernel does that has much to do.
    ///
    /// # Panics
    /// The pod has no process.
    pub fn hold(&self, pod: &Value) -> std::fs::File {
        let one =
            process(pod, |_| true).unwrap_or_else(|| panic!("{} does not run", pod["metadata"]["name"]));
        std::fs::File::open(format!("/proc/{}/ns/net", one.pid)).expect("root may open it")
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
    pub fn eventually(&self, what: &str, check: impl FnMut() -> Result<(), String>) {
        if let Err(reason) = until(PATIENCE, check) {
            panic!("{what}: {reason}\n{}", self.said());
        }
    }
}

/// The first such process of a pod: its control groups have the pod's uid in their names.
fn process(pod: &Value, is: impl Fn(&Process) -> bool) -> Option<Process> {
    let uid = format!("pod{}", pod["metadata"]["uid"].as_str()?);
    let of_pod = |one: &Process| {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", one.pid));
        groups.is_ok_and(|groups| groups.contains(&uid))
    };
    processes::all().into_iter().find(|one| is(one) && of_pod(one))
}
