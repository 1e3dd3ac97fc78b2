//! How a pod joins and leaves the mesh: the order of the steps, and nothing else. Joining: listeners, rules, proxy;
//! from the rules on the pod's traffic waits or is refused rather than let out in the clear. Leaving: first
//! the capture goes, then, when the last captured connection has ended, the rest.

mod slot;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daemon::tasks::Tasks;
use nix::ifaddrs::getifaddrs;
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock, Semaphore},
    time::{Instant, sleep},
};
use tracing::{info, warn};

pub use self::slot::Status;
use self::slot::{Slot, Standing};
use super::{
    apply::{self, ApplyError},
    rules::{Phase, RuleSet, WayBack},
};
use crate::{
    listeners::{ListenError, Listeners},
    netns::{NetnsFd, NetnsId, in_namespace},
    private::server::{Held, PrivateServer},
    zds::{
        WorkloadInfo,
        server::{CapturedPod, ZdsError, ZdsServer},
    },
};

/// What the proxy gets for its acknowledgement at least, however long the rules took: the kernel may hold them up
/// for seconds while it takes many other namespaces down.
const ACK_TIME: Duration = Duration::from_secs(1);
/// Rule transactions at once.
const TRANSACTIONS: usize = 8;

/// A pod to capture.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Kubernetes uid.
    pub uid: String,
    /// Name, namespace and account.
    pub info: WorkloadInfo,
    /// Its network namespace.
    pub netns: NetnsFd,
    /// Its addresses, as far as they are known; the namespace must own one of them.
    pub ips: Vec<IpAddr>,
    /// What its rules should do.
    pub rules: RuleSet,
}

/// Why a pod could not join. The rules may stand already: the pod is then cut off, not exposed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A namespace that must never be captured.
    #[error("the pod's network namespace is the agent's own; a hostNetwork pod is not captured")]
    OwnNamespace,
    /// The path led elsewhere.
    #[error("the network namespace has none of the pod's addresses {0:?}: it belongs to another pod")]
    ForeignNamespace(Vec<IpAddr>),
    /// The namespace could not be examined.
    #[error(
        "cannot enter the pod's network namespace: {0}; the agent needs CAP_SYS_ADMIN, and the pod must still exist"
    )]
    Enter(#[source] io::Error),
    /// Rules or routes.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Listeners.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ZdsError),
}

/// How the enroller works on this node.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The `nft` command.
    pub nft: String,
    /// Whether the proxy is not ours: it opens its own listeners and does not report drained pods.
    pub foreign_proxy: bool,
    /// How long a leaving pod's tunnels stay open at least, so that its peers learn of it first.
    pub leave_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { nft: "nft".into(), foreign_proxy: false, leave_grace: Duration::from_secs(5) }
    }
}

/// Enrols and releases the pods of this node; clones share it. Steps of one pod never overlap.
#[derive(Clone, Debug)]
pub struct Enroller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    zds: ZdsServer,
    private: PrivateServer,
    own: NetnsId,
    /// Each transaction is a child process; a node that starts has a hundred pods at once.
    transactions: Semaphore,
    pods: Mutex<HashMap<String, Arc<Slot>>>,
    /// The second halves of releases.
    leaving: Tasks,
    /// Held for reading by a step of leaving, for writing by whoever needs that none is under way.
    steps: Arc<RwLock<()>>,
}

/// While this is held, no pod takes a further step of leaving.
#[derive(Debug)]
#[must_use = "they go on as soon as it is dropped"]
pub(crate) struct StandStill {
    _guard: OwnedRwLockWriteGuard<()>,
}

impl Enroller {
    /// An enroller for the node whose own namespace this thread is in.
    ///
    /// # Errors
    /// When the own namespace cannot be told.
    pub fn new(policy: Policy, zds: ZdsServer, private: PrivateServer) -> io::Result<Self> {
        let own = NetnsFd::current()?.id();
        let transactions = Semaphore::new(TRANSACTIONS);
        Ok(Self {
            shared: Arc::new(Shared {
                policy,
                zds,
                private,
                own,
                transactions,
                pods: Mutex::default(),
                leaving: Tasks::default(),
                steps: Arc::default(),
            }),
        })
    }

