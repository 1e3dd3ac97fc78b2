//! What was last good, where every replica finds it: in ConfigMaps of the controller's namespace, which the replica that leads
//! writes. A controller that moves to another node, or comes new, reads them before it serves; one that runs beside the
//! leader takes over what counts for hosts whose rules do not resolve now, whatever the order in which it was told of them.

mod parts;
mod written;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use manifest::Object;
use model::route::Routing;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use self::parts::{PARTS, Part};
use self::written::Written;
use super::Replica;
use super::answer::answered;
use super::statuses::MANAGER;
use crate::core::Core;
use crate::index::Name;
use crate::source::kube::outage::Outage;
use crate::source::kube::revision::Revision;
use crate::source::last_good::LastGood;

/// The ConfigMaps are called this, the revision and a number.
const NAME: &str = "lateen-last-good";
/// What changes meanwhile is written once.
const ROUND: Duration = Duration::from_secs(1);
/// After something could not be written or read.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is tried at start to read what is there, before this process serves without.
const TRIES: u32 = 3;

/// All that is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastGoods {
    /// Routings as they were last good.
    pub(crate) routings: Vec<Arc<Routing>>,
    /// The Gateways of waypoints that have been ready.
    pub(crate) waypoints: Vec<Arc<Object>>,
    /// Policies and rules whose present version is not good, as they were.
    pub(crate) policies: Vec<Arc<Object>>,
}

/// What this process has to keep, told to who writes it.
#[derive(Debug)]
pub(crate) struct Memory {
    waypoints: BTreeMap<Name, Arc<Object>>,
    policies: usize,
    to: watch::Sender<Option<Arc<LastGoods>>>,
}

impl Memory {
    /// With the waypoints that have been ready before.
    pub(crate) fn new(waypoints: &[Object]) -> Self {
        let by_name = |object: &Object| (Name::of(&object.key()), Arc::new(object.clone()));
        Self { waypoints: waypoints.iter().map(by_name).collect(), policies: 0, to: watch::channel(None).0 }
    }

    /// Who writes listens here.
    pub(crate) fn listen(&self) -> watch::Receiver<Option<Arc<LastGoods>>> {
        self.to.subscribe()
    }

    /// After each batch: what of waypoints is to be kept, and whether other routings than before are last good.
    pub(crate) fn note(
        &mut self,
        core: &Core,
        last_good: &LastGood,
        kept: &[(Name, Option<Arc<Object>>)],
        routings: bool,
    ) {
        for (name, gateway) in kept {
            match gateway {
                Some(gateway) => drop(self.waypoints.insert(name.clone(), gateway.clone())),
                None => drop(self.waypoints.remove(name)),
            }
        }
        // Without a cluster the state folder has it all.
        if self.to.receiver_count() == 0 {
            return;
        }
        let policies: Vec<Arc<Object>> = last_good.instead().cloned().collect();
        let begins = self.to.borrow().is_none();
        if begins || routings || !kept.is_empty() || self.policies > 0 || !policies.is_empty() {
            self.policies = policies.len();
            let waypoints = self.waypoints.values().cloned().collect();
            self.to.send_replace(Some(Arc::new(LastGoods {
                routings: core.last_good(),
                waypoints,
                policies,
            })));
        }
    }
}

/// What the replica that led has written; nothing where there is nothing, or nobody can be asked.
pub(crate) async fn read(client: &Client, replica: &Replica, outage: &Outage) -> Option<LastGoods> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &replica.namespace);
    let name = name_of(&replica.revision);
    for attempt in 1..=TRIES {
        match all(&maps, &name).await {
            Ok(found) => return found,
            Err(error) => outage.note("ConfigMap", &error),
        }
        if attempt < TRIES {
            sleep(AGAIN).await;
        }
    }
    tracing::warn!("what was last good in the cluster cannot be read; what this process kept itself counts");
    None
}

async fn all(maps: &Api<ConfigMap>, name: &str) -> Result<Option<LastGoods>, kube::Error> {
    let Some(first) = answered(maps.get_opt(&numbered(name, 0))).await? else { return Ok(None) };
    let mut parts = vec![Part::of(first)];
    for number in 1..parts[0].count.min(PARTS) {
        let part = answered(maps.get_opt(&numbered(name, number))).await?;
        parts.extend(part.map(Part::of));
    }
    Ok(Some(parts::unpack(parts)))
}

