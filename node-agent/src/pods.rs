//! How pods join and leave the proxy: ZDS and the private socket as one stream of [`PodEvent`]s.
//!
//! With our own redirector everything comes over the private socket first, at once, and ZDS confirms it; with a
//! foreign one (istio-cni) only ZDS speaks and the proxy opens its listeners itself
//! ([`Listeners::open`](crate::listeners::Listeners::open)).
//!
//! ```text
//! let (mut feed, saved) = Feed::open(Sources { zds, private: Some(path) }).await;
//! // saved: what the predecessor stored; serve from it until the controller has answered
//! while let Some(event) = feed.next().await {
//!     match event {
//!         PodEvent::Add { pod, answer } => answer.give(start(*pod)),
//!         …
//!     }
//! }
//! ```

use std::{
    collections::BTreeMap,
    future::pending,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daemon::tasks::Tasks;
use proto::zds::WorkloadInfo;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    listeners::Listeners,
    netns::{NetnsFd, NetnsId},
    private::{
        client::{HeldPod, PrivateClient, PrivateError, PrivateNews},
        saved::Saved,
    },
    seqpacket::SeqPacket,
    socket::PROXY_MARK,
    zds::{
        client::{ZdsClient, ZdsClientError, ZdsRequest},
        members::{Addition, Members},
    },
};

/// Events that may wait for the proxy.
const QUEUE: usize = 256;
/// First and longest pause between attempts to reach the redirector.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(15);
/// Attempts (a good second) before it is worth a warning.
const PATIENT_ATTEMPTS: u32 = 7;
/// How long an `Add` waits for the pod's listeners, which were sent before it over the other socket.
const LISTENERS_TIME: Duration = Duration::from_millis(500);

/// Where the redirector listens.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The ZDS socket (`INPOD_UDS`).
    pub zds: PathBuf,
    /// The private socket; `None` under a redirector that is not ours.
    pub private: Option<PathBuf>,
}

/// A pod to serve.
#[derive(Debug)]
pub struct Pod {
    /// Kubernetes uid.
    pub uid: String,
    /// Name, namespace and account: with the trust domain its identity.
    pub info: WorkloadInfo,
    /// Its network namespace, to dial from.
    pub netns: NetnsFd,
    /// Its open listeners; `None` under a foreign redirector: open them.
    pub listeners: Option<Listeners>,
    /// Whether it is leaving the mesh, see [`PodEvent::Draining`].
    pub draining: bool,
    /// Mark of what is opened to its application: what its rules expect.
    pub app_mark: u32,
}

/// What happens to the node's pods.
#[derive(Debug)]
pub enum PodEvent {
    /// Serve this pod, then give the answer: enrolment waits for it, and fails if it is an error. If a pod of
    /// the same uid is being served, its namespace is gone: this one takes its place.
    Add {
        /// The pod.
        pod: Box<Pod>,
        /// To be told the outcome.
        answer: Answer,
    },
    /// A pod being served gets new listeners (the redirector was restarted): accept from these, keep the
    /// connections.
    Listeners {
        /// Which pod.
        uid: String,
        /// Its new listeners.
        listeners: Listeners,
        /// Mark of what is opened to its application from now on.
        app_mark: u32,
    },
    /// The pod leaves the mesh: nothing new is captured. Go on serving, also its tunnels; call
    /// [`FeedHandle::drained`] once its last connection has ended.
    Draining {
        /// Which pod.
        uid: String,
    },
    /// A leaving pod stays.
    Resumed {
        /// Which pod.
        uid: String,
    },
    /// Stop serving the pod at once: it is gone, or was drained.
    Remove {
        /// Which pod.
        uid: String,
    },
    /// All pods of the node are known: a condition of readiness.
    Synced,
    /// A newer proxy has the listeners: stop accepting and drain; hand over what can be, if there is a socket for it.
    Superseded(Option<SeqPacket>),
    /// This proxy takes another's place, which hands over what it can on this socket. All of its pods are known.
    Predecessor(SeqPacket),
}

type Outcome = Option<Result<(), String>>;

/// How the proxy tells whether it serves a pod. Dropping it is an error.
#[derive(Debug)]
pub struct Answer(watch::Sender<Outcome>);

impl Answer {
    /// The pod is served, or why not.
    pub fn give(self, outcome: Result<(), String>) {
        self.0.send_replace(Some(outcome));
    }
}

/// The stream of events.
#[derive(Debug)]
pub struct Feed {
    events: mpsc::Receiver<PodEvent>,
    handle: FeedHandle,
    tasks: Tasks,
}

/// What the proxy tells the redirector; clones share it.
#[derive(Clone, Debug)]
pub struct FeedHandle {
    private: watch::Receiver<Option<Arc<PrivateClient>>>,
    superseded: Arc<AtomicBool>,
    ours: bool,
}

impl FeedHandle {
    /// Whether the redirector is ours: it holds the listeners, too, and starts proxies.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Connects to no other redirector: whoever ends must not be given what the proxy after it is to serve.
    pub fn leave(&self) {
        self.superseded.store(true, Ordering::Relaxed);
    }