    /// The `nft` command.
    #[must_use]
    pub fn nft(&self) -> &str {
        &self.shared.policy.nft
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.shared.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, uid: &str) -> Arc<Slot> {
        self.pods().entry(uid.to_owned()).or_default().clone()
    }

    /// Drops an empty slot, unless somebody waits to use it: two of them for one pod would contradict each other.
    fn drop_slot(&self, uid: &str, slot: &Arc<Slot>) {
        let mut pods = self.pods();
        // The map's and the caller's own.
        if Arc::strong_count(slot) <= 2 {
            pods.remove(uid);
        }
    }

    /// How each pod stands.
    #[must_use]
    pub fn statuses(&self) -> HashMap<String, Status> {
        self.pods().iter().map(|(uid, slot)| (uid.clone(), slot.status())).collect()
    }

    /// Captures a pod: listeners, rules, then the proxy's acknowledgement, waited for until `deadline`. Can be
    /// repeated; also takes back a leaving.
    ///
    /// # Errors
    /// See [`EnrolError`]; what stands by then stays, until [`forget`](Self::forget).
    pub async fn enrol(&self, spec: PodSpec, deadline: Instant) -> Result<(), EnrolError> {
        self.check(&spec)?;
        let slot = self.slot(&spec.uid);
        let mut standing = slot.lock().await;
        if let Standing::In { spec: before, served: true } = &*standing
            && before.netns.id() == spec.netns.id()
            && before.rules == spec.rules
        {
            return Ok(());
        }
        let started = Instant::now();
        let pod = self.install(spec, &mut standing).await?;
        let installed = Instant::now();
        self.shared.zds.add(pod.clone(), deadline.max(installed + ACK_TIME)).await?;
        if let Standing::In { served, .. } = &mut *standing {
            *served = true;
        }
        let (rules, proxy) = (installed - started, installed.elapsed());
        info!(pod = pod.info.name, namespace = pod.info.namespace, uid = pod.uid, ?rules, ?proxy, "captured");
        Ok(())
    }

    /// Takes up pods that another redirector has enrolled: their rules stand, their listeners are held. Those that were
    /// leaving go on leaving.
    pub(crate) async fn adopt(&self, pods: Vec<Held>) {
        for Held { pod, listeners, draining, .. } in pods {
            let rules = RuleSet { dns: listeners.has_dns(), ..RuleSet::default() };
            let spec = PodSpec {
                uid: pod.uid.clone(),
                info: pod.info.clone(),
                netns: pod.netns.clone(),
                ips: Vec::new(),
                rules,
            };
            self.shared.zds.remember(pod);
            let slot = self.slot(&spec.uid);
            let mut standing = slot.lock().await;
            if draining {
                let (uid, since) = (spec.uid.clone(), Instant::now());
                *standing = Standing::Draining { spec, since };
                drop(standing);
                self.shared.leaving.spawn("leave", self.clone().drain(uid, slot, since));
            } else {
                *standing = Standing::In { spec, served: false };
            }
        }
    }

