//! Runs the table in process, mount and network namespaces of its own, so that nothing outlives it.
//!
//! `bench table` starts itself again as the first process of a PID namespace: when that ends, however it ends,
//! the kernel ends every proxy and server it started, and with them their network namespaces.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};

use crate::pinned;

/// Set in the inner process's environment.
const INSIDE: &str = "LATEEN_BENCH_INSIDE";

/// Replaces this process by `unshare … bench (the same arguments)`, unless that has been done already: then this program is kept
/// in memory ([`pinned`]).
///
/// `real_time` runs the table and all it starts under round-robin real-time scheduling, which keeps
/// other work on the machine out of the figures (percentiles above all).
pub(crate) fn enter(real_time: bool) -> io::Result<()> {
    if env::var_os(INSIDE).is_some() {
        pinned::all_of(nix::unistd::getpid());
        return Ok(());
    }
    let mut words = Vec::new();
    if real_time {
        words.extend(["chrt", "--rr", "1"]);
    }
    words.extend(["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let program = env::current_exe()?;
    let error = Command::new(words[0])
        .args(&words[1..])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(io::Error::new(error.kind(), format!("cannot run `{}`: {error}; it is in util-linux", words[0])))
}

/// Blocks the signals that would end this process, for it to wait for them or to outlast whom they are for. To be called
/// before there are threads.
pub(crate) fn hold_signals() -> io::Result<SigSet> {
    let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    Ok(set)
}

/// The first process of a PID namespace is deaf to signals without a handler: one thread waits for them, removes
/// `folder` and ends the process, and with it all others. To be called before there are threads.
pub(crate) fn end_on_signals(folder: &Path) -> io::Result<()> {
    // Only the waiting thread ever gets one.
    let set = hold_signals()?;
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        if let Ok(signal) = set.wait() {
            eprintln!("bench: {signal}, taking everything down");
        }
        // What cannot be removed is in the machine's folder for temporary files.
        let _ = fs::remove_dir_all(folder);
        std::process::exit(130);
    });
    Ok(())
}
