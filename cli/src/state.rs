//! The state folder of a mesh: where everything lies, which meshes run, which one a command means.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Name that `up` gives a mesh when none is asked for.
pub(crate) const DEFAULT_MESH: &str = "default";

/// Longest mesh name: sockets below the folder must fit the 107 bytes of a Unix address.
const LONGEST_NAME: usize = 24;

/// Why a mesh cannot be found or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("no mesh is running; start one with: lateen up -f PATH")]
    NoneRunning,
    #[error("mesh {0:?} is not running; start it with: lateen up --mesh {0} -f PATH")]
    NotRunning(String),
    #[error("several meshes are running ({0}); say which one with --mesh NAME")]
    Several(String),
    #[error("the mesh that runs is called {0:?}; take it down with: lateen down --mesh {0}")]
    NamedOtherwise(String),
    #[error(
        "mesh {0:?} is already running; take it down with: lateen down --mesh {0}, or choose another --mesh NAME"
    )]
    AlreadyRunning(String),
    #[error("{0:?} is no name for a mesh: use at most {LONGEST_NAME} lower-case letters, digits and '-'")]
    BadName(String),
    #[error("{path}: {error}; the mesh keeps its state there, make it writable or set XDG_RUNTIME_DIR")]
    Io { path: PathBuf, error: io::Error },
    #[error("{0} belongs to another user; remove it or set XDG_RUNTIME_DIR to a folder of yours")]
    Foreign(PathBuf),
}

/// What a mesh says about itself in `mesh.json`: written by `up` for its hidden helpers, completed as they start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MeshFile {
    /// Name of the mesh.
    pub(crate) name: String,
    /// Version of `lateen` that runs it.
    pub(crate) version: String,
    /// How many nodes it has.
    pub(crate) nodes: u8,
    /// Manifest files and folders, absolute.
    pub(crate) sources: Vec<PathBuf>,
    /// Whether it runs inside a user namespace of its own.
    pub(crate) rootless: bool,
    /// Effective user of the caller, outside.
    pub(crate) uid: u32,
    /// Effective group of the caller, outside.
    pub(crate) gid: u32,
    /// Folder of the `lateen` binary and its siblings.
    pub(crate) binaries: PathBuf,
    /// Environment that containers inherit: PATH, HOME, LANG and their like.
    pub(crate) environment: Vec<(String, String)>,
    /// Settings of components beside those that every mesh gives them.
    #[serde(default)]
    pub(crate) settings: Vec<crate::flags::Setting>,
    /// Process that holds the mesh, seen from the machine.
    pub(crate) keeper: Option<u32>,
}

/// How often a folder is made anew that another mesh, ending, took away.
const MEETINGS: usize = 100;

/// The folder of one mesh.
#[derive(Debug, Clone)]
pub(crate) struct MeshDir {
    name: String,
    root: PathBuf,
}