    /// The first half of [`enrol`](Self::enrol), without a proxy: listeners and rules. At the start of the role,
    /// so that the first proxy finds every pod in its hand-over.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn prepare(&self, spec: PodSpec) -> Result<(), EnrolError> {
        self.check(&spec)?;
        let slot = self.slot(&spec.uid);
        let mut standing = slot.lock().await;
        if matches!(*standing, Standing::Out) {
            self.install(spec, &mut standing).await?;
        }
        Ok(())
    }

    /// Listeners before rules: a running pod's next connection finds a queue to wait in. Both before the proxy is
    /// told: from here on nothing gets out in the clear.
    async fn install(&self, spec: PodSpec, standing: &mut Standing) -> Result<CapturedPod, EnrolError> {
        let opened = self.open_listeners(&spec, standing)?;
        let way_back = self.apply(&spec, &spec.rules).await?;
        let pod = CapturedPod { uid: spec.uid.clone(), info: spec.info.clone(), netns: spec.netns.clone() };
        // Remembered first: whichever proxy gets the listeners also finds the pod in its snapshot.
        self.shared.zds.remember(pod.clone());
        let private = &self.shared.private;
        match (opened, &*standing) {
            (Some(listeners), _) => private.hold(pod.clone(), listeners, way_back.app_mark()).await,
            (None, _) if self.shared.policy.foreign_proxy => {}
            (None, Standing::Draining { .. }) => private.set_draining(&spec.uid, false).await,
            (None, _) => private.hand_again(&spec.uid).await,
        }
        *standing = Standing::In { spec, served: false };
        Ok(pod)
    }

    async fn apply(&self, spec: &PodSpec, rules: &RuleSet) -> Result<WayBack, EnrolError> {
        let _permit = self.shared.transactions.acquire().await;
        // Another proxy than ours knows one mark only.
        let wanted = if self.shared.policy.foreign_proxy { WayBack::Tracked } else { WayBack::Marked };
        Ok(apply::install(&spec.netns, self.nft(), rules, wanted).await?)
    }

    /// Never the agent's own namespace, and never another pod's: a stale path must not capture a stranger.
    ///
    /// # Errors
    /// When it is one of those.
    pub fn check(&self, spec: &PodSpec) -> Result<(), EnrolError> {
        if spec.netns.id() == self.shared.own {
            return Err(EnrolError::OwnNamespace);
        }
        if spec.ips.is_empty() {
            return Ok(());
        }
        let owned =
            in_namespace(&spec.netns, addresses).map_err(EnrolError::Enter)?.map_err(EnrolError::Enter)?;
        if spec.ips.iter().any(|ip| owned.contains(ip)) {
            Ok(())
        } else {
            Err(EnrolError::ForeignNamespace(spec.ips.clone()))
        }
    }

    /// The pod's listeners, unless they are held already or are not ours to open.
    fn open_listeners(&self, spec: &PodSpec, before: &Standing) -> Result<Option<Listeners>, ListenError> {
        let held = match before {
            Standing::In { spec: old, .. } | Standing::Draining { spec: old, .. } => {
                self.shared.private.holds(&spec.uid) && same_listeners(old, spec)
            }
            Standing::Out => false,
        };
        if held || self.shared.policy.foreign_proxy {
            return Ok(None);
        }
        Listeners::open(&spec.netns, spec.rules.dns).map(Some)
    }

    /// Lets a living pod go: from here on nothing new is captured. The rest goes when the proxy reports the last
    /// captured connection's end to [`drained`](Self::drained).
    ///
    /// # Errors
    /// When the rules cannot be changed; the pod is captured as before.
    pub async fn release(&self, uid: &str) -> Result<(), EnrolError> {
        let slot = self.slot(uid);
        let mut standing = slot.lock().await;
        let Standing::In { spec, .. } = &*standing else { return Ok(()) };
        let spec = spec.clone();
        let rules = RuleSet { phase: Phase::Draining, ..spec.rules.clone() };
        self.apply(&spec, &rules).await?;
        info!(
            pod = spec.info.name,
            namespace = spec.info.namespace,
            uid,
            "released: nothing new is captured"
        );
        let since = Instant::now();
        *standing = Standing::Draining { spec, since };
        drop(standing);
        self.shared.leaving.spawn("leave", self.clone().drain(uid.to_owned(), slot, since));
        Ok(())
    }

    /// The second half of a release. Peers go on using the tunnel until they have heard of it, so the proxy is
    /// told only after the grace.
    async fn drain(self, uid: String, slot: Arc<Slot>, since: Instant) {
        sleep(self.shared.policy.leave_grace).await;
        // Held until the proxy has been told: a pod that joins again comes after it, and takes it back.
        let standing = slot.lock().await;
        // Not that of a later release, whose grace is not over.
        if !matches!(*standing, Standing::Draining { since: begun, .. } if begun == since) {
            return;
        }
        if self.shared.policy.foreign_proxy {
            drop(standing);
            self.drained(&uid).await;
        } else {
            let _step = self.shared.steps.read().await;
            self.shared.private.set_draining(&uid, true).await;
        }
    }

    /// The last captured connection of a leaving pod has ended: everything of ours leaves its namespace, by itself.
    pub(crate) fn finish_leaving(&self, uid: String) {
        let own = self.clone();
        self.shared.leaving.spawn("leave", async move { own.drained(&uid).await });
    }

    /// Waits until no pod is in a step of leaving; none begins one until what is returned is dropped. Half done, with
    /// nobody left who knows of it, the last one would leave rules in a pod for good.
    pub(crate) async fn stand_still(&self) -> StandStill {
        StandStill { _guard: self.shared.steps.clone().write_owned().await }
    }

    /// Does what [`finish_leaving`](Self::finish_leaving) has done.
    pub async fn drained(&self, uid: &str) {
        let slot = self.slot(uid);
        let mut standing = slot.lock().await;
        let Standing::Draining { spec, .. } = &*standing else { return };
        let spec = spec.clone();
        let _step = self.shared.steps.read().await;
        self.shared.zds.remove(uid).await;
        self.shared.private.release(uid).await;
        if let Err(error) = apply::remove(&spec.netns, &self.shared.policy.nft).await {
            warn!(%error, uid, "a released pod keeps idle rules");
        }
        // Last: who looks meanwhile sees a pod that still leaves.
        *standing = Standing::Out;
        self.drop_slot(uid, &slot);
        info!(pod = spec.info.name, namespace = spec.info.namespace, uid, "left the mesh");
    }

    /// The pod is gone, and its namespace with it: only our side is tidied up.
    pub async fn forget(&self, uid: &str) {
        let slot = self.slot(uid);
        let mut standing = slot.lock().await;
        *standing = Standing::Out;
        self.shared.zds.remove(uid).await;
        self.shared.private.release(uid).await;
        self.drop_slot(uid, &slot);
    }

    /// Ends what is under way by itself, last steps of leaving that have begun in order: pods that are leaving stay as
    /// they are.
    pub async fn stop(&self) {
        let still = self.stand_still().await;
        self.stop_still(still).await;
    }

    /// The same for who has made it stand still before.
    pub(crate) async fn stop_still(&self, _still: StandStill) {
        self.shared.leaving.stop().await;
    }

    /// Takes rules and routes out of every pod (`--cleanup`): connections that were captured end.
    pub async fn clean_up(&self) {
        let slots: Vec<_> = self.pods().drain().collect();
        for (uid, slot) in slots {
            let mut standing = slot.lock().await;
            if let Standing::In { spec, .. } | Standing::Draining { spec, .. } =
                std::mem::take(&mut *standing)
                && let Err(error) = apply::remove(&spec.netns, &self.shared.policy.nft).await
            {
                warn!(%error, uid, "rules stay in a pod");
            }
        }
    }
}

fn same_listeners(old: &PodSpec, new: &PodSpec) -> bool {
    old.netns.id() == new.netns.id() && old.rules.dns == new.rules.dns
}

/// The addresses of the namespace this thread is in.
pub(super) fn addresses() -> io::Result<HashSet<IpAddr>> {
    let mut found = HashSet::new();
    for interface in getifaddrs()? {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.insert(v4.ip().into());
        }
        if let Some(v6) = address.as_sockaddr_in6() {
            found.insert(v6.ip().into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