/// What the ConfigMaps of a revision are called, without their number.
pub(super) fn name_of(revision: &Revision) -> String {
    format!("{NAME}-{}", revision.name())
}

fn numbered(name: &str, number: usize) -> String {
    format!("{name}-{number}")
}

/// Whom the task serves.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) core: Core,
    pub(super) outage: Outage,
    pub(super) memory: watch::Receiver<Option<Arc<LastGoods>>>,
}

impl Keeper {
    /// Runs for as long as the controller does: writes while this replica leads, and puts right what somebody else changes
    /// or removes; takes over while another leads.
    pub(super) async fn run(mut self, mut leads: watch::Receiver<bool>) {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        // Of all of the namespace, because there are several; only of what they are called and in which version.
        let all = Api::<PartialObjectMeta<ConfigMap>>::namespaced(self.client.clone(), &self.namespace);
        let mut events = pin!(watcher(all, Config::default()).backoff(DefaultBackoff::default()));
        let mut written = Written::default();
        // A moment, and not a time from now on: other changes come more often.
        let mut again_at = None;
        loop {
            let due = tokio::select! {
                // What is told of writes before the next one.
                biased;
                event = events.next() => match event {
                    Some(event) => self.told(&mut written, event),
                    None => return,
                },
                changed = leads.changed() => match changed {
                    Ok(()) => *leads.borrow(),
                    Err(_) => return,
                },
                changed = self.memory.changed() => match changed {
                    Ok(()) => *leads.borrow(),
                    Err(_) => return,
                },
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => true,
            };
            let is_leader = *leads.borrow();
            if !is_leader {
                written.forget();
            }
            // What failed a moment ago is left until it is time to try it again.
            if !due || again_at.is_some_and(|at| at > Instant::now()) {
                continue;
            }
            sleep(ROUND).await;
            // What changes together is done together.
            while let Some(Some(event)) = events.next().now_or_never() {
                self.told(&mut written, event);
            }
            let done = match is_leader {
                true => self.write(&maps, &mut written, &leads).await,
                false => self.take_over(&maps).await,
            };
            again_at = (!done).then(|| Instant::now() + AGAIN);
        }
    }

    /// True if the ConfigMaps are others than this replica has written.
    fn told(
        &self,
        written: &mut Written,
        event: Result<Event<PartialObjectMeta<ConfigMap>>, watcher::Error>,
    ) -> bool {
        match event {
            Ok(event) => written.take(&self.name, &metadata(event)),
            Err(error) => {
                self.outage.note("ConfigMap", &error);
                false
            }
        }
    }

    /// What the leader goes by counts for hosts whose rules do not resolve.
    async fn take_over(&self, maps: &Api<ConfigMap>) -> bool {
        match all(maps, &self.name).await {
            Ok(found) => {
                self.core.adopt_routings(found.unwrap_or_default().routings);
                true
            }
            Err(error) => {
                self.outage.note("ConfigMap", &error);
                false
            }
        }
    }

    /// Writes the parts that are others than before. The first goes last: it says how many there are.
    async fn write(
        &mut self,
        maps: &Api<ConfigMap>,
        written: &mut Written,
        leads: &watch::Receiver<bool>,
    ) -> bool {
        let Some(kept) = self.memory.borrow_and_update().clone() else { return true };
        let (parts, left_out) = parts::pack(&kept);
        if left_out > 0 {
            tracing::error!(
                left_out,
                "so much is last good that not all of it can be kept in the cluster: a controller that starts anew will not \
                 know the rest where rules do not resolve"
            );
        }
        for (number, part) in parts.into_iter().enumerate().rev() {
            if written.has(number, &part) {
                continue;
            }
            if !*leads.borrow() {
                return false;
            }
            let parameters = PatchParams::apply(MANAGER).force();
            let name = numbered(&self.name, number);
            match answered(maps.patch(&name, &parameters, &Patch::Apply(&part.map(&name)))).await {
                Ok(map) => written.note(number, part, map.metadata.resource_version),
                Err(error) => {
                    self.outage.note("ConfigMap", &error);
                    return false;
                }
            }
        }
        true
    }
}

/// What is told of an object, without what kind it is of.
fn metadata(event: Event<PartialObjectMeta<ConfigMap>>) -> Event<ObjectMeta> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(one) => Event::InitApply(one.metadata),
        Event::InitDone => Event::InitDone,
        Event::Apply(one) => Event::Apply(one.metadata),
        Event::Delete(one) => Event::Delete(one.metadata),
    }
}
