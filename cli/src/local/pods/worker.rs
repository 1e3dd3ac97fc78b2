//! The task that lives one pod's life: network namespace, enrolment, volumes, containers, end. It owns the Pod object:
//! every change is written to the store and told to the world.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::lifecycle::{Change, Life, Policy};
use super::status::{self, Doing, Standing};
use super::{display_name, enrol};
use crate::local::addresses::{self, Pair};
use crate::local::clock::now;
use crate::local::containers::run::Host;
use crate::local::logs::LogFile;
use crate::local::manifests::Manifests;
use crate::local::namespaces::Netns;
use crate::local::nodes::Node;
use crate::local::probes::Prober;
use crate::local::store::Store;

/// First wait before something that failed is tried again; doubled up to [`LONGEST_WAIT`].
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Grace of a pod that names none: Kubernetes' 30 s would be most of a coffee.
const GRACE: Duration = Duration::from_secs(10);
/// Changes of containers under way.
const CHANGES: usize = 64;

/// What a pod tells the world.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its object changed.
    Changed(Box<Pod>),
    /// It has gone, with everything it had.
    Gone { uid: String },
}

/// Running containers and their processes, for `exec`.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<BTreeMap<String, u32>>);

impl Live {
    /// Main process of a running container.
    pub(crate) fn process(&self, container: &str) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(container).copied()
    }

    fn set(&self, container: &str, process: Option<u32>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match process {
            Some(process) => all.insert(container.to_owned(), process),
            None => all.remove(container),
        };
    }
}

/// A pod to live.
pub(crate) struct PodTask {
    pub(crate) host: Arc<Host>,
    pub(crate) store: Store,
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Pod,
    /// `None`: on the node's own network.
    pub(crate) addresses: Option<Pair>,
    pub(crate) manifests: watch::Receiver<Arc<Manifests>>,
    pub(crate) reports: mpsc::Sender<Report>,
    /// It waits this long before it begins: a failed one of its kind went before.
    pub(crate) delay: Duration,
    /// The node agent's socket; `None` without agents.
    pub(crate) agent: Option<PathBuf>,
    pub(crate) live: Arc<Live>,
    pub(crate) stop: CancellationToken,
}

/// The parts of a pod that its end has to take away.
pub(super) struct Body {
    pub(super) netns: Netns,
    pub(super) standings: Vec<Standing>,
    networked: bool,
}

impl PodTask {
    /// Lives the pod's life.
    pub(crate) async fn run(mut self) {
        let _ = tokio::time::timeout(self.delay, self.stop.cancelled()).await;
        let mut body = match self.make_body().await {
            Some(body) => body,
            None => return self.vanish(None).await,
        };
        if self.enrol(&mut body).await && self.write_files(&mut body).await {
            self.run_containers(&mut body).await;
        }
        if !self.stop.is_cancelled() {
            // All containers are over: the pod stays as an object until nobody wants it.
            self.release_network(&body).await;
            self.stop.cancelled().await;
        }
        self.vanish(Some(&body)).await;
    }

    pub(super) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Name of the node's end of the pod's link: at most 15 letters.
    pub(super) fn link(&self) -> String {
        format!("p{}", &self.uid()[..8])
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.host.dir.pod(self.uid())
    }

