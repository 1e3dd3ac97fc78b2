//! One container's life: started, probed, started again when its policy says so, ended when the pod ends. A task of
//! its own that tells the pod what changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::local::containers::run::{self, Host, Order, Started};
use crate::local::logs::LogFile;
use crate::local::manifests::Manifests;
use crate::local::probes::{self, Prober};

/// Wait before the second start of a container; doubled with every further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait between starts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// What a container gets to end, however long it took before it was asked to.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);
/// A container that ran this long starts from the first wait again.
const STEADY: Duration = Duration::from_secs(60);

/// When an ended container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    pub(super) fn of(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// What happened to a container.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// It cannot be started now, and why.
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        process: u32,
    },
    /// Its startup probe succeeded.
    Started,
    Ready(bool),
    /// It ended; `over`: for good.
    Ended {
        code: i32,
        signal: Option<i32>,
        over: bool,
    },
}

/// A container to live.
pub(super) struct Life {
    pub(super) host: Arc<Host>,
    pub(super) pod: Pod,
    pub(super) container: Container,
    pub(super) manifests: watch::Receiver<Arc<Manifests>>,
    pub(super) netns: std::path::PathBuf,
    pub(super) prober: Prober,
    pub(super) log: LogFile,
    pub(super) policy: Policy,
    /// Number of the container in its pod, sent with every change.
    pub(super) index: usize,
    pub(super) changes: mpsc::Sender<(usize, Change)>,
    pub(super) stop: CancellationToken,
    /// How long it may take to end when asked to.
    pub(super) grace: Duration,
}

/// How one run of a container ended.
struct End {
    code: i32,
    signal: Option<i32>,
}

impl Life {
    async fn tell(&self, change: Change) {
        // The pod has ended if nobody listens.
        let _ = self.changes.send((self.index, change)).await;
    }

    /// Lives until the container is over or `stop` says so.
    pub(super) async fn run(self) {
        let mut backoff = FIRST_BACKOFF;
        let mut starts = 0;
        while !self.stop.is_cancelled() {
            if starts > 0 {
                self.log.start_again();
            }
            starts += 1;
            let begun = Instant::now();
            let code = match self.start().await {
                Ok(started) => {
                    let end = self.attend(started).await;
                    let over = self.stop.is_cancelled() || !self.policy.restarts(end.code);
                    self.tell(Change::Ended { code: end.code, signal: end.signal, over }).await;
                    end.code
                }
                Err(message) => {
                    let text = format!("lateen: container {}: {message}\n", self.container.name);
                    self.log.write(text.as_bytes());
                    self.tell(Change::Waiting { reason: "RunContainerError", message }).await;
                    if self.policy == Policy::Never {
                        self.tell(Change::Ended { code: 128, signal: None, over: true }).await;
                    }
                    128
                }
            };
            if !self.policy.restarts(code) {
                return;
            }
            if begun.elapsed() > STEADY {
                backoff = FIRST_BACKOFF;
            }
            let _ = tokio::time::timeout(backoff, self.stop.cancelled()).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn start(&self) -> Result<Started, String> {
        let manifests = Arc::clone(&self.manifests.borrow());
        let order = Order {
            pod: &self.pod,
            container: &self.container,
            manifests: &manifests,
            netns: &self.netns,
            log: self.log.clone(),
        };
        run::start(&self.host, &order).await
    }

    /// Stays with a running container until it ends or has to.
    async fn attend(&self, mut started: Started) -> End {
        self.tell(Change::Running { process: started.process }).await;
        let status = tokio::select! {
            status = started.child.wait() => status,
            () = self.probe(started.process) => self.end(&mut started).await,
            () = self.stop.cancelled() => self.end(&mut started).await,
        };
        // What it left running belongs to nobody.
        let mounts = started.mounts;
        let _ = tokio::task::spawn_blocking(move || run::kill_namespace("mnt", mounts)).await;
        let status = status.ok();
        let signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
        let code = status.and_then(|status| status.code());
        End { code: code.unwrap_or(128 + signal.unwrap_or(0)), signal }
    }

    /// Runs the probes; returns when one of them says that the container must be started again.
    async fn probe(&self, process: u32) {
        let check =
            |probe| probes::Check { prober: &self.prober, probe, container: &self.container, process };
        if let Some(probe) = &self.container.startup_probe
            && !probes::until_success(&check(probe)).await
        {
            self.log.write(b"lateen: the startup probe failed; the container is started again\n");
            return;
        }
        self.tell(Change::Started).await;
        let readiness = async {
            let Some(probe) = &self.container.readiness_probe else {
                self.tell(Change::Ready(true)).await;
                return std::future::pending().await;
            };
            let mut watch = probes::Watch::new(check(probe), false);
            loop {
                let ready = watch.change().await;
                self.tell(Change::Ready(ready)).await;
            }
        };
        let liveness = async {
            let Some(probe) = &self.container.liveness_probe else { return std::future::pending().await };
            probes::until_failure(&check(probe)).await;
        };
        tokio::select! {
            () = readiness => {}
            () = liveness => self.log.write(b"lateen: the liveness probe failed; the container is started again\n"),
        }
    }

    /// Does what the manifest says is to be done before the container ends: a sleep, a command or a request.
    async fn pre_stop(&self, process: u32) {
        let lifecycle = self.container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        }
        let probe = Probe {
            exec: hook.exec.clone(),
            http_get: hook.http_get.clone(),
            tcp_socket: hook.tcp_socket.clone(),
            ..Probe::default()
        };
        let check =
            probes::Check { prober: &self.prober, probe: &probe, container: &self.container, process };
        if let Err(error) = check.try_once().await {
            self.log.write(format!("lateen: preStop: {error}\n").as_bytes());
        }
    }

    /// Asks the container to end, and ends it when it does not.
    async fn end(&self, started: &mut Started) -> std::io::Result<std::process::ExitStatus> {
        let grace = self.grace.min(self.host.longest_grace());
        let begun = Instant::now();
        // What it does before it is asked to end counts towards its time.
        let _ = tokio::time::timeout(grace, self.pre_stop(started.process)).await;
        if let Ok(process) = i32::try_from(started.process) {
            // It leads a session and group of its own.
            let _ = kill(Pid::from_raw(-process), Signal::SIGTERM);
        }
        let grace = grace.saturating_sub(begun.elapsed()).max(SHORTEST_GRACE);
        match tokio::time::timeout(grace, started.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                started.child.start_kill()?;
                started.child.wait().await
            }
        }
    }
}
