//! What must be gone when a mesh has ended, however it ended: processes, namespaces, mounts, links, rules, files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;

use crate::processes::{Process, all, base, below};
use crate::{run, until};

/// How long a mesh may take to be gone.
pub const GONE: Duration = Duration::from_secs(30);

/// What of the machine itself a mesh could leave something in.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    links: BTreeSet<String>,
    rules: String,
}

impl Machine {
    /// As it is now.
    ///
    /// # Panics
    /// The kernel does not list its links.
    pub fn now() -> Self {
        let links = std::fs::read_dir("/sys/class/net").expect("links are listed");
        // Only root may see rules, and only root could leave some.
        let rules = if geteuid().is_root() {
            run(Command::new("nft").args(["list", "ruleset"])).stdout
        } else {
            String::new()
        };
        Self {
            links: links.flatten().map(|link| link.file_name().to_string_lossy().into_owned()).collect(),
            rules,
        }
    }
}

/// The processes of a mesh and of what runs it, and the namespaces that are theirs alone.
#[derive(Debug, Default)]
pub struct Parts {
    /// The processes.
    pub processes: Vec<Process>,
    /// The namespaces, by what `/proc/PID/ns` calls them.
    pub namespaces: BTreeSet<String>,
}

impl Parts {
    /// All that descends from a process, and from the keeper of a mesh if it has one by now.
    ///
    /// # Panics
    /// Process numbers are not what they are on Linux.
    pub fn of(process: u32, mesh: &str) -> Self {
        let all = all();
        let number = |number: u32| i32::try_from(number).expect("a process number");
        let mut processes = below(&all, number(process));
        processes.extend(keeper(mesh).map(|keeper| below(&all, keeper)).unwrap_or_default());
        processes.sort_by_key(|process| process.pid);
        processes.dedup();
        let own = namespaces(number(std::process::id()));
        let namespaces = processes.iter().flat_map(|process| namespaces(process.pid));
        Self { namespaces: namespaces.filter(|space| !own.contains(space)).collect(), processes }
    }
}

fn keeper(mesh: &str) -> Option<i32> {
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(base().join(mesh).join("mesh.json")).ok()?).ok()?;
    i32::try_from(file["keeper"].as_i64()?).ok()
}

fn namespaces(pid: i32) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/ns")) else { return BTreeSet::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

/// What there was before a mesh, and by what its traces are known.
#[derive(Debug)]
pub struct Before {
    machine: Machine,
    mesh: String,
    /// Folders that must be empty or gone.
    folders: Vec<PathBuf>,
}

impl Before {
    /// Before a mesh of this name.
    pub fn of(mesh: &str) -> Self {
        Self { machine: Machine::now(), mesh: mesh.to_owned(), folders: Vec::new() }
    }

    /// The same for a mesh of another name, which was not known before.
    pub fn named(mut self, mesh: &str) -> Self {
        self.mesh = mesh.to_owned();
        self
    }

    /// Has a look into another folder, too.
    pub fn and_in(mut self, folder: &Path) -> Self {
        self.folders.push(folder.to_owned());
        self
    }

    /// What is left of it.
    fn left(&self, parts: &Parts) -> Vec<String> {
        let all = all();
        let was = |now: &Process| {
            parts.processes.iter().any(|was| was.pid == now.pid && was.command == now.command)
        };
        let mut left = Vec::new();
        for process in &all {
            let of_mesh = process.command.contains(&self.mesh) && !process.command.contains("lateen down");
            if was(process) || of_mesh {
                left.push(format!("process {process:?}"));
            }
            let inside = namespaces(process.pid);
            left.extend(
                inside.intersection(&parts.namespaces).map(|space| format!("{space} of {process:?}")),
            );
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter(|line| line.contains(&self.mesh));
        left.extend(mounts.map(|line| format!("mount {line}")));
        for folder in &self.folders {
            let kept = std::fs::read_dir(folder).into_iter().flatten().flatten();
            left.extend(kept.map(|entry| format!("file {}", entry.path().display())));
        }
        if base().join(&self.mesh).exists() {
            left.push(format!("folder {}", base().join(&self.mesh).display()));
        }
        let now = Machine::now();
        if now != self.machine {
            left.push(format!("of the machine: {now:?}, which was {:?}", self.machine));
        }
        left
    }

    /// Waits until nothing is left of the mesh.
    ///
    /// # Panics
    /// Something is, after [`GONE`].
    #[track_caller]
    pub fn assert_gone(&self, what: &str, parts: &Parts) {
        let gone = until(GONE, || {
            let left = self.left(parts);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
        if let Err(left) = gone {
            panic!("{what}: after {GONE:?} there still is {left}");
        }
    }
}
