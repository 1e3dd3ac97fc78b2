//! `__keeper`: holds a mesh from outside. It takes the lock of the state folder, makes the namespaces, starts process
//! 1 in them and stays as its parent: when `lateen up` goes away before it has detached the mesh, or when the keeper
//! is asked to end, process 1 goes, and with it, by the kernel, everything inside; then it removes the folder.
//!
//! It is single-threaded throughout: a thread could not enter the new PID namespace.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::Outcome;
use crate::args::MeshArgs;
use crate::control::Event;
use crate::local::preflight::UNSUITABLE;
use crate::state::{MeshDir, MeshFile};

/// Milliseconds that a mesh may take to go down by itself before the kernel does it.
const GRACE: u16 = 15_000;

/// What the keeper of `lateen up` tells its parent it may go: the mesh stays.
pub(crate) const DETACH: u8 = b'd';

/// Runs `__keeper`. Its stdin is held by `lateen up`: a line of JSON (a [`MeshFile`]), then silence; [`DETACH`] or
/// the end of the stream says what becomes of the mesh. Its stdout carries [`Event`]s.
pub(crate) fn run(args: &MeshArgs) -> Outcome {
    // Ctrl-C in the terminal is `lateen up`'s to handle.
    let _ = nix::unistd::setsid();
    let mesh = MeshDir::at(&args.state);
    let mut file = match read_orders() {
        Ok(file) => file,
        Err(error) => return fail(format!("the keeper got no orders: {error}"), 1),
    };
    let _lock = match mesh.create() {
        Ok(lock) => lock,
        Err(error) => return fail(error.to_string(), 1),
    };
    file.keeper = Some(std::process::id());
    let code = match hold(&mesh, &file) {
        Ok(0) => ExitCode::SUCCESS,
        // Whoever already said why has been heard first.
        Ok(code) => fail(unexpected(&mesh), code)?,
        Err(Refusal { reason, code }) => fail(reason, code)?,
    };
    if let Err(error) = mesh.remove() {
        return fail(format!("{}: {error}; remove it by hand", mesh.root().display()), 1);
    }
    Ok(code)
}

/// What is known when a mesh ended by itself: its last words, which go with its folder.
fn unexpected(mesh: &MeshDir) -> String {
    const LINES: usize = 12;
    let log = fs::read_to_string(mesh.logs().join("mesh.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    format!("the mesh ended unexpectedly:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

/// Why the mesh could not be started, and the exit code that says so.
struct Refusal {
    reason: String,
    code: u8,
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self { reason: error.to_string(), code: 1 }
    }
}

fn hold(mesh: &MeshDir, file: &MeshFile) -> Result<u8, Refusal> {
    mesh.write_mesh_file(file)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    enter_namespaces(file)?;
    let log = fs::OpenOptions::new().create(true).append(true).open(mesh.logs().join("mesh.log"))?;
    let child = Command::new("/proc/self/exe")
        .arg("__init")
        .arg(mesh.root())
        .stdin(Stdio::null())
        .stderr(log)
        .current_dir("/")
        .spawn()?;
    watch(child, &signals)
}

/// New PID, network, UTS and IPC namespaces for the children; for an ordinary user inside a user namespace that maps
/// the caller to root. Mounts stay the machine's: the keeper has to remove files that are mount points inside.
fn enter_namespaces(file: &MeshFile) -> Result<(), Refusal> {
    let others = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if file.rootless {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| no_user_namespaces(&errno.to_string()))?;
        let map = |name: &str, text: String| {
            fs::write(format!("/proc/self/{name}"), text)
                .map_err(|error| no_user_namespaces(&error.to_string()))
        };
        map("setgroups", "deny".to_owned())?;
        map("uid_map", format!("0 {} 1", file.uid))?;
        map("gid_map", format!("0 {} 1", file.gid))?;
    }
    unshare(others).map_err(|errno| match errno {
        Errno::EPERM | Errno::EACCES | Errno::ENOSPC if file.rootless => {
            no_user_namespaces(&errno.to_string())
        }
        _ => Refusal { reason: format!("namespaces cannot be made here: {errno}"), code: UNSUITABLE },
    })
}

fn no_user_namespaces(what: &str) -> Refusal {
    let reason = super::preflight::user_namespace_advice(what);
    Refusal { reason, code: UNSUITABLE }
}

/// Waits until process 1 ends, ending it when the parent or a signal wants so. Returns its exit code.
fn watch(mut child: Child, signals: &SignalFd) -> Result<u8, Refusal> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let stdin = io::stdin();
    let mut parent_held = true;
    let mut ending = false;
    loop {
        let mut waiting = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if parent_held {
            waiting.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let patience = if ending { PollTimeout::from(GRACE) } else { PollTimeout::NONE };
        let ready = match poll(&mut waiting, patience) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if ready == 0 {
            // It had its time.
            child.kill()?;
        }
        let mut end = false;
        while let Some(info) = signals.read_signal()? {
            end |= info.ssi_signo != Signal::SIGCHLD as u32;
        }
        if parent_held && waiting.get(1).is_some_and(|fd| fd.any() == Some(true)) {
            parent_held = false;
            end |= !matches!(read_byte(), Some(DETACH));
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        if end && !ending {
            ending = true;
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

fn read_byte() -> Option<u8> {
    let mut byte = [0];
    match io::stdin().lock().read(&mut byte) {
        Ok(1) => Some(byte[0]),
        _ => None,
    }
}

/// Reads the one line of orders byte by byte: what follows it must stay in the pipe for `poll` to see.
fn read_orders() -> io::Result<MeshFile> {
    let mut stdin = fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = Vec::new();
    let mut byte = [0];
    while stdin.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).map_err(io::Error::other)
}

fn fail(reason: String, code: u8) -> Outcome {
    let event = Event::Failed { reason, code };
    let mut line = serde_json::to_vec(&event)?;
    line.push(b'\n');
    // The parent may be gone.
    let _ = io::stdout().write_all(&line);
    Ok(ExitCode::from(code))
}
