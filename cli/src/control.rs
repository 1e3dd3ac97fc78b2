//! What `up`, `exec`, `logs`, `get` and `down` say to a running mesh: events on a pipe while it starts, requests over
//! `control.sock` afterwards. One request a connection: four bytes of length, JSON, and with `exec` three descriptors
//! beside the first byte; answers are lines of JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use pages::top::Top;
use serde::{Deserialize, Serialize};

use crate::state::{MeshDir, StateError};

/// Largest request taken.
pub(crate) const LARGEST_REQUEST: u32 = 4 << 20;

/// What a mesh tells `lateen up` while it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub(crate) enum Event {
    /// Something became ready: one line.
    Ready { what: String, detail: String },
    /// Something a person should know.
    Note { text: String },
    /// Something that will not become ready by waiting: a detached start gives up, others can mend the file.
    Stuck { text: String },
    /// All is ready.
    Up { summary: String },
    /// It cannot start; everything has been or is being taken down.
    Failed { reason: String, code: u8 },
}

/// What a client asks of a running mesh.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(crate) enum Request {
    /// Run a command in a container; stdin, stdout and stderr come along as descriptors.
    Exec(ExecRequest),
    /// Which pod a name means, and where its logs lie.
    Find { namespace: String, pod: String, container: Option<String> },
    /// What runs.
    Status,
    /// Replace the components by the programs in this folder, one after the other. Answered by a line for each, and by
    /// `Upgraded` at the end.
    Upgrade { binaries: PathBuf },
    /// What pods cost their nodes' agents.
    Top,
    /// Take everything down.
    Down,
}

/// A command to run inside a pod.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecRequest {
    pub(crate) namespace: String,
    /// Name, unique prefix, or KIND/NAME.
    pub(crate) pod: String,
    pub(crate) container: Option<String>,
    /// Bytes of each argument: names of files need not be text.
    pub(crate) command: Vec<Vec<u8>>,
    /// Folder of the caller, tried when the container names none.
    pub(crate) folder: PathBuf,
    /// PATH, TERM and their like of the caller, over the container's own.
    pub(crate) environment: BTreeMap<String, String>,
    /// Keep capabilities and the mesh's own user.
    pub(crate) privileged: bool,
}

/// Sent by an `exec` client after its request, one a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forward {
    /// Signal number for the command.
    pub(crate) signal: i32,
}

/// What a mesh answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase")]
pub(crate) enum Reply {
    /// The command ended; the code a shell would report.
    Exit { code: u8 },
    /// It cannot be done.
    Refused { reason: String },
    /// The pod that was meant.
    Found(Found),
    /// What runs.
    Status(Status),
    /// A component was replaced.
    Replaced { component: String, detail: String },
    /// All components were replaced.
    Upgraded,
    /// What every node's agent says of its pods, and why some said nothing.
    Top { nodes: BTreeMap<String, Top>, silent: BTreeMap<String, String> },
    /// Everything is going down; the connection closes when the daemon ends.
    Going,
}

/// A pod and where its container's logs lie.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// Current log; older parts stand beside it.
    pub(crate) log: PathBuf,
    /// Log of the run before the last restart.
    pub(crate) previous: PathBuf,
}

/// What runs in a mesh.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) ready: bool,
    /// What is not ready, with the reason.
    pub(crate) waiting: Vec<String>,
    /// Component name → version it was started as.
    pub(crate) components: BTreeMap<String, String>,
    /// Waypoint pods.
    pub(crate) waypoints: Vec<String>,
}

/// Why a mesh could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "mesh {mesh:?} does not answer on {path}: {error}; see its log {log}, or take it down with: lateen down --mesh {mesh}"
    )]
    Unreachable { mesh: String, path: PathBuf, error: io::Error, log: PathBuf },
    #[error("mesh {0:?} ended before it answered")]
    Ended(String),
    #[error("mesh answered what this lateen does not understand ({0}); use the lateen that started it")]
    Malformed(String),
    #[error("{0}")]
    Refused(String),
}

/// Opens the control socket and sends `request` with `descriptors`.
pub(crate) fn send(
    mesh: &MeshDir,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> Result<UnixStream, ControlError> {
    let path = mesh.control_socket();
    let unreachable = |error: io::Error| ControlError::Unreachable {
        mesh: mesh.name().to_owned(),
        path: path.clone(),
        error,
        log: mesh.logs().join("mesh.log"),
    };
    let mut stream = UnixStream::connect(&path).map_err(unreachable)?;
    let body = serde_json::to_vec(request).map_err(|error| unreachable(error.into()))?;
    let length = u32::try_from(body.len()).ok().filter(|n| *n <= LARGEST_REQUEST);
    let length = length.ok_or_else(|| unreachable(io::Error::other("the request is too large")))?;
    send_with_descriptors(&stream, &length.to_be_bytes(), descriptors).map_err(unreachable)?;
    stream.write_all(&body).map_err(unreachable)?;
    Ok(stream)
}

fn send_with_descriptors(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let sent =
        sendmsg::<()>(stream.as_raw_fd(), &[io::IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    // A stream socket takes four bytes at once or not at all.
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Sends a request that has one answer and reads it.
pub(crate) fn ask(mesh: &MeshDir, request: &Request) -> Result<Reply, ControlError> {
    use std::io::BufRead;
    let stream = send(mesh, request, &[])?;
    let mut line = String::new();
    let read = io::BufReader::new(stream).read_line(&mut line);
    if !matches!(read, Ok(n) if n > 0) {
        return Err(ControlError::Ended(mesh.name().to_owned()));
    }
    match parse_reply(&line)? {
        Reply::Refused { reason } => Err(ControlError::Refused(reason)),
        reply => Ok(reply),
    }
}

/// One line of the mesh.
pub(crate) fn parse_reply(line: &str) -> Result<Reply, ControlError> {
    serde_json::from_str(line).map_err(|error| ControlError::Malformed(error.to_string()))
}
