//! The two sockets, each followed for as long as the proxy lives, and connected to again where it ends.

use std::{
    collections::BTreeMap,
    future::pending,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::zds::WorkloadInfo;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{Answer, Outcome, Pod, PodEvent};
use crate::{
    netns::{NetnsFd, NetnsId},
    private::{
        client::{HeldPod, PrivateClient, PrivateError, PrivateNews},
        saved::Saved,
    },
    socket::PROXY_MARK,
    zds::{
        client::{ZdsClient, ZdsClientError, ZdsRequest},
        members::{Addition, Members},
    },
};

/// First and longest pause between attempts to reach the redirector.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(15);
/// Attempts (a good second) before it is worth a warning.
const PATIENT_ATTEMPTS: u32 = 7;
/// How long an `Add` waits for the pod's listeners, which were sent before it over the other socket.
const LISTENERS_TIME: Duration = Duration::from_millis(500);

/// Pause before attempt number `attempt` (from 0).
fn pause(attempt: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempt.min(16)).min(RETRY_LAST)
}

/// Connects to the private socket, for as long as it takes.
pub(super) async fn connect_private(path: &Path) -> (PrivateClient, Vec<Saved>) {
    let mut attempt = 0;
    loop {
        match PrivateClient::connect(path).await {
            Ok(connected) => return connected,
            Err(error @ PrivateError::Refused(_)) => warn!(%error, "trying again"),
            Err(error) if attempt >= PATIENT_ATTEMPTS => {
                warn!(%error, path = %path.display(), "the redirector is not there; is `node-agent redirect` running?");
            }
            Err(error) => debug!(%error, "the redirector is not there yet"),
        }
        sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// A pod that was given to the proxy.
#[derive(Debug)]
struct Entry {
    netns: NetnsId,
    outcome: watch::Receiver<Outcome>,
    /// Whether it came with a hand-over and ZDS has not named it yet.
    unconfirmed: bool,
}

impl Entry {
    fn has_failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }
}

/// What follows the sockets has in common.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    table: Arc<Mutex<BTreeMap<String, Entry>>>,
    events: mpsc::Sender<PodEvent>,
    private: watch::Receiver<Option<Arc<PrivateClient>>>,
    /// A newer proxy is there or will be: one that connected again would take its place.
    superseded: Arc<AtomicBool>,
}

