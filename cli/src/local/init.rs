//! `__init`: process 1 of a mesh. It starts the daemon, collects orphans, passes SIGTERM on, and ends when the daemon
//! ends; the kernel then ends every process of the namespace. It is apart from the daemon because collecting orphans
//! (`waitpid(-1)`) would take the daemon's own children away from it.

use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Outcome;
use crate::args::MeshArgs;

/// Runs `__init`.
pub(crate) fn run(args: &MeshArgs) -> Outcome {
    set_pdeathsig(Signal::SIGKILL)?;
    if std::process::id() != 1 {
        return Err("__init is how lateen starts itself; use: lateen up".into());
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    prepare_mounts()?;
    let child =
        Command::new("/proc/self/exe").arg("__daemon").arg(&args.state).stdin(Stdio::null()).spawn()?;
    let daemon = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if signals.wait()? == Signal::SIGTERM {
            let _ = kill(daemon, Signal::SIGTERM);
        }
        if let Some(code) = collect(daemon)? {
            return Ok(ExitCode::from(code));
        }
    }
}

/// Collects every ended child; the daemon's exit code if it was among them.
fn collect(daemon: Pid) -> Result<Option<u8>, Errno> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(WaitStatus::Exited(pid, code)) if pid == daemon => {
                return Ok(Some(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, _, _)) if pid == daemon => return Ok(Some(1)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Mounts of the mesh's own: nothing done here reaches the machine, and what is unmounted here goes from the pods too.
fn prepare_mounts() -> Result<(), Box<dyn std::error::Error>> {
    use nix::mount::{MsFlags, mount};
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), hardened, none).map_err(|errno| {
        format!("/proc of the mesh cannot be mounted ({errno}); a container that masks /proc forbids it")
    })?;
    // PostgreSQL and others leave shared memory behind when they are killed.
    if std::path::Path::new("/dev/shm").is_dir() {
        mount(
            Some("tmpfs"),
            "/dev/shm",
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=1777"),
        )?;
    }
    Ok(())
}
