//! The one task that knows everything: what the files want, which pods there are, which components are ready. Every
//! message changes what it knows; then it lets the pure parts say what follows (`scheduler`, `services`, `rules`,
//! `dns`) and has it done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manifest::Object;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::{Pair, PodPool};
use super::clock::now;
use super::components;
use super::containers::run::Host;
use super::converge::{self, Expected};
use super::daemon::Events;
use super::dns::Zone;
use super::links::has_ipv6;
use super::manifests::{Manifests, ObjectName};
use super::nodes::Node;
use super::pods::display_name;
use super::pods::object::{self, Placement};
use super::pods::worker::{Live, PodTask, Report};
use super::rules::{self, Forward};
use super::scheduler::{self, Create, Existing, Kind, Owner, Progress, Workload, spell};
use super::services::{self, ServiceTable};
use super::source::Problem;
use super::store::Store;
use super::supervise::Health;

/// How long the Jobs of a starting mesh wait for its servers.
const JOBS_WAIT: Duration = Duration::from_secs(5);

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

/// A wait for what is written to be in force.
struct Converging {
    round: u64,
    expected: Vec<Expected>,
    missing: Option<String>,
    task: tokio::task::AbortHandle,
}

impl Drop for Converging {
    fn drop(&mut self) {
        self.task.abort();
    }
}

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
    /// Jobs are held back for now.
    held: bool,
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
            held: false,
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
            Message::Objects { objects, problems } => self.note_objects(&objects, problems),
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

    fn note_objects(&mut self, objects: &[Arc<Object>], problems: Vec<Problem>) {
        let (manifests, unusable) = Manifests::from_objects(objects);
        let unusable = unusable.into_iter().map(|text| Problem { text, unreadable: true });
        for problem in problems.into_iter().chain(unusable) {
            match problem.unreadable && !self.read_once {
                // A mesh of half the files is not the one that was asked for.
                true => self.events.stuck(problem.text),
                false if self.noted.insert(problem.text.clone()) => self.events.note(problem.text),
                false => {}
            }
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
        self.publish_services(&manifests);
        self.converge(&manifests);
        if !self.up && self.read_once && self.troubles().is_empty() {
            self.up = true;
            self.converging = None;
            let (pods, nodes) = (self.pods.len(), self.nodes.len());
            self.events.up(format!("mesh {:?} is up: {nodes} nodes, {pods} pods", self.host.dir.name()));
        }
    }

    /// Once all is ready, waits for what is written to be in force; starts again when something else is written.
    fn converge(&mut self, manifests: &Manifests) {
        if self.up || !components::has_agents() {
            return;
        }
        if !self.read_once || !self.unsettled().is_empty() {
            self.converging = None;
            return;
        }
        let expected = self.expected(manifests);
        if self.converging.as_ref().is_some_and(|current| current.expected == expected) {
            return;
        }
        let round = self.converging.as_ref().map_or(0, |current| current.round + 1);
        let nodes: BTreeSet<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let (admin, to_self, wanted) =
            (components::ctrl_admin(&self.host.dir), self.to_self.clone(), expected.clone());
        let task = tokio::spawn(async move {
            let tell = |missing| {
                // The world is busy: the next thing that is missing will be told.
                let _ = to_self.try_send(Message::Converged { round, missing: Some(missing) });
            };
            converge::wait(&admin, &nodes, &wanted, tell).await;
            let _ = to_self.send(Message::Converged { round, missing: None }).await;
        });
        let missing = Some("ctrl has not been asked yet".to_owned());
        self.converging = Some(Converging { round, expected, missing, task: task.abort_handle() });
    }

    /// What ctrl must have read and the proxies acknowledged.
    fn expected(&self, manifests: &Manifests) -> Vec<Expected> {
        let written = self.written.iter().map(|((kind, _), object)| Expected::of(kind, object, false));
        let pods = self.pods.values().filter(|entry| !entry.leaving).map(|entry| {
            let labels = manifests.namespaces.get(&entry.owner.namespace);
            let runs = phase(&entry.pod) == "Running";
            let captured = runs && super::pods::must_be_captured(&entry.pod, labels);
            Expected::of("Pod", &serde_json::to_value(&entry.pod).unwrap_or_default(), captured)
        });
        written.chain(pods).collect()
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
        let (jobs, others): (Vec<&Create>, Vec<&Create>) = plan.create.iter().partition(is_job);
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

    fn create(&mut self, workload: &Workload, create: &Create) -> Result<(), String> {
        let node = self.place(workload, create)?;
        let host_network = workload.template.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let addresses = match host_network {
            true => None,
            false => {
                let pool = &mut self.pools[usize::from(node.number - 1)];
                Some(pool.take().ok_or_else(|| format!("{} has no pod address left", node.name))?)
            }
        };
        let random = random_bytes().map_err(|error| format!("no random numbers: {error}"))?;
        let uid = uid(random);
        let name = create.name.clone().unwrap_or_else(|| generated_name(workload, random));
        let netns =
            if host_network { node.netns.path().to_owned() } else { self.host.dir.netns().join(&uid) };
        let place = Placement {
            name,
            uid: uid.clone(),
            node: &node.name,
            node_addresses: node.addresses,
            addresses,
            netns: netns.to_string_lossy().into_owned(),
            created: now(),
        };
        self.start(workload, object::build(workload, place), &node, addresses, create.failures);
        Ok(())
    }

    fn start(
        &mut self,
        workload: &Workload,
        pod: Pod,
        node: &Arc<Node>,
        addresses: Option<Pair>,
        failures: usize,
    ) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (live, stop) = (Arc::new(Live::default()), CancellationToken::new());
        let (reports, mut received) = mpsc::channel(4);
        let task = PodTask {
            host: Arc::clone(&self.host),
            store: self.store.clone(),
            node: Arc::clone(node),
            pod: pod.clone(),
            addresses,
            manifests: self.manifests.subscribe(),
            reports,
            delay: backoff(failures),
            agent: components::has_agents().then(|| components::agent_socket(&self.host, &node.name)),
            live: Arc::clone(&live),
            stop: stop.clone(),
        };
        let to_self = self.to_self.clone();
        tokio::spawn(async move {
            while let Some(report) = received.recv().await {
                if to_self.send(Message::Pod(report)).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(task.run());
        let entry = Entry {
            pod,
            owner: workload.owner.clone(),
            hash: workload.hash.clone(),
            node: Arc::clone(node),
            addresses,
            stop,
            live,
            leaving: false,
            announced: false,
            stuck: None,
        };
        self.pods.insert(uid, entry);
    }

    /// The node of a new pod: the workload's choice, the manifest's, or the next one.
    fn place(&mut self, workload: &Workload, create: &Create) -> Result<Arc<Node>, String> {
        let spec = workload.template.spec.as_ref();
        let selected =
            spec.and_then(|s| s.node_selector.as_ref()).and_then(|s| s.get("kubernetes.io/hostname"));
        let asked = create.node.map(super::nodes::name);
        let asked =
            asked.or_else(|| spec.and_then(|spec| spec.node_name.clone())).or_else(|| selected.cloned());
        if let Some(name) = asked.filter(|name| !name.is_empty()) {
            let found = self.nodes.iter().find(|node| node.name == name).cloned();
            return found.ok_or_else(|| {
                let last = self.nodes.len();
                format!("there is no node {name:?} (nodes are node-1 to node-{last}; more with: lateen up --nodes N)")
            });
        }
        let node = Arc::clone(&self.nodes[self.next_node % self.nodes.len()]);
        self.next_node += 1;
        Ok(node)
    }

    /// Service objects with addresses, EndpointSlices, and what nodes make of them.
    fn publish_services(&mut self, manifests: &Manifests) {
        let (filled, problems) = self.services.fill(&manifests.services);
        let pods: Vec<&Pod> = self.pods.values().map(|entry| &entry.pod).collect();
        let mut slices: BTreeMap<ObjectName, Vec<EndpointSlice>> = BTreeMap::new();
        let mut wanted: Written = BTreeMap::new();
        for (name, service) in &filled {
            insert(&mut wanted, "Service", name.clone(), service);
            for slice in services::endpoint_slices(name, service, &pods) {
                let slice_name = slice.metadata.name.clone().unwrap_or_default();
                let key = ObjectName { namespace: name.namespace.clone(), name: slice_name };
                insert(&mut wanted, "EndpointSlice", key, &slice);
                slices.entry(name.clone()).or_default().push(slice);
            }
        }
        for (name, slice) in &manifests.endpoint_slices {
            let labels = slice.metadata.labels.as_ref();
            let Some(service) = labels.and_then(|labels| labels.get(services::SERVICE_LABEL)) else {
                continue;
            };
            let key = ObjectName { namespace: name.namespace.clone(), name: service.clone() };
            slices.entry(key).or_default().push(slice.clone());
        }
        self.stamp(&mut wanted);
        self.write_changes(wanted);
        self.publish_network(&filled, &slices);
        for problem in problems {
            if self.noted.insert(problem.clone()) {
                self.events.stuck(problem);
            }
        }
    }

    /// Notes on every object when it came to be.
    fn stamp(&mut self, wanted: &mut Written) {
        self.created.retain(|key, _| wanted.contains_key(key));
        for (key, object) in wanted {
            let created = self.created.entry(key.clone()).or_insert_with(now);
            if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.entry("creationTimestamp").or_insert_with(|| json!(created));
            }
        }
    }

    fn publish_network(
        &mut self,
        services: &BTreeMap<ObjectName, Service>,
        slices: &BTreeMap<ObjectName, Vec<EndpointSlice>>,
    ) {
        let (forwards, zone) = (rules::forwards(services, slices), Zone::new(services, slices));
        self.network.send_if_modified(|current| {
            let changed = *current.forwards != forwards || *current.zone != zone;
            if changed {
                *current = Network { forwards: Arc::new(forwards), zone: Arc::new(zone) };
            }
            changed
        });
    }

    fn write_changes(&mut self, wanted: Written) {
        for ((kind, name), object) in &wanted {
            if self.written.get(&(*kind, name.clone())) == Some(object) {
                continue;
            }
            if let Err(error) = self.store.write(object) {
                self.events.note(format!("{kind} {name} cannot be written: {error}"));
            }
        }
        for (kind, name) in self.written.keys().filter(|key| !wanted.contains_key(*key)) {
            if let Err(error) = self.store.remove(kind, &name.namespace, &name.name) {
                self.events.note(format!("{kind} {name} cannot be removed: {error}"));
            }
        }
        self.written = wanted;
    }

    fn write_node(&mut self, node: &Node) {
        let pair = node.addresses;
        let (v4, v6) = super::addresses::pod_range(node.number);
        let mut addresses = vec![json!({"type": "InternalIP", "address": pair.v4})];
        let mut ranges = vec![format!("{}/{}", v4.0, v4.1)];
        if has_ipv6() {
            addresses.push(json!({"type": "InternalIP", "address": pair.v6}));
            ranges.push(format!("{}/{}", v6.0, v6.1));
        }
        addresses.push(json!({"type": "Hostname", "address": node.name}));
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": node.name, "uid": format!("node-{}", node.number),
                "creationTimestamp": now(),
                "labels": {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"},
            },
            "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
            "status": {
                "addresses": addresses,
                "conditions": [{"type": "Ready", "status": "True", "reason": "LateenUp"}],
                "nodeInfo": {"kubeletVersion": env!("CARGO_PKG_VERSION")},
            },
        });
        if let Err(error) = self.store.write(&object) {
            self.events.note(format!("Node {} cannot be written: {error}", node.name));
        }
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
            labels.is_some_and(|labels| labels.contains_key("gateway.networking.k8s.io/gateway-name"))
        });
        crate::control::Status {
            ready: waiting.is_empty(),
            waiting,
            components: BTreeMap::from([("lateen".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            waypoints: waypoints.map(|entry| display_name(&entry.pod)).collect(),
        }
    }

    /// The pod a name means: its own, KIND/NAME of what made it, or the unique beginning of one.
    fn find(&self, namespace: &str, text: &str) -> Result<PodView, String> {
        let here: Vec<&Entry> =
            self.pods.values().filter(|entry| entry.owner.namespace == namespace && !entry.leaving).collect();
        let name = |entry: &Entry| entry.pod.metadata.name.clone().unwrap_or_default();
        let view = |entry: &&Entry| PodView { pod: entry.pod.clone(), live: Arc::clone(&entry.live) };
        let best = |mut found: Vec<&Entry>| {
            found.sort_by_key(|entry| (!services::is_ready(&entry.pod), name(entry)));
            found.first().map(view)
        };
        if let Some((kind, wanted)) = text.split_once('/') {
            let found = match Kind::from_short(kind) {
                Some(kind) => {
                    here.into_iter().filter(|e| e.owner.kind == kind && e.owner.name == wanted).collect()
                }
                None if matches!(kind, "svc" | "service" | "services") => {
                    self.behind(namespace, wanted, &here)?
                }
                None => {
                    return Err(format!(
                        "{kind:?} is no kind that has pods; use deploy, sts, ds, job, svc or pod"
                    ));
                }
            };
            return best(found).ok_or_else(|| format!("{text} has no pod in namespace {namespace}"));
        }
        if let Some(entry) = here.iter().find(|entry| name(entry) == text) {
            return Ok(view(entry));
        }
        let beginning: Vec<&Entry> = here.into_iter().filter(|entry| name(entry).starts_with(text)).collect();
        match beginning.as_slice() {
            [] => Err(format!("there is no pod {text:?} in namespace {namespace}; see: lateen get pods -A")),
            [one] => Ok(view(one)),
            // Replicas of one owner are as good as each other.
            [first, rest @ ..] if rest.iter().all(|other| other.owner == first.owner) => {
                best(beginning).ok_or_else(String::new)
            }
            many => {
                let names = many.iter().map(|entry| name(entry)).collect::<Vec<_>>().join(", ");
                Err(format!("{text:?} is the beginning of several pods: {names}"))
            }
        }
    }

    fn behind<'a>(
        &self,
        namespace: &str,
        service: &str,
        pods: &[&'a Entry],
    ) -> Result<Vec<&'a Entry>, String> {
        let manifests = self.manifests.borrow();
        let key = ObjectName { namespace: namespace.to_owned(), name: service.to_owned() };
        let found = manifests.services.get(&key).ok_or_else(|| format!("there is no Service {key}"))?;
        let selector = found.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let labels =
            |entry: &Entry, key: &str| entry.pod.metadata.labels.as_ref().and_then(|l| l.get(key).cloned());
        let selected = |entry: &&&Entry| {
            !selector.is_empty()
                && selector.iter().all(|(key, value)| labels(entry, key).as_ref() == Some(value))
        };
        Ok(pods.iter().filter(selected).copied().collect())
    }
}

fn insert(wanted: &mut Written, kind: &'static str, name: ObjectName, object: &impl serde::Serialize) {
    // These types come from JSON and go back to it.
    wanted.insert((kind, name), serde_json::to_value(object).unwrap_or_default());
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

/// How long a pod of a Job waits after so many have failed.
fn backoff(failures: usize) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << n.min(5)).min(Duration::from_secs(20)),
    }
}

fn random_bytes() -> std::io::Result<[u8; 16]> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open(PathBuf::from("/dev/urandom"))?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A random (version 4) UUID.
fn uid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn generated_name(workload: &Workload, random: [u8; 16]) -> String {
    let number = random.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let end = spell(number, 5);
    match workload.owner.kind {
        Kind::Deployment => format!("{}-{}-{end}", workload.owner.name, workload.hash),
        _ => format!("{}-{end}", workload.owner.name),
    }
}