impl Shared {
    /// Nothing was told yet.
    pub(super) fn new(
        events: mpsc::Sender<PodEvent>,
        private: watch::Receiver<Option<Arc<PrivateClient>>>,
        superseded: Arc<AtomicBool>,
    ) -> Self {
        Self { table: Arc::default(), events, private, superseded }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn emit(&self, event: PodEvent) {
        let _ = self.events.send(event).await;
    }

    /// Gives a pod to the proxy.
    async fn start(&self, pod: Pod, unconfirmed: bool) {
        let (sender, outcome) = watch::channel(None);
        let entry = Entry { netns: pod.netns.id(), outcome, unconfirmed };
        self.table().insert(pod.uid.clone(), entry);
        self.emit(PodEvent::Add { pod: Box::new(pod), answer: Answer(sender) }).await;
    }

    /// Reads the private socket, and connects again when it ends, unless there is a newer proxy.
    pub(super) async fn follow_private(
        self,
        path: PathBuf,
        mut client: Arc<PrivateClient>,
        current: watch::Sender<Option<Arc<PrivateClient>>>,
        complete: watch::Sender<bool>,
    ) {
        loop {
            let mut handing_over = true;
            let error = loop {
                match client.next().await {
                    Ok(PrivateNews::Complete) => {
                        handing_over = false;
                        complete.send_replace(true);
                    }
                    Ok(news) => self.take_private(news, handing_over).await,
                    Err(error) => break error,
                }
            };
            current.send_replace(None);
            if self.superseded.load(Ordering::Relaxed) {
                info!(%error, "lost the redirector; this proxy ends or has a successor");
                return pending().await;
            }
            warn!(%error, "lost the redirector; serving goes on");
            // The state of a redirector that was restarted is older than ours, if it has one at all: whoever holds
            // a [`FeedHandle`] is told, and stores again.
            client = Arc::new(connect_private(&path).await.0);
            current.send_replace(Some(client.clone()));
        }
    }

    async fn take_private(&self, news: PrivateNews, handing_over: bool) {
        match news {
            PrivateNews::Pod(pod) => self.take_pod(*pod, handing_over).await,
            PrivateNews::Draining(uid) => self.emit(PodEvent::Draining { uid }).await,
            PrivateNews::Resumed(uid) => self.emit(PodEvent::Resumed { uid }).await,
            PrivateNews::Superseded(successor) => {
                self.superseded.store(true, Ordering::Relaxed);
                self.emit(PodEvent::Superseded(successor)).await;
            }
            PrivateNews::Predecessor(predecessor) => self.emit(PodEvent::Predecessor(predecessor)).await,
            // ZDS has said so already.
            PrivateNews::Removed(_) | PrivateNews::Complete => {}
        }
    }

    async fn take_pod(&self, held: HeldPod, handing_over: bool) {
        let served = self
            .table()
            .get(&held.uid)
            .is_some_and(|entry| entry.netns == held.netns.id() && !entry.has_failed());
        let HeldPod { uid, info, netns, listeners, draining, app_mark } = held;
        if served {
            self.emit(PodEvent::Listeners { uid: uid.clone(), listeners, app_mark }).await;
            // Also a redirector that was restarted and knows nothing of the pod's leaving has the last word.
            let event = if draining { PodEvent::Draining { uid } } else { PodEvent::Resumed { uid } };
            self.emit(event).await;
        } else {
            let pod = Pod { uid, info, netns, listeners: Some(listeners), draining, app_mark };
            self.start(pod, handing_over).await;
        }
    }

    /// Speaks ZDS, and connects again when it ends, unless there is a newer proxy.
    pub(super) async fn follow_zds(self, path: PathBuf) {
        let mut members = Members::default();
        let mut attempt = 0;
        while !self.superseded.load(Ordering::Relaxed) {
            match ZdsClient::connect(&path).await {
                Ok(client) => {
                    members.begin();
                    let error = self.serve_zds(&client, &mut members, &mut attempt).await;
                    info!(%error, "lost the ZDS socket; serving goes on");
                }
                Err(error) => debug!(%error, "the redirector is not there yet"),
            }
            sleep(pause(attempt)).await;
            attempt += 1;
        }
        pending().await
    }

    async fn serve_zds(
        &self,
        client: &ZdsClient,
        members: &mut Members,
        attempt: &mut u32,
    ) -> ZdsClientError {
        loop {
            let request = match client.next().await {
                Ok(request) => request,
                Err(error) => return error,
            };
            *attempt = 0;
            let outcome = match request {
                ZdsRequest::Add { uid, info, netns } => Ok(self.add(members, uid, info, netns).await),
                ZdsRequest::Del { uid } => Ok(self.del(members, uid).await),
                ZdsRequest::Keep { uid } => members.keep(&uid).map(|known| {
                    if !known {
                        warn!(uid, "asked to keep a pod that was never here");
                    }
                    Ok(())
                }),
                ZdsRequest::SnapshotSent => match members.end() {
                    Ok(gone) => Ok(self.end_snapshot(gone).await),
                    Err(error) => Err(error),
                },
            };
            let answered = match outcome {
                Ok(outcome) => client.ack(outcome).await,
                Err(error) => return client.refuse(error.to_string()).await,
            };
            if let Err(error) = answered {
                return error;
            }
        }
    }

    async fn add(
        &self,
        members: &mut Members,
        uid: String,
        info: WorkloadInfo,
        netns: NetnsFd,
    ) -> Result<(), String> {
        let addition = members.add(&uid, netns.id());
        let mut outcome = self.given(&uid, netns.id()).await;
        if outcome.is_none() {
            debug!(uid, ?addition, "a pod without listeners");
            debug_assert!(addition != Addition::Known || self.table().get(&uid).is_none());
            let pod = Pod {
                uid: uid.clone(),
                info,
                netns: netns.clone(),
                listeners: None,
                draining: false,
                app_mark: PROXY_MARK,
            };
            self.start(pod, false).await;
            outcome = self.confirm(&uid, netns.id());
        }
        let result = match outcome {
            Some(mut outcome) => match outcome.wait_for(Option::is_some).await {
                Ok(answer) => answer.clone().unwrap_or(Ok(())),
                Err(_) => Err("the proxy is stopping".into()),
            },
            None => Err("the pod was removed meanwhile".into()),
        };
        if result.is_err() {
            // Told once; the next addition starts the pod anew.
            members.failed(&uid);
            self.table().remove(&uid);
        }
        result
    }

    /// The outcome of a pod that was given to the proxy already; waits a moment for one whose listeners are on
    /// their way.
    async fn given(&self, uid: &str, netns: NetnsId) -> Option<watch::Receiver<Outcome>> {
        if self.private.borrow().is_none() {
            return self.confirm(uid, netns);
        }
        let arrival = async {
            loop {
                if let Some(outcome) = self.confirm(uid, netns) {
                    return outcome;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LISTENERS_TIME, arrival).await.ok()
    }

    fn confirm(&self, uid: &str, netns: NetnsId) -> Option<watch::Receiver<Outcome>> {
        let mut table = self.table();
        let entry = table.get_mut(uid).filter(|entry| entry.netns == netns)?;
        entry.unconfirmed = false;
        Some(entry.outcome.clone())
    }

    async fn del(&self, members: &mut Members, uid: String) -> Result<(), String> {
        if members.del(&uid) {
            self.table().remove(&uid);
            self.emit(PodEvent::Remove { uid }).await;
        }
        Ok(())
    }

    /// Drops what went away unseen: pods known from before, and pods of the hand-over that ZDS did not name.
    async fn end_snapshot(&self, mut gone: Vec<String>) -> Result<(), String> {
        let unconfirmed: Vec<_> =
            self.table().iter().filter(|(_, entry)| entry.unconfirmed).map(|(uid, _)| uid.clone()).collect();
        gone.extend(unconfirmed);
        for uid in gone {
            self.table().remove(&uid);
            self.emit(PodEvent::Remove { uid }).await;
        }
        self.emit(PodEvent::Synced).await;
        Ok(())
    }
}