impl MeshDir {
    /// The folder of the mesh called `name`, which need not exist.
    pub(crate) fn named(name: &str) -> Result<Self, StateError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('-') || !name.chars().all(allowed)
        {
            return Err(StateError::BadName(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), root: base().join(name) })
    }

    /// The folder at `root`, as the hidden commands are given it.
    pub(crate) fn at(root: &Path) -> Self {
        let name = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, root: root.to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where this mesh and its neighbours lie.
    pub(crate) fn base(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn mesh_file(&self) -> PathBuf {
        self.root.join("mesh.json")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// Objects that this mesh wrote itself: `<Kind>/<namespace>/<name>.json`.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Network namespaces of pods, by pod uid (bind mounts, seen only inside the mesh).
    pub(crate) fn netns(&self) -> PathBuf {
        self.root.join("netns")
    }

    /// Bearer tokens of nodes and waypoints, one file each.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.root.join("tokens")
    }

    /// The controller's own folder.
    pub(crate) fn ctrl(&self) -> PathBuf {
        self.root.join("ctrl")
    }

    /// Run folder of one node's agent.
    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Files of one pod: resolv.conf, volumes, what its containers are told.
    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Makes the folder and takes its lock, to be held for as long as the mesh lives. What an earlier mesh of this
    /// name left behind after a crash is removed.
    pub(crate) fn create(&self) -> Result<Flock<File>, StateError> {
        // The last mesh that ends takes the folder of all meshes along, maybe between two steps of ours.
        for _ in 0..MEETINGS {
            match self.try_create() {
                Err(StateError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                done => return done,
            }
        }
        self.try_create()
    }

    fn try_create(&self) -> Result<Flock<File>, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| StateError::Io { path, error }
        };
        let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        let base = self.base();
        private(base).map_err(at(base))?;
        check_owner(base)?;
        if self.is_running() {
            return Err(StateError::AlreadyRunning(self.name.clone()));
        }
        self.remove_own().map_err(at(&self.root))?;
        private(&self.root).map_err(at(&self.root))?;
        let lock = self
            .lock()
            .map_err(at(&self.root))?
            .ok_or_else(|| StateError::AlreadyRunning(self.name.clone()))?;
        for folder in ["objects", "netns", "tokens", "ctrl", "nodes", "logs", "pods"] {
            let folder = self.root.join(folder);
            private(&folder).map_err(at(&folder))?;
        }
        Ok(lock)
    }

    /// Takes the lock, or `None` if another process keeps it. Commands that only ask hold it for an instant, so that
    /// the first refusal means little.
    fn lock(&self) -> io::Result<Option<Flock<File>>> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.lock_file())?;
        for _ in 0..10 {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(lock)),
                Err((back, _)) => file = back,
            }
            nix::poll::poll(&mut [], 20u16)?;
        }
        Ok(None)
    }

    /// Whether a process holds this mesh.
    pub(crate) fn is_running(&self) -> bool {
        match OpenOptions::new().append(true).open(self.lock_file()) {
            Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
            Err(_) => false,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.root.exists()
    }

    /// Removes the folder, and the folder of all meshes if this was the last.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.remove_own()?;
        // Fails while other meshes stand in it, which is right.
        let _ = fs::remove_dir(self.base());
        Ok(())
    }

    fn remove_own(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn read_mesh_file(&self) -> io::Result<MeshFile> {
        let bytes = fs::read(self.mesh_file())?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    pub(crate) fn write_mesh_file(&self, mesh: &MeshFile) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(mesh).map_err(io::Error::other)?;
        write_private(&self.mesh_file(), &bytes)
    }
}

/// Writes a file that only its owner reads, in one step: readers see the old or the new content.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// The mesh a command means: the one named, or the only one running.
pub(crate) fn select(name: Option<&str>) -> Result<MeshDir, StateError> {
    check_base()?;
    if let Some(name) = name {
        let mesh = MeshDir::named(name)?;
        return if mesh.is_running() { Ok(mesh) } else { Err(StateError::NotRunning(name.to_owned())) };
    }
    only_running()?.ok_or(StateError::NoneRunning)
}

/// The only mesh that runs, if one does; several are a question to the caller.
pub(crate) fn only_running() -> Result<Option<MeshDir>, StateError> {
    let mut running: Vec<MeshDir> = known().into_iter().filter(MeshDir::is_running).collect();
    if running.len() > 1 {
        return Err(StateError::Several(running.iter().map(MeshDir::name).collect::<Vec<_>>().join(", ")));
    }
    Ok(running.pop())
}

/// Refuses a folder of meshes that somebody else made: its lock, its sockets and the process it names are not ours.
pub(crate) fn check_base() -> Result<(), StateError> {
    match check_owner(&base()) {
        Err(StateError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Every mesh of this user that has a folder, running or left behind.
pub(crate) fn known() -> Vec<MeshDir> {
    let Ok(entries) = fs::read_dir(base()) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| MeshDir::named(name).ok()).collect()
}

/// Where the meshes of this user lie.
fn base() -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/lateen");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(folder)
            if folder.is_absolute()
                && nix::unistd::access(&folder, nix::unistd::AccessFlags::W_OK).is_ok() =>
        {
            folder.join("lateen")
        }
        _ => PathBuf::from(format!("/tmp/lateen-{uid}")),
    }
}

/// In a folder that everybody may write (/tmp) somebody else could have made ours first.
fn check_owner(folder: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::MetadataExt;
    let metadata =
        fs::symlink_metadata(folder).map_err(|error| StateError::Io { path: folder.to_owned(), error })?;
    let ours = metadata.is_dir()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(StateError::Foreign(folder.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meshes_that_begin_and_end_together_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("meshes");
        std::thread::scope(|scope| {
            for number in 0..4 {
                let mesh = MeshDir::at(&base.join(format!("mesh-{number}")));
                scope.spawn(move || {
                    for _ in 0..100 {
                        let lock = mesh.create().unwrap();
                        drop(lock);
                        mesh.remove().unwrap();
                    }
                });
            }
        });
        assert!(!base.exists(), "the last one takes the folder along");
    }
}
