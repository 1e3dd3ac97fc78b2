//! The processes of a mesh, found from outside by their parents, so that a test can kill any of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::Mesh;

/// A process of a mesh, as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number, outside.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// That of its group's leader, which is what a terminal's Ctrl-C goes to.
    pub group: i32,
    /// Its command line, spaces between the arguments.
    pub command: String,
}

impl Process {
    /// Ends it as a crash would.
    ///
    /// # Panics
    /// It is not there any more.
    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL)
            .unwrap_or_else(|error| panic!("kill -9 {} ({}): {error}", self.pid, self.command));
    }

    /// Stops it (or lets it go on).
    ///
    /// # Panics
    /// It is not there any more.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal)
            .unwrap_or_else(|error| panic!("{signal} to {} ({}): {error}", self.pid, self.command));
    }
}

/// Where the meshes of this user lie.
pub fn base() -> PathBuf {
    match geteuid().as_raw() {
        0 => PathBuf::from("/run/lateen"),
        uid => match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) => PathBuf::from(folder).join("lateen"),
            None => PathBuf::from(format!("/tmp/lateen-{uid}")),
        },
    }
}

/// Every process of the machine that can be seen.
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let read = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut numbers = rest.split_whitespace().skip(1).map_while(|number| number.parse().ok());
        let (parent, group) = (numbers.next()?, numbers.next()?);
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Process { pid, parent, group, command: command.trim_end().to_owned() })
    };
    entries.flatten().filter_map(read).collect()
}

impl Mesh {
    /// The mesh's state folder.
    pub fn state(&self) -> PathBuf {
        base().join(self.name())
    }

    /// Every process of the mesh, the keeper first.
    ///
    /// # Panics
    /// The mesh is not running.
    pub fn processes(&self) -> Vec<Process> {
        let file = std::fs::read(self.state().join("mesh.json")).expect("a running mesh has a mesh.json");
        let file: serde_json::Value = serde_json::from_slice(&file).expect("mesh.json is JSON");
        let keeper = file["keeper"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a keeper");
        below(&all(), keeper)
    }

    /// The controller's process.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn ctrl(&self) -> Process {
        self.find_process("ctrl", |command| command.split(' ').next().is_some_and(|p| p.ends_with("/ctrl")))
    }

    /// The redirecting role of a node's agent.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn redirect(&self, node: &str) -> Process {
        self.find_process(node, |command| {
            command.contains("node-agent redirect ") && command.contains(&format!("--node {node} "))
        })
    }

    /// The proxying role of a node's agent, if it runs at this moment.
    ///
    /// # Panics
    /// Its parent, the redirecting role, does not run.
    #[track_caller]
    pub fn proxy_now(&self, node: &str) -> Option<Process> {
        let redirect = self.redirect(node);
        let is_proxy = |process: &Process| {
            process.parent == redirect.pid && process.command.ends_with("node-agent proxy")
        };
        self.processes().into_iter().find(is_proxy)
    }

    /// The proxying role of a node's agent.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn proxy(&self, node: &str) -> Process {
        self.proxy_now(node).unwrap_or_else(|| panic!("{node} has no proxy"))
    }

    #[track_caller]
    fn find_process(&self, what: &str, is: impl Fn(&str) -> bool) -> Process {
        let all = self.processes();
        let found = all.iter().find(|process| is(&process.command)).cloned();
        found.unwrap_or_else(|| panic!("no process of {what} among {all:#?}"))
    }
}

/// A process and all that descend from it.
pub fn below(all: &[Process], root: i32) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = all.iter().filter(|process| process.pid == root).cloned().collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let more = children.get(&process.pid).into_iter().flatten().map(|child| (*child).clone());
        let more: Vec<Process> = more.collect();
        found.extend(more);
        next += 1;
    }
    found
}
