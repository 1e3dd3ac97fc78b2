//! Keeps the proxying role running: a child process, restarted at once when it ends, more slowly when it keeps
//! ending.

use std::{ffi::OsString, future::pending, path::PathBuf, sync::Arc, time::Duration};

use daemon::shutdown::Shutdown;
use futures_util::future::select_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::socket::die_with_parent;

/// A proxy that ran this long was well, and is replaced at once: a start costs a twentieth of it, the connections that
/// would wait cost more.
const WELL: Duration = Duration::from_secs(1);
/// Longest pause before a restart.
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// How many that were replaced may still run: each holds on to its connections for its grace, and to its memory.
const MOST_RETIRING: usize = 8;

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

/// What the supervisor is told while it runs. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    replace: Arc<Notify>,
    let_go: Shutdown,
}

impl Orders {
    /// Starts another program beside the one that runs, which is to end by itself once the new one has taken over from
    /// it. If the new one does not get so far, the old one goes on.
    pub fn replace(&self) {
        self.replace.notify_one();
    }

    /// Starts nothing any more: somebody else does. What runs ends by itself.
    pub fn let_go(&self) {
        self.let_go.begin();
    }

    /// Waits until that is said.
    pub(crate) async fn let_go_begun(&self) {
        self.let_go.begun().await;
    }
}

/// Runs the program until `shutdown` begins; then asks it to drain and returns once it has ended. Its output goes
/// where ours goes.
///
/// Call it on the main thread: the child dies with the thread that started it, however that ends.
pub async fn run(program: Program, orders: Orders, shutdown: Shutdown) {
    let mut failures = 0;
    // Those that another has taken the place of, or will.
    let mut retiring = Vec::new();
    while !shutdown.has_begun() && !orders.let_go.has_begun() {
        let started = Instant::now();
        match start(&program) {
            Ok(child) => {
                info!(pid = child.id(), "started the proxy");
                if watch(child, &mut retiring, &orders, &shutdown).await == Next::AtOnce {
                    failures = 0;
                    continue;
                }
            }
            Err(error) => {
                error!(%error, path = %program.path.display(), "cannot start the proxy; trying again")
            }
        }
        failures = if started.elapsed() >= WELL { 1 } else { failures + 1 };
        tokio::select! {
            () = sleep(pause(failures)) => {}
            () = orders.let_go.begun() => {}
            () = shutdown.begun() => {}
        }
    }
    tokio::select! {
        () = wait_for_all(&mut retiring) => {}
        () = shutdown.begun() => drain_all(retiring, program.drain).await,
    }
}

/// What follows on a proxy that is watched no more.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Another is to be started beside it.
    AtOnce,
    /// It has ended, or is the last.
    AfterAPause,
}

/// Watches over a running proxy, and over those before it, until it has ended or retires as well.
async fn watch(mut child: Child, retiring: &mut Vec<Child>, orders: &Orders, shutdown: &Shutdown) -> Next {
    let next = loop {
        tokio::select! {
            ended = child.wait() => {
                match ended {
                    Ok(status) => warn!(%status, "the proxy has ended; starting another"),
                    Err(error) => error!(%error, "the proxy cannot be waited for"),
                }
                return Next::AfterAPause;
            }
            () = one_ends(retiring) => {}
            () = orders.replace.notified() => {
                if retiring.len() < MOST_RETIRING {
                    break Next::AtOnce;
                }
                warn!(
                    retiring = retiring.len(),
                    "the proxy is not replaced: as many as may be that were replaced before still have connections; \
                     wait until one has ended, or end one"
                );
            }
            () = orders.let_go.begun() => break Next::AfterAPause,
            () = shutdown.begun() => break Next::AfterAPause,
        }
    };
    retiring.push(child);
    next
}

/// Waits until one of them has ended, and forgets it.
async fn one_ends(children: &mut Vec<Child>) {
    if children.is_empty() {
        return pending().await;
    }
    let (ended, index, _) = select_all(children.iter_mut().map(|child| Box::pin(child.wait()))).await;
    if let Err(error) = ended {
        error!(%error, "a proxy that was replaced cannot be waited for");
    }
    children.swap_remove(index);
}

/// Whether a process was started by this one, and is no one's that was taken over.
pub(super) fn is_child(process: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.and_then(|parent| parent.trim().parse().ok()) == Some(std::process::id())
}

