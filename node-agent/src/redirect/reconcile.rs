//! Brings what is captured to what should be: compares the catalog with what the enroller did, and starts one
//! action a pod at a time. What fails is tried again, with growing pauses.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    apply,
    catalog::Catalog,
    eligible::{PodFacts, Verdict},
    enrol::{EnrolError, Enroller, PodSpec, Status},
    notes::{Note, Notes},
    rules::RuleSet,
};
use crate::{netns::NetnsFd, zds::WorkloadInfo};

/// How long one attempt waits for the proxy.
const ATTEMPT_TIME: Duration = Duration::from_secs(5);
/// First and longest pause between attempts at one pod.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// Why a pod could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Nobody said where its network namespace is.
    #[error("the network namespace of the pod is not known: its object has no annotation lateen.dev/netns")]
    NoPath,
    /// The path does not lead to it.
    #[error("cannot open the pod's network namespace at {path}: {source}")]
    Open {
        /// The path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
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
}

impl Capturer {
    /// What is to be done for this pod, in the namespace at `netns`, or where the pod's annotation says.
    ///
    /// # Errors
    /// When the namespace cannot be found.
    pub fn spec(&self, pod: &PodFacts, netns: Option<&Path>) -> Result<PodSpec, CaptureError> {
        let path = netns.map(Path::to_owned).or_else(|| pod.netns()).ok_or(CaptureError::NoPath)?;
        let netns = NetnsFd::open(&path)
            .map_err(|source| CaptureError::Open { path: path.display().to_string(), source })?;
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
    /// See [`CaptureError`]. The rules may stand: the pod is then cut off, and noted as pending.
    pub async fn capture(
        &self,
        pod: &PodFacts,
        netns: Option<&Path>,
        deadline: Instant,
    ) -> Result<(), CaptureError> {
        let outcome = match self.spec(pod, netns) {
            Ok(spec) => self.enroller.enrol(spec, deadline).await.map_err(CaptureError::from),
            Err(error) => Err(error),
        };
        self.note(pod, if outcome.is_ok() { Note::Enabled } else { Note::Pending }).await;
        outcome
    }

    /// Lets a living pod go. The note goes first: peers should stop opening tunnels.
    ///
    /// # Errors
    /// When its rules cannot be changed.
    pub async fn release(&self, pod: &PodFacts) -> Result<(), CaptureError> {
        self.note(pod, Note::Absent).await;
        Ok(self.enroller.release(&pod.uid).await?)
    }

    /// Clears a pod that an earlier run of this role captured and that no longer belongs to the mesh.
    ///
    /// # Errors
    /// When its rules cannot be removed.
    pub async fn clear(&self, pod: &PodFacts) -> Result<(), CaptureError> {
        let spec = self.spec(pod, None)?;
        self.enroller.check(&spec)?;
        apply::remove(&spec.netns, self.enroller.nft()).await.map_err(EnrolError::from)?;
        self.note(pod, Note::Absent).await;
        Ok(())
    }

    async fn note(&self, pod: &PodFacts, note: Note) {
        let (notes, facts) = (self.notes.clone(), pod.clone());
        match tokio::task::spawn_blocking(move || notes.write(&facts, note)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, pod = pod.name, "a pod's redirection could not be noted"),
            Err(error) => warn!(%error, pod = pod.name, "a pod's redirection could not be noted"),
        }
    }
}

/// What is to be done about one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Capture(PodFacts),
    Release(PodFacts),
    Clear(PodFacts),
    Forget,
}

/// What is to be done, by uid, given how the pods stand.
fn actions(
    catalog: &Catalog,
    stand: &HashMap<String, Status>,
    defaults: &RuleSet,
) -> HashMap<String, Action> {
    let mut actions = HashMap::new();
    for pod in catalog.pods() {
        let status = stand.get(&pod.uid).unwrap_or(&Status::Out);
        let action = match (catalog.verdict(pod), status) {
            (Verdict::Captured, Status::Served(rules)) if *rules == pod.rules(defaults) => None,
            (Verdict::Captured, Status::Out) if is_left_to_cni(pod) => None,
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

/// A pod that is just being made: its runtime asks before it starts anything in it. Also one whose namespace
/// nobody has told.
fn is_left_to_cni(pod: &PodFacts) -> bool {
    pod.netns().is_none() || (!pod.is_noted() && pod.phase != "Running")
}

/// How often what should be is compared with what is, besides when something changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Works until the catalog's feed ends.
pub async fn run(capturer: Capturer, mut catalog: watch::Receiver<Arc<Catalog>>) {
    let mut running: JoinSet<(String, bool)> = JoinSet::new();
    let mut busy: HashSet<String> = HashSet::new();
    let mut pauses: HashMap<String, (Duration, Instant)> = HashMap::new();
    loop {
        let current = catalog.borrow_and_update().clone();
        let due = actions(&current, &capturer.enroller.statuses(), &capturer.defaults);
        pauses.retain(|uid, _| due.contains_key(uid));
        for (uid, action) in due {
            let waiting = pauses.get(&uid).is_some_and(|(_, until)| Instant::now() < *until);
            if waiting || !busy.insert(uid.clone()) {
                continue;
            }
            running.spawn(perform(capturer.clone(), uid, action));
        }
        let next = pauses.values().map(|(_, until)| *until).min();
        let next = next.unwrap_or_else(|| Instant::now() + LOOK_AGAIN);
        tokio::select! {
            changed = catalog.changed() => if changed.is_err() { return },
            Some(Ok((uid, done))) = running.join_next() => {
                busy.remove(&uid);
                if !done {
                    let pause = pauses.get(&uid).map_or(RETRY_FIRST, |(pause, _)| (*pause * 2).min(RETRY_LAST));
                    pauses.insert(uid, (pause, Instant::now() + pause));
                }
            }
            () = sleep_until(next) => {}
        }
    }
}

/// Performs one action; whether it succeeded.
async fn perform(capturer: Capturer, uid: String, action: Action) -> (String, bool) {
    let outcome = match &action {
        Action::Capture(pod) => capturer.capture(pod, None, Instant::now() + ATTEMPT_TIME).await,
        Action::Release(pod) => capturer.release(pod).await,
        Action::Clear(pod) => capturer.clear(pod).await,
        Action::Forget => {
            capturer.enroller.forget(&uid).await;
            Ok(())
        }
    };
    match &outcome {
        Ok(()) => debug!(uid, ?action, "done"),
        Err(error) => warn!(uid, %error, "a pod is not as it should be; trying again"),
    }
    (uid, outcome.is_ok())
}

#[cfg(test)]
mod tests;
