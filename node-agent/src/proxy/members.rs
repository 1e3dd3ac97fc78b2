//! The node's pods as they come and go: each gets a home thread, its certificate ahead of need, and an end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemon::readiness::Readiness;
use daemon::shutdown::Shutdown;
use model::Identity;
use model::address::Str;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::Agent;
use super::app::PODS;
use super::connections::GONE;
use super::handover::{self, Predecessor, Retirement, Successor};
use super::pod::{Phase, Pod};
use super::worker::Job;
use crate::listeners::Listeners;
use crate::pods::{self, Feed, FeedHandle, PodEvent};

/// How often it is looked whether a leaving pod has ended its last connection.
const DRAIN_CHECK: Duration = Duration::from_millis(100);

/// What ends this proxy, or takes its place.
pub(crate) struct Ends {
    /// The end of the process.
    pub(crate) shutdown: Shutdown,
    /// Where newer proxies go.
    pub(crate) retirement: mpsc::Sender<Retirement>,
}

/// Follows the events of pods until the process ends.
pub(crate) async fn follow(agent: Arc<Agent>, mut feed: Feed, readiness: Readiness, ends: Ends) {
    let handle = feed.handle();
    let mut members = Members {
        agent,
        handle,
        next_home: 0,
        identities: HashMap::new(),
        workloads: HashMap::new(),
        seen: 0,
        told: HashSet::new(),
    };
    let mut check = interval(DRAIN_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut predecessors, mut newer) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            event = feed.next() => match event {
                Some(PodEvent::Synced) => readiness.done(PODS),
                Some(PodEvent::Superseded(None)) => retire(&members.agent, &ends, Retirement::Drain),
                Some(PodEvent::Superseded(Some(socket))) => drop(newer.spawn(Successor::meet(socket))),
                Some(PodEvent::Predecessor(socket)) => {
                    let predecessor = Predecessor::new(&members.agent, socket);
                    predecessors.spawn(take_over(predecessor, readiness.clone()));
                }
                // What is drained takes nothing new.
                Some(PodEvent::Add { answer, .. }) if ends.shutdown.has_begun() => {
                    answer.give(Err("this proxy is ending".into()));
                }
                Some(PodEvent::Listeners { .. } | PodEvent::Resumed { .. }) if ends.shutdown.has_begun() => {}
                Some(event) => members.take(event).await,
                None => return,
            },
            Some(_) = predecessors.join_next() => {}
            Some(met) = newer.join_next() => match met {
                Ok(Ok(successor)) => retire(&members.agent, &ends, Retirement::HandOver(successor)),
                Ok(Err(error)) => tracing::warn!(%error, "a newer proxy has not got far; this one goes on"),
                Err(_) => {}
            },
            _ = check.tick() => {
                members.report_drained().await;
                members.follow_identities();
            }
        }
    }
}

/// A newer proxy serves: this one begins to end.
fn retire(agent: &Agent, ends: &Ends, retirement: Retirement) {
    tracing::info!("a newer proxy has taken over");
    // Before the end begins: whoever sees that looks here.
    let _ = ends.retirement.try_send(retirement);
    agent.superseded.begin();
    ends.shutdown.begin();
}

async fn take_over(predecessor: Predecessor, readiness: Readiness) {
    match handover::take(predecessor, &readiness).await {
        Ok(connections) => tracing::info!(connections, "took over from the proxy before"),
        Err(error) => tracing::warn!(%error, "the proxy before has not handed everything over"),
    }
}

struct Members {
    agent: Arc<Agent>,
    handle: FeedHandle,
    next_home: usize,
    /// Which pod's certificate is fetched ahead, by pod.
    identities: HashMap<Arc<str>, Identity>,
    /// Namespace and name of what a pod belongs to, which may be forgotten before the pod has gone.
    workloads: HashMap<Arc<str>, (String, Str)>,
    /// The revision of the state by which they were looked at.
    seen: u64,
    /// Leaving pods of which it was said already that their last connection has ended.
    told: HashSet<Arc<str>>,
}

impl Members {
    async fn take(&mut self, event: PodEvent) {
        match event {
            PodEvent::Add { pod, answer } => answer.give(self.add(*pod).await),
            PodEvent::Listeners { uid, listeners, app_mark } => self.listen(&uid, listeners, app_mark).await,
            PodEvent::Draining { uid } => self.set_phase(&uid, Phase::Draining),
            PodEvent::Resumed { uid } => self.set_phase(&uid, Phase::Serving),
            PodEvent::Remove { uid } => self.remove(&uid).await,
            PodEvent::Synced | PodEvent::Superseded(_) | PodEvent::Predecessor(_) => {}
        }
    }