fn start(program: &Program) -> std::io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.args(&program.args).envs(program.env.iter().map(|(key, value)| (key, value)));
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    die_with_parent(&mut command);
    command.spawn()
}

async fn wait_for_all(children: &mut Vec<Child>) {
    for child in children.iter_mut() {
        if let Err(error) = child.wait().await {
            error!(%error, "the proxy cannot be waited for");
        }
    }
    children.clear();
}

/// Asks them all to drain, and ends those that take too long.
async fn drain_all(mut children: Vec<Child>, time: Duration) {
    for pid in children.iter().filter_map(Child::id).filter_map(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if timeout(time, wait_for_all(&mut children)).await.is_ok() {
        return info!("the proxy has drained");
    }
    warn!(seconds = time.as_secs(), "the proxy has not drained in time; ending it");
    for child in &mut children {
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use daemon::shutdown::Shutdown;
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use tokio::time::timeout;

    use super::{MOST_RETIRING, Orders, PAUSE_LAST, Program, pause, run};

    #[test]
    fn the_first_restart_is_at_once_and_the_pause_is_bounded() {
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), Duration::from_millis(10));
        assert_eq!(pause(3), Duration::from_millis(20));
        assert_eq!(pause(40), PAUSE_LAST);
    }

    /// A program that writes down its process, and that it was asked to drain.
    fn program(log: &Path) -> Program {
        let script =
            "echo $$ $ROLE >> $LOG; trap 'echo drained >> $LOG; exit' TERM; while :; do sleep 0.05; done";
        Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("ROLE".into(), "proxy".into()), ("LOG".into(), log.into())],
            drain: Duration::from_secs(5),
        }
    }

    async fn lines(log: &Path, count: usize) -> Vec<String> {
        let wait = async {
            loop {
                let text = fs::read_to_string(log).unwrap_or_default();
                if text.lines().count() >= count {
                    return text.lines().map(str::to_owned).collect::<Vec<_>>();
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(5), wait).await.expect("lines in time")
    }

    fn kill_first(lines: &[String]) {
        let pid = lines[0].strip_suffix(" proxy").unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn a_killed_child_is_replaced_and_the_last_one_drains() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let shutdown = Shutdown::default();
        let running = tokio::spawn(run(program(&log), Orders::default(), shutdown.clone()));
        kill_first(&lines(&log, 1).await);
        let both = lines(&log, 2).await;
        assert_ne!(both[0], both[1]);
        shutdown.begin();
        timeout(Duration::from_secs(5), running).await.expect("drains").unwrap();
        assert_eq!(lines(&log, 3).await[2], "drained");
    }

    #[tokio::test]
    async fn one_that_is_replaced_runs_on_and_what_is_let_go_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (orders, shutdown) = (Orders::default(), Shutdown::default());
        let running = tokio::spawn(run(program(&log), orders.clone(), shutdown.clone()));
        let first = lines(&log, 1).await;
        orders.replace();
        let both = lines(&log, 2).await;
        assert_ne!(both[0], both[1]);
        // The first has taken no notice.
        kill_first(&first);
        orders.let_go();
        kill_first(&both[1..]);
        timeout(Duration::from_secs(5), running).await.expect("both have ended").unwrap();
        assert_eq!(lines(&log, 2).await.len(), 2, "nothing was started any more");
    }
    #[tokio::test]
    async fn those_that_were_replaced_are_forgotten_as_they_end_and_there_are_never_many() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (orders, shutdown) = (Orders::default(), Shutdown::default());
        let running = tokio::spawn(run(program(&log), orders.clone(), shutdown.clone()));
        for count in 1..=MOST_RETIRING {
            lines(&log, count).await;
            orders.replace();
        }
        let all = lines(&log, MOST_RETIRING + 1).await;
        orders.replace();
        // It runs on this thread: it has decided before the first one ends.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        kill_first(&all);
        // Not even its entry in the table of processes is left, though nobody asks for anything.
        let entry = Path::new("/proc").join(all[0].strip_suffix(" proxy").unwrap());
        let gone = async {
            while entry.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.expect("reaped in time");
        assert_eq!(lines(&log, 1).await.len(), MOST_RETIRING + 1, "one more than may be was not started");
        orders.replace();
        lines(&log, MOST_RETIRING + 2).await;
        shutdown.begin();
        timeout(Duration::from_secs(5), running).await.expect("all drain").unwrap();
    }
}
