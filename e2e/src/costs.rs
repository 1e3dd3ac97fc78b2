//! What pods and agents cost, as an operator is told and as the machine sees it.

use serde_json::Value;

use crate::Mesh;
use crate::processes::Process;

impl Mesh {
    /// What `lateen top pods` says of a pod.
    ///
    /// # Panics
    /// It says nothing of it.
    #[track_caller]
    pub fn costs(&self, namespace: &str, pod: &str) -> Value {
        let told = self.lateen(&["top", "pods", "-n", namespace, "-o", "json"]);
        assert!(told.ok(), "{told}");
        let parsed: Value =
            serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{told}: {error}"));
        let pods = parsed["pods"].as_array().expect("a list of pods");
        let found = pods.iter().find(|costs| costs["name"] == pod);
        found.unwrap_or_else(|| panic!("nothing of {pod} in {told}")).clone()
    }

    /// Everything that a node's agent exports.
    ///
    /// # Panics
    /// It does not answer.
    #[track_caller]
    pub fn metrics(&self, node: &str) -> String {
        let agent = format!("node-agent/{node}");
        let told =
            self.exec("default", &agent, &["curl", "-sS", "-m", "10", "http://127.0.0.1:15020/metrics"]);
        assert!(told.ok(), "{told}");
        told.stdout
    }

    /// How often a node's agent has hit a limit.
    ///
    /// # Panics
    /// There is no such limit.
    #[track_caller]
    pub fn limit_hits(&self, node: &str, limit: &str) -> u64 {
        let metrics = self.metrics(node);
        let series = format!("lateen_limit_hits_total{{limit=\"{limit}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(series.as_str()));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in {metrics}"))
    }
}

impl Process {
    /// Kibibytes of memory that it has.
    ///
    /// # Panics
    /// It is not there any more.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has VmRSS");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// File descriptors that it has open.
    ///
    /// # Panics
    /// It is not there any more.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("it runs").count()
    }
}
