//! `__container`: a process of its own that enters a pod's namespaces, builds its root and becomes the container's
//! command. Its stdin is a pipe to the daemon: words on it are why it failed, its end without a word is success.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns, unshare};

use super::spec::{self, ContainerSpec};
use super::{root, user};
use crate::Outcome;
use crate::args::SpecArgs;

/// Exit code when the command does not exist, as shells have it.
pub(crate) const NOT_FOUND: u8 = 127;
/// Exit code when the command cannot be run.
pub(crate) const NOT_RUNNABLE: u8 = 126;

/// Runs `__container`; returns only if that failed.
pub(crate) fn run(args: &SpecArgs) -> Outcome {
    // A copy that closes by itself when the command starts.
    let mut report = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (reason, code) = match prepare(&args.spec) {
        Ok(mut command) => {
            let error = command.exec();
            (explain(&command, &error), exec_code(&error))
        }
        Err(reason) => (reason, NOT_RUNNABLE),
    };
    report.write_all(reason.as_bytes())?;
    Ok(ExitCode::from(code))
}

fn prepare(path: &Path) -> Result<Command, String> {
    let says = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    let spec: ContainerSpec = spec::take(path).map_err(says("what to run"))?;
    // A session of its own: signals to its process group reach the container and nothing else.
    let _ = nix::unistd::setsid();
    let netns = File::open(&spec.netns).map_err(says("network namespace"))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| format!("network namespace: {e}"))?;
    unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS).map_err(|e| format!("namespaces: {e}"))?;
    nix::unistd::sethostname(&spec.hostname).map_err(|e| format!("hostname: {e}"))?;
    root::enter(&spec)?;
    let null = OpenOptions::new().read(true).open("/dev/null").map_err(says("/dev/null"))?;
    nix::unistd::dup2_stdin(null).map_err(|e| format!("stdin: {e}"))?;
    user::become_user(&spec.user).map_err(says("user namespace"))?;
    command(&spec)
}

fn command(spec: &ContainerSpec) -> Result<Command, String> {
    let (program, arguments) = spec.command.split_first().ok_or("no command")?;
    let folder = spec.folder.as_deref().unwrap_or(Path::new("/"));
    std::env::set_current_dir(folder).map_err(|error| format!("workingDir {}: {error}", folder.display()))?;
    let path = spec.environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let mut command = Command::new(locate(program, path).ok_or_else(|| not_found(program, path))?);
    command.arg0(program).args(arguments).env_clear().envs(spec.environment.iter().cloned());
    Ok(command)
}

fn not_found(program: &str, path: &str) -> String {
    format!("command {program:?} is not on this machine (PATH={path})")
}

/// The file a command name means, searched as `execvp` does but in the container's PATH.
pub(super) fn locate(program: &str, path: &str) -> Option<std::path::PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let candidates = path.split(':').map(|folder| Path::new(folder).join(program));
    let runnable = |file: &std::path::PathBuf| {
        fs::metadata(file).is_ok_and(|m| m.is_file())
            && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok()
    };
    candidates.into_iter().find(runnable)
}

fn explain(command: &Command, error: &io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => format!("command {program:?} is not on this machine"),
        _ => format!("command {program:?}: {error}"),
    }
}

/// The exit code a shell would report when a command cannot be started.
pub(super) fn exec_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}
