//! `__join`: a process of its own that enters the namespaces of a running container or of a node, and becomes an
//! `exec`'s command, with the caller's own stdin, stdout and stderr.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::enter::{NOT_FOUND, NOT_RUNNABLE, exec_code, locate};
use super::spec::{self, JoinSpec, Place};
use super::user;
use crate::Outcome;
use crate::args::SpecArgs;

/// Runs `__join`; returns only if that failed.
pub(crate) fn run(args: &SpecArgs) -> Outcome {
    let spec: JoinSpec = spec::take(&args.spec)?;
    // Signals of the caller are forwarded to this group.
    let _ = nix::unistd::setsid();
    if let Err(reason) = enter(&spec) {
        eprintln!("lateen: exec: {reason}");
        return Ok(ExitCode::from(NOT_RUNNABLE));
    }
    let mut words = spec.command.iter().map(|bytes| OsStr::from_bytes(bytes));
    let Some(program) = words.next() else { return Ok(ExitCode::from(NOT_RUNNABLE)) };
    let path = spec.environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let Some(file) = locate(&program.to_string_lossy(), path) else {
        eprintln!("lateen: exec: {}: command not found", program.display());
        return Ok(ExitCode::from(NOT_FOUND));
    };
    let mut command = Command::new(file);
    command.arg0(program).args(words).env_clear().envs(spec.environment.iter().cloned());
    let error = command.exec();
    eprintln!("lateen: exec: {}: {error}", program.display());
    Ok(ExitCode::from(exec_code(&error)))
}

fn enter(spec: &JoinSpec) -> Result<(), String> {
    let join = |file: File, flag: CloneFlags| setns(file, flag).map_err(|e| format!("namespaces: {e}"));
    let process = match &spec.place {
        Place::Node(netns) => {
            let netns = File::open(netns).map_err(|error| format!("the node is gone ({error})"))?;
            join(netns, CloneFlags::CLONE_NEWNET)?;
            return choose_folder(spec);
        }
        Place::Container(process) => process,
    };
    let open = |name: &str| {
        let path = format!("/proc/{process}/ns/{name}");
        File::open(path).map_err(|error| format!("the container has ended ({error})"))
    };
    // All are opened before the first is entered: afterwards /proc is another.
    let (net, uts, mnt, user) = (open("net")?, open("uts")?, open("mnt")?, open("user")?);
    join(net, CloneFlags::CLONE_NEWNET)?;
    join(uts, CloneFlags::CLONE_NEWUTS)?;
    join(mnt, CloneFlags::CLONE_NEWNS)?;
    choose_folder(spec)?;
    if spec.user.mapped.is_some() {
        match setns(user, CloneFlags::CLONE_NEWUSER) {
            // It is the namespace we are in.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(format!("user namespace: {errno}")),
        }
    }
    user::limit_capabilities(&spec.user).map_err(|error| format!("capabilities: {error}"))
}

/// The first folder that is there.
fn choose_folder(spec: &JoinSpec) -> Result<(), String> {
    if spec.folders.iter().any(|folder| std::env::set_current_dir(folder).is_ok()) {
        return Ok(());
    }
    std::env::set_current_dir("/").map_err(|error| format!("/: {error}"))
}