    fn containers(&self) -> (Vec<Container>, Vec<Container>) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        (spec.init_containers.unwrap_or_default(), spec.containers)
    }

    /// Makes the namespace and its network, trying until it succeeds or the pod has to go.
    async fn make_body(&mut self) -> Option<Body> {
        let (init, main) = self.containers();
        let init = init.iter().map(|container| standing(container, true));
        let standings: Vec<Standing> =
            init.chain(main.iter().map(|container| standing(container, false))).collect();
        let mut wait = FIRST_WAIT;
        while !self.stop.is_cancelled() {
            match self.make_network().await {
                Ok(netns) => {
                    let mut body = Body { netns, standings, networked: true };
                    self.publish(&mut body).await;
                    return Some(body);
                }
                Err(error) => {
                    let text = format!("pod {}: {error}", display_name(&self.pod));
                    eprintln!("{text}");
                    self.pause(&mut wait).await;
                }
            }
        }
        None
    }

    pub(super) async fn pause(&self, wait: &mut Duration) {
        let _ = tokio::time::timeout(*wait, self.stop.cancelled()).await;
        *wait = (*wait * 2).min(LONGEST_WAIT);
    }

    /// Has the pod captured if it must be; false when it has to go first.
    async fn enrol(&mut self, body: &mut Body) -> bool {
        let Some(agent) = self.agent.clone() else { return true };
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let gateway = addresses::gateway(self.node.number);
        let gateways = [IpAddr::V4(gateway.v4), IpAddr::V6(gateway.v6)];
        let mut wait = FIRST_WAIT;
        loop {
            let manifests = Arc::clone(&self.manifests.borrow());
            let required = enrol::must_be_captured(&self.pod, manifests.namespaces.get(&namespace));
            let answer = tokio::select! {
                () = self.stop.cancelled() => return false,
                answer = enrol::enrol(&agent, &self.pod, body.netns.path(), &gateways) => answer,
            };
            match answer {
                Ok(()) => return true,
                Err(_) if !required => return true,
                Err(reason) => {
                    for standing in &mut body.standings {
                        standing.doing = Doing::waiting("NotCaptured", reason.clone());
                    }
                    self.publish(body).await;
                    self.pause(&mut wait).await;
                }
            }
        }
    }

    /// Runs init containers one after another, then the others together, until all are over or the pod has to go.
    async fn run_containers(&mut self, body: &mut Body) {
        let (init, main) = self.containers();
        let (changes, mut changed) = mpsc::channel(CHANGES);
        let mut lives = tokio::task::JoinSet::new();
        let mut refreshed = self.manifests.clone();
        let total = init.len() + main.len();
        let mut next = 0;
        loop {
            // Whatever may start now starts.
            while next < total && may_start(&body.standings, next, init.len()) {
                let container = init.iter().chain(&main).nth(next).cloned().unwrap_or_default();
                lives.spawn(self.life(body, container, next, changes.clone()).run());
                next += 1;
            }
            self.publish(body).await;
            let phase = status::phase(&body.standings);
            if phase == "Succeeded" || phase == "Failed" {
                break;
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some((index, change)) = changed.recv() => {
                    self.note(body, index, change);
                    while let Ok((index, change)) = changed.try_recv() {
                        self.note(body, index, change);
                    }
                }
                Ok(()) = refreshed.changed() => {
                    if let Err(reason) = self.write_volumes() {
                        eprintln!("pod {}: {reason}; its volumes stay as they were", display_name(&self.pod));
                    }
                }
            }
        }
        self.end_containers(body, lives, changed).await;
    }

    async fn end_containers(
        &mut self,
        body: &mut Body,
        mut lives: tokio::task::JoinSet<()>,
        mut changed: mpsc::Receiver<(usize, Change)>,
    ) {
        if self.stop.is_cancelled() {
            self.pod.metadata.deletion_timestamp = Some(now());
            self.publish(body).await;
        } else {
            // Init containers that stay end with the others; what `stop` means to them is this pod's end.
            lives.abort_all();
        }
        loop {
            tokio::select! {
                ended = lives.join_next() => if ended.is_none() { break },
                Some((index, change)) = changed.recv() => self.note(body, index, change),
            }
        }
        while let Ok((index, change)) = changed.try_recv() {
            self.note(body, index, change);
        }
        self.publish(body).await;
    }

    fn life(
        &self,
        body: &Body,
        container: Container,
        index: usize,
        changes: mpsc::Sender<(usize, Change)>,
    ) -> Life {
        let spec = self.pod.spec.as_ref();
        let standing = &body.standings[index];
        let policy = match Policy::of(spec.and_then(|spec| spec.restart_policy.as_deref())) {
            _ if standing.stays => Policy::Always,
            Policy::Always if standing.init => Policy::OnFailure,
            policy => policy,
        };
        let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds);
        let grace = seconds.and_then(|s| u64::try_from(s).ok()).map_or(GRACE, Duration::from_secs);
        let addresses = self.addresses.unwrap_or(self.node.addresses);
        Life {
            host: Arc::clone(&self.host),
            pod: self.pod.clone(),
            manifests: self.manifests.clone(),
            netns: body.netns.path().to_owned(),
            prober: Prober {
                host: Arc::clone(&self.host),
                node: Arc::clone(&self.node),
                pod: self.pod.clone(),
                address: IpAddr::V4(addresses.v4),
                on_node: self.addresses.is_none(),
            },
            log: LogFile::new(&log_path(&self.host, &self.pod, &container.name)),
            container,
            policy,
            index,
            changes,
            stop: self.stop.clone(),
            grace,
        }
    }

    fn note(&self, body: &mut Body, index: usize, change: Change) {
        let standing = &mut body.standings[index];
        match change {
            Change::Waiting { reason, message } => {
                standing.doing = Doing::waiting(reason, message);
                self.live.set(&standing.name, None);
            }
            Change::Running { process } => {
                if matches!(standing.doing, Doing::Ended { .. }) {
                    standing.last = Some(standing.doing.clone());
                    standing.restarts += 1;
                }
                standing.doing = Doing::Running { since: now() };
                (standing.started, standing.ready) = (false, false);
                self.live.set(&standing.name, Some(process));
            }
            Change::Started => standing.started = true,
            Change::Ready(ready) => standing.ready = ready,
            Change::Ended { code, signal, over } => {
                let since = match &standing.doing {
                    Doing::Running { since } => since.clone(),
                    _ => now(),
                };
                standing.doing = Doing::Ended { code, signal, since, at: now() };
                (standing.started, standing.ready, standing.over) = (false, false, over);
                self.live.set(&standing.name, None);
            }
        }
    }

    /// Writes the Pod object and tells the world.
    pub(super) async fn publish(&mut self, body: &mut Body) {
        status::apply(&mut self.pod, &body.standings, body.networked, &now());
        // A Pod comes from JSON and goes back to it.
        let (store, object) = (self.store.clone(), serde_json::to_value(&self.pod).unwrap_or_default());
        let written = tokio::task::spawn_blocking(move || store.write(&object));
        if let Ok(Err(error)) = written.await {
            eprintln!("pod {}: its object cannot be written: {error}", display_name(&self.pod));
        }
        let _ = self.reports.send(Report::Changed(Box::new(self.pod.clone()))).await;
    }

    /// Takes everything away that the pod had, its object first: the node agent lets go of it then.
    async fn vanish(self, body: Option<&Body>) {
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        if let Err(error) =
            self.store.remove("Pod", self.pod.metadata.namespace.as_deref().unwrap_or_default(), &name)
        {
            eprintln!("pod {}: its object cannot be removed: {error}", display_name(&self.pod));
        }
        if let Some(body) = body {
            self.release_network(body).await;
        }
        match fs::remove_dir_all(self.folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("pod {}: {}: {error}", display_name(&self.pod), self.folder().display());
            }
            _ => {}
        }
        let _ = self.reports.send(Report::Gone { uid: self.uid().to_owned() }).await;
    }
}

fn standing(container: &Container, init: bool) -> Standing {
    Standing {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        init,
        stays: init && container.restart_policy.as_deref() == Some("Always"),
        doing: Doing::waiting(if init { "PodInitializing" } else { "ContainerCreating" }, ""),
        last: None,
        restarts: 0,
        started: false,
        ready: false,
        over: false,
    }
}

/// Whether container `index` may start: every init container before it has succeeded, or stays and has started.
fn may_start(standings: &[Standing], index: usize, init: usize) -> bool {
    standings.iter().take(index.min(init)).all(|before| match before.stays {
        true => before.started,
        false => before.over && matches!(before.doing, Doing::Ended { code: 0, .. }),
    })
}

/// Where a container's log stands.
pub(crate) fn log_path(host: &Host, pod: &Pod, container: &str) -> PathBuf {
    let meta = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let folder = format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid));
    host.dir.logs().join("pods").join(folder).join(format!("{container}.log"))
}
