//! A cluster whose nodes have the images of what is built here, and the commands that people type to install it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{Outcome, lateen, report, run};

use super::{Cluster, scripts};

impl Cluster {
    /// Starts one of so many nodes, which have the images of what is built here. `None` as with [`Cluster::start`].
    ///
    /// # Panics
    /// It does not start.
    pub fn with_nodes(test: &str, nodes: u8) -> Option<Self> {
        let begun = Instant::now();
        let cluster = Self::bare(test)?;
        let started = run(cluster.script("nodes").arg(nodes.to_string()));
        assert!(started.ok(), "e2e/cluster/nodes: {started}");
        told("cluster with nodes", begun);
        let begun = Instant::now();
        cluster.import();
        told("images built and imported", begun);
        Some(cluster)
    }

    /// Makes images of the programs beside `lateen`, and one of busybox under the name that documents have.
    fn import(&self) {
        let into = self.folder.path().join("images");
        let binaries = lateen().parent().expect("it stands in a folder").to_owned();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images");
        let made = run(Command::new(deploy.join("build"))
            .env("BINARIES", binaries)
            .env("INTO", &into)
            .env_remove("TAG"));
        assert!(made.ok(), "deploy/images/build: {made}");
        let busybox = into.join("busybox.tar");
        let made = run(self.script("busybox").arg("docker.io/library/busybox:1.36").arg(&busybox));
        assert!(made.ok(), "e2e/cluster/busybox: {made}");
        let archives =
            ["ctrl", "node-agent", "waypoint", "busybox"].map(|name| into.join(format!("{name}.tar")));
        let imported = run(self.script("import").args(archives));
        assert!(imported.ok(), "e2e/cluster/import: {imported}");
        // Of no use any more, and large.
        let _ = std::fs::remove_dir_all(into);
    }

    /// `lateen ARGUMENTS` on this cluster, whatever else runs on this machine.
    pub fn lateen(&self, arguments: &[&str]) -> Outcome {
        run(self.inside(lateen()).args(["--context", &self.name]).args(arguments))
    }

    /// A line of a shell as a person has it who works with this cluster: `lateen` and `kubectl` are there.
    pub fn shell(&self, line: &str) -> Outcome {
        let commands = self.folder.path().join("commands");
        let shim = commands.join("lateen");
        if !shim.exists() {
            // Other tests' meshes run on this machine; a person's own would be what is meant.
            let text = format!("#!/bin/sh\nexec {:?} --context {} \"$@\"\n", lateen(), self.name);
            std::fs::create_dir_all(&commands).expect("the temporary folder takes folders");
            std::fs::write(&shim, text).expect("and files");
            let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&shim, may_run).expect("it is ours");
        }
        let known = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{known}", commands.display(), scripts().display());
        run(self.inside("bash").args(["-euo", "pipefail", "-c", line]).env("PATH", path))
    }
}

/// Says how long a stage took.
pub fn told(stage: &str, begun: Instant) {
    report::counted(&format!("{stage}: {:.1} s", begun.elapsed().as_secs_f64()));
}
