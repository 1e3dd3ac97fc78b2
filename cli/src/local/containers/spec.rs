//! What the daemon tells the hidden commands: JSON in a file that only its owner reads and that its reader deletes
//! (an argument would be seen by every user of the machine; it holds Secrets).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A folder or file of the machine that a container sees at a path of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// As whom a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// A user namespace in which the mesh's user appears as this user and group; `None`: as the mesh's root.
    pub(crate) mapped: Option<(u32, u32)>,
    /// Numbers of the capabilities kept; `None`: all.
    pub(crate) capabilities: Option<Vec<u32>>,
}

/// A container's process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    /// Network namespace to enter.
    pub(crate) netns: PathBuf,
    pub(crate) hostname: String,
    /// An empty folder to build the root on.
    pub(crate) root: PathBuf,
    /// Top-level folders that are the container's own and empty.
    pub(crate) private: Vec<PathBuf>,
    /// The folder of all meshes with their keys and sockets: wherever it lies, an empty one stands there.
    pub(crate) secret: PathBuf,
    /// Paths below a private folder that stay visible, read-only.
    pub(crate) visible: Vec<PathBuf>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) user: User,
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) folder: Option<PathBuf>,
}

/// Where a command is run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In a container with this main process, as the mesh numbers processes.
    Container(u32),
    /// On a node with this network namespace.
    Node(PathBuf),
}

/// A command that joins what runs already.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinSpec {
    pub(crate) place: Place,
    pub(crate) user: User,
    /// Bytes of each argument.
    pub(crate) command: Vec<Vec<u8>>,
    pub(crate) environment: Vec<(String, String)>,
    /// The first of these that exists becomes the working folder.
    pub(crate) folders: Vec<PathBuf>,
}

/// Reads what to do and deletes it.
pub(crate) fn take<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    fs::remove_file(path)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}
