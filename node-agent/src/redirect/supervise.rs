//! Keeps the proxying role running: a child process, restarted at once when it ends, more slowly when it keeps
//! ending.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use daemon::shutdown::Shutdown;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::socket::die_with_parent;

/// A proxy that ran this long was well, and is replaced at once: a start costs a twentieth of it, the connections that
/// would wait cost more.
const WELL: Duration = Duration::from_secs(1);
/// Longest pause before a restart.
const PAUSE_LAST: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Settings it gets over those of this process.
    pub env: Vec<(String, OsString)>,
    /// How long it may take to end when asked to.
    pub drain: Duration,
}

/// The pause before restart number `failures` (1 is the first after a well run): none at first, then doubling.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(10).saturating_mul(1 << (failures - 2).min(12)).min(PAUSE_LAST),
    }
}

/// Runs the program until `shutdown` begins; then asks it to drain and returns once it has ended. Its output goes
/// where ours goes.
///
/// Call it on the main thread: the child dies with the thread that started it, however that ends.
pub async fn run(program: Program, shutdown: Shutdown) {
    let mut failures = 0;
    while !shutdown.has_begun() {
        let started = Instant::now();
        match start(&program) {
            Ok(mut child) => {
                info!(pid = child.id(), "started the proxy");
                tokio::select! {
                    ended = child.wait() => match ended {
                        Ok(status) => warn!(%status, "the proxy has ended; starting another"),
                        Err(error) => error!(%error, "the proxy cannot be waited for"),
                    },
                    () = shutdown.begun() => return drain(child, program.drain).await,
                }
            }
            Err(error) => {
                error!(%error, path = %program.path.display(), "cannot start the proxy; trying again")
            }
        }
        failures = if started.elapsed() >= WELL { 1 } else { failures + 1 };
        tokio::select! {
            () = sleep(pause(failures)) => {}
            () = shutdown.begun() => {}
        }
    }
}

fn start(program: &Program) -> std::io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.args(&program.args).envs(program.env.iter().map(|(key, value)| (key, value)));
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    die_with_parent(&mut command);
    command.spawn()
}

async fn drain(mut child: Child, time: Duration) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    match timeout(time, child.wait()).await {
        Ok(_) => info!("the proxy has drained"),
        Err(_) => {
            warn!(seconds = time.as_secs(), "the proxy has not drained in time; ending it");
            let _ = child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use daemon::shutdown::Shutdown;
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use tokio::time::timeout;

    use super::{PAUSE_LAST, Program, pause, run};

    #[test]
    fn the_first_restart_is_at_once_and_the_pause_is_bounded() {
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), Duration::from_millis(10));
        assert_eq!(pause(3), Duration::from_millis(20));
        assert_eq!(pause(40), PAUSE_LAST);
    }

    #[tokio::test]
    async fn a_killed_child_is_replaced_and_the_last_one_drains() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script =
            "echo $$ $ROLE >> $LOG; trap 'echo drained >> $LOG; exit' TERM; while :; do sleep 0.05; done";
        let program = Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("ROLE".into(), "proxy".into()), ("LOG".into(), log.clone().into())],
            drain: Duration::from_secs(5),
        };
        let shutdown = Shutdown::default();
        let running = tokio::spawn(run(program, shutdown.clone()));
        let lines = async |count: usize| {
            let wait = async {
                loop {
                    let text = fs::read_to_string(&log).unwrap_or_default();
                    if text.lines().count() >= count {
                        return text.lines().map(str::to_owned).collect::<Vec<_>>();
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            timeout(Duration::from_secs(5), wait).await.expect("lines in time")
        };
        let first = lines(1).await;
        let pid = first[0].strip_suffix(" proxy").unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let both = lines(2).await;
        assert_ne!(both[0], both[1]);
        shutdown.begin();
        timeout(Duration::from_secs(5), running).await.expect("drains").unwrap();
        assert_eq!(lines(3).await[2], "drained");
    }
}
