//! Brings what is captured to what should be: compares the catalog with what the enroller did, and starts one
//! action a pod at a time. What fails is tried again, with growing pauses.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::{debug, error, warn};

use super::{
    apply::{self, ApplyError},
    catalog::Catalog,
    eligible::{PodFacts, Verdict},
    enrol::{EnrolError, Enroller, PodSpec, Status},
    notes::{Note, Notes},
    probes::Probes,
    rules::RuleSet,
    whereabouts::{self, Whereabouts, WhereaboutsError},
};
use crate::zds::WorkloadInfo;

/// How long one attempt waits for the proxy.
const ATTEMPT_TIME: Duration = Duration::from_secs(5);
/// First and longest pause between attempts at one pod.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// Why a pod could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Its network namespace was not found.
    #[error(transparent)]
    Where(#[from] WhereaboutsError),
    /// The node's own rules for probes: under STRICT the pod would never be ready.
    #[error("the kubelet's probes cannot be let through: {0}")]
    Probes(#[source] ApplyError),
    /// See [`EnrolError`].
    #[error(transparent)]
    Enrol(#[from] EnrolError),
}

/// Captures and releases pods, and notes it on their objects. Clones share it.
#[derive(Clone, Debug)]
pub struct Capturer {
    /// Does the work inside namespaces.
    pub enroller: Enroller,
    /// Writes the annotation.
    pub notes: Notes,
    /// The node's default rules.
    pub defaults: RuleSet,
    /// Finds pods' network namespaces.
    pub whereabouts: Whereabouts,
    /// Lets the kubelet's probes through; `None` where probes come with that source address by themselves.
    pub probes: Option<Probes>,
    /// What was done.
    pub counts: Arc<Counts>,
}

/// How many pods were captured, and when.
#[derive(Debug, Default)]
pub struct Counts {
    /// Before anything of them started, since their runtime asked.
    pub started: AtomicU64,
    /// While they ran: those that were enrolled, and those that had slipped through.
    pub running: AtomicU64,
}

impl Capturer {
    /// What is to be done for this pod, in the namespace at `netns`, or in the one that is found.
    ///
    /// # Errors
    /// When the namespace cannot be found.
    pub async fn spec(&self, pod: &PodFacts, netns: Option<&Path>) -> Result<PodSpec, CaptureError> {
        let netns = match netns {
            Some(path) => whereabouts::open(path)?,
            None => self.whereabouts.find(pod).await?,
        };
        let info = WorkloadInfo {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
        };
        let rules = pod.rules(&self.defaults);
        Ok(PodSpec { uid: pod.uid.clone(), info, netns, ips: pod.ips.clone(), rules })
    }

    /// Captures a pod and notes it once the proxy has acknowledged.
    ///
    /// # Errors
    /// See [`CaptureError`]. The rules may stand: the pod is then cut off, and noted as pending if it never was served.
    pub async fn capture(
        &self,
        pod: &PodFacts,
        netns: Option<&Path>,
        deadline: Instant,
    ) -> Result<(), CaptureError> {
        let outcome = self.enrol(pod, netns, deadline).await;
        self.note(pod, if outcome.is_ok() { Note::Enabled } else { Note::Pending }).await;
        outcome
    }

    async fn enrol(
        &self,
        pod: &PodFacts,
        netns: Option<&Path>,
        deadline: Instant,
    ) -> Result<(), CaptureError> {
        let spec = self.spec(pod, netns).await?;
        // First: a probe that came between the two would fail.
        if let Some(probes) = &self.probes {
            probes.admit([pod]).await.map_err(CaptureError::Probes)?;
        }
        Ok(self.enroller.enrol(spec, deadline).await?)
    }

    /// Lets a living pod go. The note goes first: peers should stop opening tunnels.
    ///
    /// # Errors
    /// When its rules cannot be changed.
    pub async fn release(&self, pod: &PodFacts) -> Result<(), CaptureError> {
        self.note(pod, Note::Absent).await;
        self.enroller.release(&pod.uid).await?;
        self.forget_probes(&pod.uid).await;
        Ok(())
    }

    /// Clears a pod that an earlier run of this role captured and that no longer belongs to the mesh.
    ///
    /// # Errors
    /// When its rules cannot be removed.
    pub async fn clear(&self, pod: &PodFacts) -> Result<(), CaptureError> {
        let spec = self.spec(pod, None).await?;
        self.enroller.check(&spec)?;
        apply::remove(&spec.netns, self.enroller.nft()).await.map_err(EnrolError::from)?;
        self.note(pod, Note::Absent).await;
        Ok(())
    }

    /// A pod is gone.
    pub async fn forget(&self, uid: &str) {
        self.enroller.forget(uid).await;
        self.forget_probes(uid).await;
        self.notes.forget(uid);
    }

    async fn forget_probes(&self, uid: &str) {
        if let Some(probes) = &self.probes {
            probes.forget(uid).await;
        }
    }

    pub(super) async fn note(&self, pod: &PodFacts, note: Note) {
        if let Err(error) = self.notes.write(pod, note).await {
            warn!(%error, pod = pod.name, namespace = pod.namespace, "a pod's redirection could not be noted");
        }
    }
}

/// What is to be done about one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Capture(PodFacts),
    /// It is captured, and its object does not say so.
    Note(PodFacts),
    Release(PodFacts),
    Clear(PodFacts),
    Forget,
}

/// What is to be done, by uid, given how the pods stand.
fn actions(
    catalog: &Catalog,
    stand: &HashMap<String, Status>,
    defaults: &RuleSet,
    whereabouts: &Whereabouts,
) -> HashMap<String, Action> {
    let mut actions = HashMap::new();
    for pod in catalog.pods() {
        let status = stand.get(&pod.uid).unwrap_or(&Status::Out);
        let action = match (catalog.verdict(pod), status) {
            (Verdict::Captured, Status::Served(rules)) if *rules == pod.rules(defaults) => {
                (!pod.is_noted_enabled()).then(|| Action::Note(pod.clone()))
            }
            (Verdict::Captured, Status::Out) if whereabouts.is_left_to_cni(pod) => None,
            (Verdict::Captured, _) => Some(Action::Capture(pod.clone())),
            (Verdict::Left(_), Status::Out) => pod.is_noted().then(|| Action::Clear(pod.clone())),
            (Verdict::Left(_), Status::Draining) | (Verdict::Ended, Status::Out) => None,
            (Verdict::Left(_), _) => Some(Action::Release(pod.clone())),
            (Verdict::Ended, _) => Some(Action::Forget),
        };
        if let Some(action) = action {
            actions.insert(pod.uid.clone(), action);
        }
    }
    let known: HashSet<_> = catalog.pods().map(|pod| pod.uid.as_str()).collect();
    for uid in stand.keys().filter(|uid| !known.contains(uid.as_str())) {
        actions.insert(uid.clone(), Action::Forget);
    }
    actions
}

/// How often what should be is compared with what is, besides when something changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Of pods at which an attempt failed: the last pause, and until when it lasts.
type Pauses = HashMap<String, (Duration, Instant)>;

/// Works until the catalog's feed ends.
pub async fn run(capturer: Capturer, mut catalog: watch::Receiver<Arc<Catalog>>) {
    let mut running = Running::default();
    let mut pauses = Pauses::new();
    loop {
        let current = catalog.borrow_and_update().clone();
        let due = actions(&current, &capturer.enroller.statuses(), &capturer.defaults, &capturer.whereabouts);
        pauses.retain(|uid, _| due.contains_key(uid));
        for (uid, action) in due {
            let waiting = pauses.get(&uid).is_some_and(|(_, until)| Instant::now() < *until);
            if !waiting && !running.busy.contains_key(&uid) {
                running.start(uid.clone(), perform(capturer.clone(), uid, action));
            }
        }
        let next = next_look(&pauses, &running.busy, Instant::now());
        tokio::select! {
            changed = catalog.changed() => if changed.is_err() { return },
            Some((uid, done)) = running.ended() => if !done {
                let pause = pauses.get(&uid).map_or(RETRY_FIRST, |(pause, _)| (*pause * 2).min(RETRY_LAST));
                pauses.insert(uid, (pause, Instant::now() + pause));
            },
            () = sleep_until(next) => {}
        }
    }
}

/// When to look next, if nothing changes before. The pause of a pod that is being acted on is over, and nothing can be
/// done about that pod until this ends.
fn next_look(pauses: &Pauses, busy: &HashMap<String, Id>, now: Instant) -> Instant {
    let idle = pauses.iter().filter(|(uid, _)| !busy.contains_key(*uid));
    idle.map(|(_, (_, until))| *until).fold(now + LOOK_AGAIN, Instant::min)
}

/// The actions that run, one a pod.
#[derive(Debug, Default)]
struct Running {
    tasks: JoinSet<bool>,
    busy: HashMap<String, Id>,
}

impl Running {
    /// Starts an action of a pod for which none runs.
    fn start(&mut self, uid: String, action: impl Future<Output = bool> + Send + 'static) {
        self.busy.insert(uid, self.tasks.spawn(action).id());
    }

    /// Waits for the end of one: whose it was, and whether it succeeded. One that panics has failed, and its pod is free
    /// for the next. `None` while none runs; may be dropped at any time.
    async fn ended(&mut self) -> Option<(String, bool)> {
        let (id, done) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => {
                error!(%error, "an attempt at a pod broke off, which is a defect: please report it; trying again");
                (error.id(), false)
            }
        };
        let uid = self.busy.iter().find(|(_, task)| **task == id).map(|(uid, _)| uid.clone())?;
        self.busy.remove(&uid);
        Some((uid, done))
    }
}

/// Performs one action; whether it succeeded.
async fn perform(capturer: Capturer, uid: String, action: Action) -> bool {
    let outcome = match &action {
        Action::Capture(pod) => {
            let captured = capturer.capture(pod, None, Instant::now() + ATTEMPT_TIME).await;
            capturer.counts.running.fetch_add(u64::from(captured.is_ok()), Ordering::Relaxed);
            captured
        }
        Action::Note(pod) => {
            capturer.note(pod, Note::Enabled).await;
            // Done once its object says so, of which there will be news.
            return false;
        }
        Action::Release(pod) => capturer.release(pod).await,
        Action::Clear(pod) => capturer.clear(pod).await,
        Action::Forget => {
            capturer.forget(&uid).await;
            Ok(())
        }
    };
    match &outcome {
        Ok(()) => debug!(uid, ?action, "done"),
        Err(error) => warn!(uid, %error, "a pod is not as it should be; trying again"),
    }
    outcome.is_ok()
}

#[cfg(test)]
mod tests;
