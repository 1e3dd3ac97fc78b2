//! Being told of workloads and services on demand: only what the node's pods use is asked for, kept up to date, and
//! forgotten when it has not been used for a while (`XDS_ON_DEMAND`).
//!
//! ```text
//! outbound, dns … ─ what is there? ─► table ─ asks, lets go ─► pump ─► xds::client ══► controller
//!        ▲                              ▲ arrived, gone, not there                         ║
//!        └──────── state ◄──────────────┴────────────── restore::Recorded ◄═══════════════╝
//! ```
//!
//! Nothing is decided by an address before the controller has said what it is, or that there is nothing: what is not
//! known may be the mesh's, and does not go in plain. The pods of this node and all policies come without asking.

mod keep;
mod key;
mod metrics;
mod table;
#[cfg(test)]
mod tests;
mod uses;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use model::address::{NetworkAddress, OriginalDestination, Str};
use model::mesh::{Mesh, Update};
use model::plan::{Plan, Refusal};
use model::service::Service;
use model::workload::{GatewayDestination, Workload};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use xds::client::Link;
use xds::delta::subscriber::Delivery;

pub(crate) use self::keep::{pump, sweep};
pub(crate) use self::key::Key;
pub(crate) use self::metrics::DemandMetrics;
pub(crate) use self::table::service_of;
use self::table::{Seen, Table};
pub(crate) use self::uses::Uses;
use super::state::State;

/// How long a name is waited for before others are asked, who know Kubernetes' names too.
const NAMES: Duration = Duration::from_secs(1);
/// How long a connection waits for what only its labels need.
const LABELS: Duration = Duration::from_millis(100);

/// What is asked for, if anything has to be.
#[derive(Debug)]
pub(crate) struct Demand(Option<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    /// There is something to tell the controller.
    wake: Notify,
    /// The stream to the controller, once there is a client.
    link: OnceLock<watch::Receiver<Link>>,
    /// How long what is not used is kept.
    idle: Duration,
    /// Who asks for the addresses that connect to pods: not the pod's doing, so none of its budget.
    strangers: Arc<str>,
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change of the table leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_connected(&self) -> bool {
        self.link.get().is_some_and(|link| link.borrow().connected)
    }

    /// Whether the controller has said what there is by a key; asks if it has to be.
    fn is_told(&self, key: &Key, seen: Seen, asker: &Arc<str>) -> bool {
        let mut table = self.table();
        let told = table.look(key, seen, asker, Instant::now(), self.is_connected());
        if table.has_wishes() {
            self.wake.notify_one();
        }
        told
    }
}

impl Demand {
    /// Everything is told unasked.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// What is not used for so long is forgotten.
    pub(crate) fn on(idle: Duration) -> Self {
        let (table, wake, link) = (Mutex::default(), Notify::new(), OnceLock::new());
        Self(Some(Inner { table, wake, link, idle, strangers: "strangers".into() }))
    }

    /// Whether anything has to be asked for.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the controller has yet to say something that a connection's plan depends on. It is asked.
    pub(crate) fn lacks(
        &self,
        mesh: &Mesh,
        asker: &Arc<str>,
        source: &Workload,
        destination: OriginalDestination,
        plan: &Plan,
    ) -> bool {
        let Some(inner) = &self.0 else { return false };
        if destination.ip().is_loopback() {
            return false;
        }
        let address = NetworkAddress::new(source.profile.network.clone(), destination.ip());
        let seen = inner.seen_at(mesh, &address, source.namespace());
        if !inner.is_told(&Key::At(address), seen, asker) {
            return true;
        }
        match plan {
            Plan::Refuse(Refusal::NoWaypoint(GatewayDestination::Hostname(name))) => {
                let seen = inner.seen(mesh.service(name));
                !inner.is_told(&Key::Named(name.to_string().into()), seen, asker)
            }
            Plan::Refuse(Refusal::NoWaypoint(GatewayDestination::Address(address))) => {
                let seen = inner.seen_at(mesh, address, source.namespace());
                !inner.is_told(&Key::At(address.clone()), seen, asker)
            }
            Plan::Tunnel(tunnel) if tunnel.waypoint => {
                // By whichever name it was asked for, it is in use.
                inner.table().used(&tunnel.workload, Instant::now());
                false
            }
            _ => false,
        }
    }