    async fn add(&mut self, added: pods::Pod) -> Result<(), String> {
        self.remove(&added.uid).await;
        let listeners = match added.listeners {
            Some(listeners) => listeners,
            None => Listeners::open(&added.netns, true).map_err(|error| error.to_string())?,
        };
        let home = self.next_home % self.agent.workers.len();
        self.next_home += 1;
        let pod = Arc::new(Pod::new(
            &added.uid,
            added.info,
            added.netns,
            self.agent.account(),
            home,
            added.app_mark,
        ));
        if added.draining {
            pod.set_phase(Phase::Draining);
        }
        self.agent.pods().insert(pod.uid.clone(), pod.clone());
        self.warm_up(&pod);
        tracing::info!(pod = %pod.name, namespace = %pod.namespace, "serving");
        self.agent.workers[home].send(Job::Serve { pod, listeners }).await;
        Ok(())
    }

    /// Fetches the pod's certificate before its first connection needs it. As long as the controller has not told of
    /// the pod, its identity is a guess.
    fn warm_up(&mut self, pod: &Pod) {
        let identity = {
            let mesh = self.agent.state.read();
            pod.workload(&mesh).map_or_else(
                || {
                    let trust_domain = mesh.settings().trust_domain.clone();
                    Identity::new(trust_domain, pod.namespace.as_str(), pod.service_account.as_str())
                },
                |workload| {
                    let named = (pod.namespace.clone(), workload.profile.workload_name.clone());
                    self.workloads.insert(pod.uid.clone(), named);
                    workload.identity().clone()
                },
            )
        };
        if self.identities.get(&pod.uid) == Some(&identity) {
            return;
        }
        self.agent.trust.certificates.prefetch(&identity);
        if let Some(before) = self.identities.insert(pod.uid.clone(), identity) {
            self.forget_unless_used(&before);
        }
    }

    /// Brings the identities up to what the controller has told since: kept under a wrong one, a certificate would
    /// neither be there in time nor ever be let go.
    fn follow_identities(&mut self) {
        let now = self.agent.state.changes().borrow().any;
        if std::mem::replace(&mut self.seen, now) == now {
            return;
        }
        let pods: Vec<Arc<Pod>> = self.agent.pods().values().cloned().collect();
        pods.iter().for_each(|pod| self.warm_up(pod));
    }

    fn forget_unless_used(&self, identity: &Identity) {
        if !self.identities.values().any(|other| other == identity) {
            self.agent.trust.certificates.forget(identity);
        }
    }

    async fn listen(&self, uid: &str, listeners: Listeners, app_mark: u32) {
        let Some(pod) = self.agent.pods().get(uid).cloned() else { return };
        pod.set_app_mark(app_mark);
        let home = pod.home;
        self.agent.workers[home].send(Job::Serve { pod, listeners }).await;
    }

    fn set_phase(&mut self, uid: &str, phase: Phase) {
        // Whoever asks, perhaps anew after a restart, has not been told.
        self.told.remove(uid);
        if let Some(pod) = self.agent.pods().get(uid) {
            pod.set_phase(phase);
        }
    }

    async fn remove(&mut self, uid: &str) {
        self.told.remove(uid);
        let Some(pod) = self.agent.pods().remove(uid) else { return };
        self.agent.refused_before.fetch_add(pod.account.refused(), Ordering::Relaxed);
        pod.set_phase(Phase::Gone);
        for worker in &self.agent.workers {
            worker.send(Job::Stop { uid: pod.uid.clone() }).await;
        }
        for detached in self.agent.parking.of_pod(uid) {
            detached.give_up(GONE);
        }
        if let Some(identity) = self.identities.remove(&pod.uid) {
            self.forget_unless_used(&identity);
        }
        self.retire_series(&pod);
        tracing::info!(pod = %pod.name, namespace = %pod.namespace, "no longer serving");
    }

    /// What was counted of a workload goes with the last of its pods on this node.
    fn retire_series(&mut self, pod: &Pod) {
        let Some(workload) = self.workloads.remove(&pod.uid) else { return };
        if !self.workloads.values().any(|other| *other == workload) {
            self.agent.traffic.retire(&pod.namespace, &workload.1);
        }
    }

    /// Tells the redirecting role, once, which leaving pods have ended their last connection.
    async fn report_drained(&mut self) {
        // What a predecessor has is this proxy's too.
        if !self.agent.predecessors.none() {
            return;
        }
        let leaving = |pod: &&Arc<Pod>| pod.phase() == Phase::Draining && !self.told.contains(&pod.uid);
        let leaving: Vec<Arc<Pod>> = self.agent.pods().values().filter(leaving).cloned().collect();
        for pod in leaving {
            if pod.has_no_connection() {
                self.handle.drained(&pod.uid).await;
                self.told.insert(pod.uid.clone());
            }
        }
    }
}
