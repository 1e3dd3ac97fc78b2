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

mod follow;

use std::{
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use daemon::tasks::Tasks;
use proto::zds::WorkloadInfo;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use self::follow::{Shared, connect_private};
use crate::{
    listeners::Listeners,
    netns::NetnsFd,
    private::{
        client::{PrivateClient, PrivateError},
        saved::Saved,
    },
    seqpacket::SeqPacket,
};

/// Events that may wait for the proxy.
const QUEUE: usize = 256;

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
        let shared = Shared::new(events, private.clone(), superseded.clone());
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
