//! A Kubernetes with the mesh installed as a stage: what is in force is what its API server has.

use std::path::Path;
use std::time::Duration;

use super::{Script, Stage};
use crate::cluster::Cluster;
use crate::{Outcome, until};

/// A cluster on which an application runs.
#[derive(Debug)]
pub struct OnCluster<'a>(&'a Cluster);

impl Script {
    /// Applies the application to a cluster, and waits until all of it runs.
    ///
    /// # Panics
    /// Some of it is refused, or does not become ready.
    pub fn on<'a>(&self, cluster: &'a Cluster) -> OnCluster<'a> {
        let stage = OnCluster(cluster);
        for (file, manifest) in self.manifests() {
            stage.put(&file, &manifest);
        }
        // Jobs' pods are complete some time, and not ready any more.
        let running = "--field-selector=status.phase!=Succeeded";
        let wait =
            ["wait", "pod", "-A", "-l", "!job-name", running, "--for=condition=Ready", "--timeout=120s"];
        let ready = cluster.kubectl(&wait);
        assert!(ready.ok(), "{ready}\n{}", cluster.kubectl(&["get", "pods", "-A", "-owide"]));
        stage
    }
}

impl Stage for OnCluster<'_> {
    /// Its nodes share this machine with everything else, and a waypoint is a Deployment first.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// Again and again for a while: accounts of a new namespace, which its pods need, come by and by.
    fn put(&self, file: &Path, manifest: &str) {
        let done = until(crate::PATIENCE, || {
            let applied = self.0.try_apply(manifest);
            if applied.ok() { Ok(()) } else { Err(applied.to_string()) }
        });
        if let Err(applied) = done {
            panic!("{}: {applied}", file.display());
        }
    }

    fn take(&self, file: &Path, manifest: &str) {
        let deleted = self.0.delete(manifest);
        assert!(deleted.ok(), "{}: {deleted}", file.display());
    }

    fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Outcome {
        self.0.kubectl(&[&["exec", "-n", namespace, pod, "--"], command].concat())
    }

    fn lateen(&self, arguments: &[&str]) -> Outcome {
        self.0.lateen(arguments)
    }

    fn agent_logs(&self) -> String {
        self.0.kubectl(&["logs", "-n", "istio-system", "-l", "app=lateen-node-agent", "--tail=-1"]).stdout
    }
}
