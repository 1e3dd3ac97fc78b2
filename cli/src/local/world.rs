//! The one task that knows everything: what the files want, which pods there are, which components are ready. Every
//! message changes what it knows; then it lets the pure parts say what follows (`scheduler`, `services`, `rules`,
//! `dns`) and has it done.

mod find;
mod make;
mod publish;
mod waypoints;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manifest::Object;
use manifest::waypoint::GATEWAY_NAME;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::{Pair, PodPool};
use super::containers::run::Host;
use super::daemon::Events;
use super::dns::Zone;
use super::manifests::{Manifests, ObjectName};
use super::nodes::Node;
use super::pods::display_name;
use super::pods::worker::{Live, Report};
use super::rules::Forward;
use super::scheduler::{self, Create, Existing, Kind, Owner, Progress};
use super::services::{self, ServiceTable};
use super::source::Problem;
use super::store::Store;
use super::supervise::Health;
use publish::Converging;
use waypoints::{Generation, Rollout};

/// How long the Jobs of a starting mesh wait for its servers.
const JOBS_WAIT: Duration = Duration::from_secs(10);

/// What the world is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The files' objects, all of them.
    Objects {
        objects: Vec<Arc<Object>>,
        problems: Vec<Problem>,
    },
    Pod(Report),
    Health(Health),
    /// Which pod a name means.
    Find {
        namespace: String,
        pod: String,
        answer: oneshot::Sender<Result<PodView, String>>,
    },
    /// What runs.
    Status {
        answer: oneshot::Sender<crate::control::Status>,
    },
    /// What was expected of round `round` is in force, or what of it is missing.
    Converged {
        round: u64,
        missing: Option<String>,
    },
    /// Replace every waypoint by the program of this folder; told how it went, by waypoint.
    UpgradeWaypoints {
        binaries: PathBuf,
        done: oneshot::Sender<Result<Vec<(String, String)>, String>>,
    },
    /// Time has passed: what was held back may start.
    Tick,
    /// End all pods; answered when the last has gone.
    Down {
        done: oneshot::Sender<()>,
    },
}

/// A pod as `exec` and `logs` need it.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) pod: Pod,
    pub(crate) live: Arc<Live>,
}

/// What nodes do with service addresses and names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    pub(crate) forwards: Arc<Vec<Forward>>,
    pub(crate) zone: Arc<Zone>,
}

struct Entry {
    pod: Pod,
    owner: Owner,
    hash: String,
    node: Arc<Node>,
    addresses: Option<Pair>,
    stop: CancellationToken,
    live: Arc<Live>,
    leaving: bool,
    announced: bool,
    /// Why waiting will not help it, as last told.
    stuck: Option<String>,
}

