//! A cluster whose nodes have the images of what is built here, and the commands that people type to install it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::report::told;
use crate::{Outcome, built, lateen, run};

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

    /// Gives the nodes the images of the demo: the bookshop, and a shell with curl and `lateen` for who asks and answers.
    ///
    /// # Panics
    /// They cannot be made, or the nodes do not take them.
    pub fn import_demo(&self) {
        let into = tempfile::tempdir().expect("a temporary folder");
        let [bookshop, shell] = ["bookshop", "shell"].map(|name| into.path().join(format!("{name}.tar")));
        let program = |name: &str| {
            let stripped = into.path().join(name);
            let from = built(name, "cargo build --workspace --bins");
            let made = run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(from));
            assert!(made.ok(), "strip: {made}");
            format!("/usr/local/bin/{name}={}", stripped.display())
        };
        let image = |name: &str, archive: &Path, of: &[&str]| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images/image");
            let made =
                run(Command::new(script).arg(format!("lateen.dev/demo/{name}:1")).arg(archive).args(of));
            assert!(made.ok(), "deploy/images/image: {made}");
        };
        let found = |name: &str| run(Command::new("sh").args(["-c", &format!("command -v {name}")])).stdout;
        image("bookshop", &bookshop, &["--program", &program("bookshop")]);
        let (busybox, curl) = (format!("/bin/busybox={}", found("busybox").trim()), found("curl"));
        let of_shell =
            [&busybox, "/bin/sh->busybox", "/bin/sleep->busybox", "--program", curl.trim(), "--program"];
        image("shell", &shell, &[&of_shell[..], &[&program("lateen")]].concat());
        let imported = run(self.script("import").args([bookshop, shell]));
        assert!(imported.ok(), "e2e/cluster/import: {imported}");
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