    /// Waits until the controller has said what these names are; not long, as others know names too.
    pub(crate) async fn names(&self, state: &State, asker: &Arc<str>, names: Vec<Str>) {
        let Some(inner) = &self.0 else { return };
        if !inner.is_connected() {
            return;
        }
        let keys: Vec<Key> = names.into_iter().map(Key::Named).collect();
        let told = |_: &Mesh| {
            // Every one is asked for at once.
            let missing = keys.iter().filter(|key| !inner.is_told(key, Seen::Nothing, asker)).count();
            (missing == 0 && inner.table().is_whole()).then_some(())
        };
        state.wait_at_most(NAMES, told).await;
    }

    /// Waits a moment for who a peer is, as far as only labels depend on it.
    pub(crate) async fn peer(&self, state: &State, address: &NetworkAddress) {
        let Some(inner) = &self.0 else { return };
        let told = |mesh: &Mesh| {
            let seen = if mesh.workload_at(address).is_some() { Seen::Whole } else { Seen::Nothing };
            inner.is_told(&Key::At(address.clone()), seen, &inner.strangers).then_some(())
        };
        if inner.is_connected() {
            state.wait_at_most(LABELS, told).await;
        }
    }

    /// Asks who a peer is, for the labels of its next connection.
    pub(crate) fn ask_for_peer(&self, mesh: &Mesh, address: NetworkAddress) {
        let Some(inner) = &self.0 else { return };
        let seen = if mesh.workload_at(&address).is_some() { Seen::Whole } else { Seen::Nothing };
        inner.is_told(&Key::At(address), seen, &inner.strangers);
    }

    /// What is asked for is what a predecessor had; returns the names to ask for.
    pub(crate) fn adopt(&self, mesh: &Mesh) -> Vec<Str> {
        self.0.as_ref().map_or_else(Vec::new, |inner| inner.table().adopt(mesh, Instant::now()))
    }

    /// A delivery is about to be taken over.
    pub(crate) fn begin(&self, delivery: &Delivery) {
        if let Some(inner) = &self.0
            && *delivery.type_url == *proto::type_url::ADDRESS
        {
            inner.table().begin(delivery);
        }
    }

    /// Takes what is about to be taken over into account.
    pub(crate) fn note(&self, mesh: &Mesh, updates: &[Update]) {
        if let Some(inner) = &self.0 {
            inner.table().note(mesh, updates);
        }
    }

    /// A delivery has been taken over. Says whether those who wait have to look again.
    pub(crate) fn end(&self, delivery: &Delivery) -> bool {
        match &self.0 {
            Some(inner) if *delivery.type_url == *proto::type_url::ADDRESS => {
                let changed = inner.table().end(delivery, Instant::now());
                inner.wake.notify_one();
                changed
            }
            _ => false,
        }
    }

    /// How often which limit of the table was hit.
    pub(crate) fn hits(&self) -> [(&'static str, u64); 3] {
        let counts = self.0.as_ref().map(|inner| inner.table().counts()).unwrap_or_default();
        [
            ("demand_keys", counts.keys_hits),
            ("demand_absent", counts.absent_hits),
            ("demand_unanswered", counts.unanswered_hits),
        ]
    }

    /// For `/config_dump`.
    pub(crate) fn page(&self) -> serde_json::Value {
        self.0.as_ref().map_or(serde_json::Value::Null, |inner| inner.table().counts().page())
    }
}

impl Inner {
    /// What of an address is known already, as a client of a namespace sees it.
    fn seen_at(&self, mesh: &Mesh, address: &NetworkAddress, namespace: &str) -> Seen {
        match mesh.service_at(address, namespace) {
            service @ Some(_) => self.seen(service),
            None if mesh.workload_at(address).is_some() => Seen::Whole,
            None => Seen::Nothing,
        }
    }

    fn seen(&self, service: Option<&Arc<Service>>) -> Seen {
        match service {
            None => Seen::Nothing,
            Some(service) if self.table().is_part(&service.key) => Seen::Part,
            Some(_) => Seen::Whole,
        }
    }
}