/// Key of an object written to the store.
type Written = BTreeMap<(&'static str, ObjectName), Value>;

/// Everything there is.
pub(crate) struct World {
    host: Arc<Host>,
    store: Store,
    nodes: Vec<Arc<Node>>,
    events: Events,
    manifests: watch::Sender<Arc<Manifests>>,
    network: watch::Sender<Network>,
    pods: BTreeMap<String, Entry>,
    pools: Vec<PodPool>,
    services: ServiceTable,
    written: Written,
    /// Node of the next pod that names none.
    next_node: usize,
    /// Components not ready, and why.
    unready: BTreeMap<String, String>,
    /// Pods that could not be made, and why.
    unplaced: BTreeSet<String>,
    /// All was ready once.
    up: bool,
    /// All is ready, and this is waited for to be in force.
    converging: Option<Converging>,
    read_once: bool,
    begun: Instant,
    /// Problems told already.
    noted: BTreeSet<String>,
    /// When each object that is written came to be.
    created: BTreeMap<(&'static str, ObjectName), Time>,
    /// Waypoints that have a token.
    tokens: BTreeSet<ObjectName>,
    /// Jobs are held back for now.
    held: bool,
    /// The files' objects, as last read.
    objects: Vec<Arc<Object>>,
    /// What waypoints are run as.
    generation: Generation,
    /// They are being replaced.
    rollout: Option<Rollout>,
    down: Option<oneshot::Sender<()>>,
    to_self: mpsc::Sender<Message>,
}

impl World {
    /// A world in which nothing has happened yet; its components count as not ready.
    pub(crate) fn new(
        host: &Arc<Host>,
        nodes: &[Arc<Node>],
        events: Events,
        network: watch::Sender<Network>,
        to_self: mpsc::Sender<Message>,
        components: impl Iterator<Item = String>,
    ) -> Self {
        Self {
            store: Store::new(&host.dir.objects()),
            host: Arc::clone(host),
            nodes: nodes.to_vec(),
            events,
            manifests: watch::Sender::new(Arc::default()),
            network,
            pods: BTreeMap::new(),
            pools: nodes.iter().map(|node| PodPool::new(node.number)).collect(),
            services: ServiceTable::default(),
            written: BTreeMap::new(),
            next_node: 0,
            unready: components.map(|name| (name, "has not answered yet".to_owned())).collect(),
            unplaced: BTreeSet::new(),
            up: false,
            converging: None,
            read_once: false,
            begun: Instant::now(),
            noted: BTreeSet::new(),
            created: BTreeMap::new(),
            tokens: BTreeSet::new(),
            held: false,
            objects: Vec::new(),
            generation: Generation::default(),
            rollout: None,
            down: None,
            to_self,
        }
    }

    /// Lives until all pods have gone after a `Down`.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        for node in self.nodes.clone() {
            self.write_node(&node);
        }
        let to_self = self.to_self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(JOBS_WAIT).await;
            let _ = to_self.send(Message::Tick).await;
        });
        while let Some(message) = inbox.recv().await {
            self.note(message);
            // What follows is computed once for all that is already known.
            while let Ok(message) = inbox.try_recv() {
                self.note(message);
            }
            self.follow();
            if self.pods.is_empty()
                && let Some(done) = self.down.take()
            {
                let _ = done.send(());
                return;
            }
        }
    }

    fn note(&mut self, message: Message) {
        match message {
            Message::Objects { objects, problems } => {
                self.objects = objects;
                self.note_objects(problems);
            }
            Message::UpgradeWaypoints { binaries, done } => self.upgrade_waypoints(binaries, done),
            Message::Pod(Report::Changed(pod)) => self.note_pod(*pod),
            Message::Pod(Report::Gone { uid }) => {
                if let Some(entry) = self.pods.remove(&uid)
                    && let Some(addresses) = entry.addresses
                {
                    self.pools[usize::from(entry.node.number - 1)].give_back(addresses);
                }
            }
            Message::Health(Health::Ready(name)) => {
                if self.unready.remove(&name).is_some() {
                    self.events.ready(&name, String::new());
                }
            }
            Message::Health(Health::Unready(name, why)) => {
                // Before its first answer everything says "connection refused".
                if !self.unready.contains_key(&name) || why.contains("ended") {
                    self.events.note(format!("{name} is not ready: {why}"));
                }
                self.unready.insert(name, why);
            }
            Message::Find { namespace, pod, answer } => {
                let _ = answer.send(self.find(&namespace, &pod));
            }
            Message::Status { answer } => {
                let _ = answer.send(self.status());
            }
            Message::Converged { round, missing } => {
                if let Some(current) = self.converging.as_mut().filter(|current| current.round == round) {
                    current.missing = missing;
                }
            }
            Message::Tick => {}
            Message::Down { done } => {
                self.host.going.store(true, Ordering::Relaxed);
                self.down = Some(done);
                for entry in self.pods.values_mut() {
                    entry.leaving = true;
                    entry.stop.cancel();
                }
            }
        }
    }

    fn note_objects(&mut self, problems: Vec<Problem>) {
        let objects = self.objects.clone();
        let (mut manifests, unusable) = Manifests::from_objects(&objects);
        let unusable = unusable.into_iter().map(|text| Problem { text, unreadable: true });
        let of_waypoints = self.add_waypoints(&mut manifests, &objects);
        for problem in problems.into_iter().chain(unusable).chain(of_waypoints) {
            match problem.unreadable && !self.read_once {
                // A mesh of half the files is not the one that was asked for.
                true => self.events.stuck(problem.text),
                false if self.noted.insert(problem.text.clone()) => self.events.note(problem.text),
                false => {}
            }
        }
        if !self.read_once && objects.is_empty() {
            self.events.note(
                "there is no object in what -f names; what is written there takes effect at once".to_owned(),
            );
        }
        self.read_once = true;
        self.manifests.send_replace(Arc::new(manifests));
    }

    fn note_pod(&mut self, pod: Pod) {
        let Some(entry) = self.pods.get_mut(pod.metadata.uid.as_deref().unwrap_or_default()) else { return };
        entry.pod = pod;
        let stuck = super::pods::stuck(&entry.pod);
        if entry.stuck != stuck {
            if let Some(reason) = &stuck {
                self.events.stuck(format!("pod {}: {reason}", display_name(&entry.pod)));
            }
            entry.stuck = stuck;
        }
        if !entry.announced && settled(entry) {
            entry.announced = true;
            let phase = entry.pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            let ip = entry.pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
            let detail = if phase == "Running" { String::new() } else { format!("   {phase}") };
            self.events.ready(
                &format!("pod {}", display_name(&entry.pod)),
                format!("{} {ip}{detail}", entry.node.name),
            );
        }
    }

    /// Does what follows from what is known.
    fn follow(&mut self) {
        if self.down.is_some() {
            return;
        }
        let manifests = Arc::clone(&self.manifests.borrow());
        self.schedule(&manifests);
        self.follow_rollout(&manifests);
        self.publish_services(&manifests);
        self.converge(&manifests);
        if !self.up && self.read_once && self.troubles().is_empty() {
            self.up = true;
            self.converging = None;
            let (pods, nodes) = (self.pods.len(), self.nodes.len());
            self.events.up(format!("mesh {:?} is up: {nodes} nodes, {pods} pods", self.host.dir.name()));
        }
    }

    fn schedule(&mut self, manifests: &Manifests) {
        let existing: Vec<Existing> = self.pods.iter().map(|(uid, entry)| existing(uid, entry)).collect();
        let count = u8::try_from(self.nodes.len()).unwrap_or(u8::MAX);
        let plan = scheduler::plan(&manifests.workloads, &existing, count);
        for uid in &plan.delete {
            if let Some(entry) = self.pods.get_mut(uid) {
                entry.leaving = true;
                entry.stop.cancel();
            }
        }
        let mut unplaced = BTreeSet::new();
        let is_job = |create: &&Create| create.owner.kind == Kind::Job;
        let can_start = |create: &&Create| !self.waits_for_ctrl(manifests, &create.owner);
        let (jobs, others): (Vec<&Create>, Vec<&Create>) =
            plan.create.iter().filter(can_start).partition(is_job);
        self.held = !jobs.is_empty() && (!others.is_empty() || self.holds_jobs());
        let jobs = if self.held { Vec::new() } else { jobs };
        for create in others.into_iter().chain(jobs) {
            let Some(workload) = manifests.workloads.iter().find(|workload| workload.owner == create.owner)
            else {
                continue;
            };
            if let Err(reason) = self.create(workload, create) {
                let owner = &create.owner;
                unplaced.insert(format!(
                    "{} {}/{}: {reason}",
                    owner.kind.as_str(),
                    owner.namespace,
                    owner.name
                ));
            }
        }
        for reason in unplaced.difference(&self.unplaced) {
            self.events.stuck(reason.clone());
        }
        self.unplaced = unplaced;
    }

    /// While a mesh starts, its Jobs wait a little for the servers they are going to call: few have a second attempt
    /// to spare for a mesh that is a second old.
    fn holds_jobs(&self) -> bool {
        let servers = self.pods.values().filter(|entry| entry.owner.kind != Kind::Job);
        !self.up && self.begun.elapsed() < JOBS_WAIT && !(self.is_ready() && servers.clone().all(settled))
    }

    /// Files are read and components ready.
    fn is_ready(&self) -> bool {
        self.read_once && self.unready.is_empty()
    }

    /// Everything that is not ready yet or not in force, in words.
    fn troubles(&self) -> Vec<String> {
        let mut all = self.unsettled();
        if all.is_empty() {
            all.extend(self.converging.as_ref().and_then(|current| current.missing.clone()));
        }
        all
    }

    /// Everything that is not ready yet, in words.
    fn unsettled(&self) -> Vec<String> {
        let components = self.unready.iter().map(|(name, why)| format!("{name}: {why}"));
        let unsettled = self.pods.values().filter(|entry| !entry.leaving && !settled(entry));
        let pods = unsettled.map(|entry| format!("pod {}: {}", display_name(&entry.pod), trouble(entry)));
        let held = self.held.then(|| "Jobs wait for the servers to be ready".to_owned());
        components.chain(self.unplaced.iter().cloned()).chain(pods).chain(held).collect()
    }

    fn status(&self) -> crate::control::Status {
        let waiting = self.troubles();
        let waypoints = self.pods.values().filter(|entry| {
            let labels = entry.pod.metadata.labels.as_ref();
            labels.is_some_and(|labels| labels.contains_key(GATEWAY_NAME))
        });
        crate::control::Status {
            ready: waiting.is_empty(),
            waiting,
            components: BTreeMap::from([("lateen".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            waypoints: waypoints.map(|entry| display_name(&entry.pod)).collect(),
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Ready, or done: nothing more is expected of it.
fn settled(entry: &Entry) -> bool {
    services::is_ready(&entry.pod) || matches!(phase(&entry.pod), "Succeeded" | "Failed")
}

fn trouble(entry: &Entry) -> String {
    super::pods::trouble(&entry.pod).filter(|text| !text.is_empty()).unwrap_or_else(|| "starting".to_owned())
}

fn existing(uid: &str, entry: &Entry) -> Existing {
    let progress = match phase(&entry.pod) {
        "Succeeded" => Progress::Succeeded,
        "Failed" => Progress::Failed,
        _ if services::is_ready(&entry.pod) => Progress::Ready,
        _ => Progress::Starting,
    };
    Existing {
        uid: uid.to_owned(),
        name: entry.pod.metadata.name.clone().unwrap_or_default(),
        owner: entry.owner.clone(),
        hash: entry.hash.clone(),
        node: Some(entry.node.number),
        progress,
        leaving: entry.leaving,
    }
}
