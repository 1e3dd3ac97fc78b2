//! A Kubernetes control plane for a test, by the scripts of `e2e/cluster`, and the controller beside it.

pub mod install;
pub mod nodes;
pub mod pods;
pub mod shop;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Outcome, PATIENCE, built, fresh_name, report, run, until};

/// A control plane of its own; taken down when dropped.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    folder: tempfile::TempDir,
}

/// A controller that watches a cluster; ended when dropped.
#[derive(Debug)]
pub struct Ctrl {
    child: Child,
    folder: tempfile::TempDir,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}

impl Cluster {
    /// Starts one. `None`, and noted as not possible, for who is not root, or where Kubernetes has not been built.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(test: &str) -> Option<Self> {
        let cluster = Self::bare(test)?;
        cluster.permit();
        Some(cluster)
    }

    /// Whether there can be one here; noted if not.
    pub fn is_possible(test: &str) -> bool {
        if !nix::unistd::geteuid().is_root() {
            report::not_possible(test, "a cluster needs root");
            return false;
        }
        let is_built = run(Command::new(scripts().join("build")).arg("--check"));
        if !is_built.ok() {
            report::not_possible(test, is_built.stderr.trim());
        }
        is_built.ok()
    }

    /// The same, without the controller's account: for who installs it.
    fn bare(test: &str) -> Option<Self> {
        if !Self::is_possible(test) {
            return None;
        }
        let cluster = Self { name: fresh_name(), folder: tempfile::tempdir().expect("a temporary folder") };
        cluster.up();
        Some(cluster)
    }

    pub(crate) fn script(&self, name: &str) -> Command {
        let mut command = Command::new(scripts().join(name));
        command.env("LATEEN_CLUSTER", &self.name);
        command
    }

    /// Starts what does not run.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn up(&self) {
        let started = run(&mut self.script("up"));
        assert!(started.ok(), "e2e/cluster/up: {started}");
    }

    /// Makes the controller's account, with the rights that the chart gives it, and a kubeconfig of its own.
    fn permit(&self) {
        self.apply("{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}");
        self.permit_revision("default");
        let token = self.kubectl(&["create", "token", "-n", "istio-system", "lateen-ctrl"]);
        assert!(token.ok(), "{token}");
        self.kubeconfig(token.stdout.trim());
    }

    /// A kubeconfig of who holds a token.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let made = run(self.script("kubeconfig").arg(token));
        assert!(made.ok(), "{made}");
        let file = self.folder.path().join("kubeconfig");
        std::fs::write(&file, made.stdout).expect("the folder takes files");
        file
    }

    /// Gives the account the rights of a controller of a revision.
    ///
    /// # Panics
    /// They cannot be given.
    pub fn permit_revision(&self, revision: &str) {
        let rights = chart(&[&format!("revision={revision}")]).into_iter().filter_map(|mut object| {
            let kind = object["kind"].as_str()?;
            let of_ctrl = object["metadata"]["name"].as_str()?.starts_with("lateen-ctrl");
            let is_right = kind == "ServiceAccount" || kind.contains("Role");
            // Whichever revision it is, these tests' controllers have one account.
            if let Some(subject) = object.pointer_mut("/subjects/0/name") {
                *subject = "lateen-ctrl".into();
            }
            (of_ctrl && is_right).then_some(object)
        });
        let account =
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: lateen-ctrl, namespace: istio-system}}";
        self.apply(account);
        self.apply(&list(&rights.collect::<Vec<_>>()));
    }

    /// Ends one part, as a crash would.
    ///
    /// # Panics
    /// It does not run.
    pub fn stop(&self, part: &str) {
        let stopped = run(self.script("down").arg(part));
        assert!(stopped.ok(), "e2e/cluster/down {part}: {stopped}");
    }

    /// `kubectl ARGUMENTS`
    pub fn kubectl(&self, arguments: &[&str]) -> Outcome {
        run(self.script("kubectl").args(arguments))
    }

    /// `kubectl apply` of a manifest.
    ///
    /// # Panics
    /// The manifest cannot be written to a file.
    pub fn try_apply(&self, manifest: &str) -> Outcome {
        self.try_apply_with(manifest, &[])
    }

    /// The same, with further arguments.
    ///
    /// # Panics
    /// The manifest cannot be written to a file.
    pub fn try_apply_with(&self, manifest: &str, arguments: &[&str]) -> Outcome {
        self.with_file("apply", manifest, arguments)
    }

    /// `kubectl delete` of what a manifest names.
    ///
    /// # Panics
    /// The manifest cannot be written to a file.
    pub fn delete(&self, manifest: &str) -> Outcome {
        self.with_file("delete", manifest, &[])
    }

    fn with_file(&self, verb: &str, manifest: &str, arguments: &[&str]) -> Outcome {
        let file = self.folder.path().join("manifest.yaml");
        std::fs::write(&file, manifest).expect("the temporary folder takes files");
        self.kubectl(&[&[verb, "-f", &file.to_string_lossy()], arguments].concat())
    }

    /// The same, of one that is taken.
    ///
    /// # Panics
    /// It is refused.
    pub fn apply(&self, manifest: &str) {
        let applied = self.try_apply(manifest);
        assert!(applied.ok(), "{applied}\n{manifest}");
    }

    /// Installs our definitions of Istio's kinds.
    ///
    /// # Panics
    /// One of them is refused, or does not become usable.
    pub fn define(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/crds/templates");
        let applied = self.kubectl(&["apply", "--server-side", "-f", &folder.to_string_lossy()]);
        assert!(applied.ok(), "{applied}");
        let there = self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
        assert!(there.ok(), "{there}");
    }

    /// Installs the definitions of the Gateway API.
    ///
    /// # Panics
    /// One of them is refused, or does not become usable.
    pub fn define_gateway_api(&self) {
        let folder = run(&mut self.script("gateway-api"));
        assert!(folder.ok(), "e2e/cluster/gateway-api: {folder}");
        let applied = self.kubectl(&["apply", "--server-side", "-f", folder.stdout.trim()]);
        assert!(applied.ok(), "{applied}");
        let there = self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
        assert!(there.ok(), "{there}");
    }

    /// What `kubectl get` answers for one path into an object; nothing where there is no such object.
    pub fn field(&self, object: &[&str], path: &str) -> String {
        let path = format!("-ojsonpath={path}");
        self.kubectl(&[&["get"], object, &[&path]].concat()).stdout
    }

    /// A program run beside the control plane, not yet started.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.script("inside");
        command.arg(program);
        command
    }

    /// Starts a controller that watches it, and waits until it serves.
    ///
    /// # Panics
    /// It does not.
    pub fn ctrl(&self) -> Ctrl {
        self.replica("ctrl-1", 15_012)
    }

    /// One of several controllers, by its name and the first of its ports.
    ///
    /// # Panics
    /// It does not serve.
    pub fn replica(&self, name: &str, port: u16) -> Ctrl {
        self.replica_with(name, port, &[])
    }

    /// The same, with further settings. Its webhook is on the fifth port from the first.
    ///
    /// # Panics
    /// It does not serve.
    pub fn replica_with(&self, name: &str, port: u16, settings: &[&str]) -> Ctrl {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let log = File::create(at("log")).expect("the temporary folder takes files");
        let child = self
            .inside(built("ctrl", "cargo build --workspace --bins"))
            .args(["--config-source", "kubernetes", "--pod-cidrs", "10.244.0.0/16", "--pod-name", name])
            .arg("--kubeconfig")
            .arg(self.folder.path().join("kubeconfig"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--monitoring-addr", &format!("127.0.0.1:{}", port + 2)])
            .args(["--webhook-listen", &format!("127.0.0.1:{}", port + 5)])
            .args(settings)
            .arg("--state")
            .arg(at("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .expect("the script can be started");
        let ctrl = Ctrl { child, folder };
        ctrl.eventually("readiness", || match ctrl.get("/ready").ok() {
            true => Ok(()),
            false => Err("not ready".to_owned()),
        });
        ctrl
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = run(&mut self.script("down"));
        if !down.ok() && !std::thread::panicking() {
            panic!("e2e/cluster/down: {down}");
        }
    }
}

impl Ctrl {
    /// What it answers operators.
    pub fn get(&self, path: &str) -> Outcome {
        let socket = self.folder.path().join("state/admin.sock");
        let url = format!("http://ctrl{path}");
        run(Command::new("curl").args(["-sSf", "--max-time", "10", "--unix-socket"]).arg(socket).arg(url))
    }

    /// Has it do something, as its operators would.
    pub fn post(&self, path: &str) -> Outcome {
        let socket = self.folder.path().join("state/admin.sock");
        let url = format!("http://ctrl{path}");
        let curl = ["-sSf", "--max-time", "10", "-X", "POST", "--unix-socket"];
        run(Command::new("curl").args(curl).arg(socket).arg(url))
    }

    /// The same, as JSON.
    ///
    /// # Panics
    /// It does not answer, or with something else.
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        serde_json::from_str(&answer.stdout)
            .unwrap_or_else(|error| panic!("{path}: {error}: {answer}\n{}", self.log()))
    }

    /// Names of the objects of a kind that it has.
    ///
    /// # Panics
    /// It does not answer.
    pub fn names(&self, kind: &str, namespace: &str) -> Vec<String> {
        let objects = self.json(&format!("/objects/{kind}?namespace={namespace}"));
        let name = |object: &Value| object["metadata"]["name"].as_str().map(str::to_owned);
        objects.as_array().into_iter().flatten().filter_map(name).collect()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// It does not within [`PATIENCE`].
    pub fn eventually(&self, what: &str, check: impl FnMut() -> Result<(), String>) {
        if let Err(reason) = until(PATIENCE, check) {
            panic!("{what}: {reason}\nctrl's log:\n{}", self.log());
        }
    }
}

impl Drop for Ctrl {
    fn drop(&mut self) {
        // It may have ended by itself; its state is gone with its folder either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The objects of the mesh's chart with these settings, without the definitions.
///
/// # Panics
/// They are not settings of the chart.
pub fn chart(settings: &[&str]) -> Vec<Value> {
    let mut command = Command::new(crate::lateen());
    command.args(["manifest", "--no-definitions", "-n", "istio-system"]);
    let made = run(command.args(settings.iter().flat_map(|setting| ["--set", *setting])));
    assert!(made.ok(), "lateen manifest {settings:?}: {made}");
    serde_saphyr::from_multiple(&made.stdout).expect("manifests are YAML")
}

/// Objects as one manifest.
pub fn list(objects: &[Value]) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}