    /// Asks the redirector for another proxy, which is to take this one's place.
    pub async fn ask_for_another(&self) {
        let private = self.private.borrow().clone();
        if let Some(private) = private
            && let Err(error) = private.leaving().await
        {
            debug!(%error, "could not ask for another proxy; this one ends without");
        }
    }

    /// Waits until there is no redirector.
    pub async fn lost(&mut self) {
        // Nobody follows it any more: there is none either.
        let _ = self.private.wait_for(Option::is_none).await;
    }

    /// Keeps these files (state and certificates) for this proxy's successor, in place of those before. Does nothing
    /// while there is no private socket: call it again when there is one ([`reconnected`](Self::reconnected)).
    ///
    /// # Errors
    /// When the redirector is gone.
    pub async fn store(&self, files: &[Arc<Saved>]) -> Result<(), PrivateError> {
        let private = self.private.borrow().clone();
        match private {
            Some(private) => private.store(files).await,
            None => Ok(()),
        }
    }

    /// Waits for a connection to another redirector, which has nothing that the one before kept. For ever where no
    /// more will come.
    pub async fn reconnected(&mut self) {
        while self.private.changed().await.is_ok() {
            if self.private.borrow_and_update().is_some() {
                return;
            }
        }
        pending().await
    }

    /// Reports that the last connection of a draining pod has ended.
    pub async fn drained(&self, uid: &str) {
        let private = self.private.borrow().clone();
        if let Some(private) = private
            && let Err(error) = private.drained(uid).await
        {
            debug!(%error, uid, "could not report a drained pod; the next hand-over asks again");
        }
    }
}

impl Feed {
    /// Connects, for as long as it takes, and returns the stream and what the predecessor stored. The pods of
    /// the hand-over are the first events.
    pub async fn open(sources: Sources) -> (Self, Vec<Saved>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let (private_sender, private) = watch::channel(None);
        let superseded = Arc::<AtomicBool>::default();
        let shared = Shared {
            table: Arc::default(),
            events,
            private: private.clone(),
            superseded: superseded.clone(),
        };
        let tasks = Tasks::default();
        let mut saved = Vec::new();
        let ours = sources.private.is_some();
        if let Some(path) = sources.private {
            let (client, state) = connect_private(&path).await;
            saved = state;
            let client = Arc::new(client);
            private_sender.send_replace(Some(client.clone()));
            let (complete, mut completed) = watch::channel(false);
            let private = shared.clone().follow_private(path, client, private_sender, complete);
            tasks.spawn_lasting("private socket", private);
            let zds = shared.follow_zds(sources.zds);
            tasks.spawn_lasting("ZDS", async move {
                // ZDS only confirms what the hand-over brought: let that be complete first.
                let _ = completed.wait_for(|complete| *complete).await;
                zds.await;
            });
        } else {
            tasks.spawn_lasting("ZDS", shared.follow_zds(sources.zds));
        }
        (Self { events: receiver, handle: FeedHandle { private, superseded, ours }, tasks }, saved)
    }

    /// The next event. `None`: one of the sockets is followed no more, which is a defect.
    pub async fn next(&mut self) -> Option<PodEvent> {
        tokio::select! {
            biased;
            event = self.events.recv() => event,
            _ = self.tasks.broken() => None,
        }
    }

    /// To talk back.
    #[must_use]
    pub fn handle(&self) -> FeedHandle {
        self.handle.clone()
    }
}

/// Pause before attempt number `attempt` (from 0).
fn pause(attempt: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempt.min(16)).min(RETRY_LAST)
}

async fn connect_private(path: &std::path::Path) -> (PrivateClient, Vec<Saved>) {
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

#[derive(Clone, Debug)]
struct Shared {
    table: Arc<Mutex<BTreeMap<String, Entry>>>,
    events: mpsc::Sender<PodEvent>,
    private: watch::Receiver<Option<Arc<PrivateClient>>>,
    /// A newer proxy is there or will be: one that connected again would take its place.
    superseded: Arc<AtomicBool>,
}

impl Shared {
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
    async fn follow_private(
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
    async fn follow_zds(self, path: PathBuf) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_feed_ends_when_one_of_its_sockets_is_followed_no_more() {
        let (sender, events) = mpsc::channel(QUEUE);
        let (_private, private) = watch::channel(None);
        let handle = FeedHandle { private, superseded: Arc::default(), ours: true };
        let tasks = Tasks::default();
        let others = sender.clone();
        tasks.spawn_lasting("private socket", async move {
            let _others = others;
            pending().await
        });
        tasks.spawn_lasting("ZDS", async move {
            sender.send(PodEvent::Synced).await.expect("somebody listens");
            panic!("on purpose");
        });
        let mut feed = Feed { events, handle, tasks };
        assert!(matches!(feed.next().await, Some(PodEvent::Synced)), "what was told before is passed on");
        assert!(feed.next().await.is_none());
    }
}
