//! The waypoint: tunnels in, requests judged and routed, tunnels out. This file and `app` alone know every part.
//!
//! The life of a request, which is also the order of the modules:
//!
//! ```text
//! listen ══ tunnel ══► target ─► protocol ─┬► http ─► filter::chain ─► route ─► upstream ══ tunnel ══► pod
//!                                          └► tcp (hello) ─────────► route ─► upstream
//! telemetry: what is said of it      worker: the thread it lives on      limits: every bound
//! known: what the controller told (feed) of hosts and workloads      balance: what traffic to endpoints showed of them
//! health: what is asked of endpoints beside requests
//! ```

mod listen;

mod target;

mod broken;
mod hello;
mod pace;
mod protocol;
mod rewound;

mod http;

mod filter;

mod tcp;

mod balance;
mod route;

mod upstream;

mod telemetry;

mod ending;
mod feed;
mod health;
mod known;
mod limits;
mod trust;
mod worker;

mod admin;
pub mod app;
pub mod config;

use std::sync::Arc;

use daemon::log::Log;
use hbone::account::Ledger;
use hbone::handshakes::Handshakes;
use hbone::limits::Limits;
use model::Identity;
use model::address::NetworkAddress;
use model::authz::GatewayName;
use model::mesh::{Mesh, Update};
use model::workload::Workload;
use proxy::trust::Trust;
use xds::state::State;

use self::balance::AllClusters;
use self::ending::Ending;
use self::health::Checks;
use self::known::{AllLabels, Routings};
use self::limits::{Bounds, Connections, Hits};
use self::telemetry::{Records, Spans, Telemetry};
use self::worker::Handle;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Waypoint {
    pub(crate) state: State,
    pub(crate) own: Own,
    /// The labels of workloads.
    pub(crate) labels: AllLabels,
    /// What becomes of traffic to hosts.
    pub(crate) routings: Routings,
    /// What all threads know of those who take it.
    pub(crate) clusters: AllClusters,
    /// Who of them is checked, and what was found.
    pub(crate) checks: Checks,
    pub(crate) trust: Trust,
    pub(crate) log: Log,
    /// Bounds of tunnels.
    pub(crate) limits: Limits,
    /// Bounds of requests.
    pub(crate) bounds: Bounds,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) hits: Hits,
    /// Those of clients that are served.
    pub(crate) connections: Connections,
    /// Tunnels whose peer has not shown yet who it is. All are this waypoint's.
    pub(crate) handshakes: Handshakes<()>,
    pub(crate) telemetry: Telemetry,
    /// What was decided lately.
    pub(crate) records: Records,
    /// Where there is a collector.
    pub(crate) spans: Option<Spans>,
    pub(crate) workers: Vec<Handle>,
    /// How far the process's end has come.
    pub(crate) ending: Ending,
}

/// Who this waypoint is.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) identity: Identity,
    /// The text of it, as headers have it.
    pub(crate) principal: Arc<str>,
    /// The Gateway that it is of, as policies name it.
    pub(crate) gateway: GatewayName,
    /// The address that its workload is found by.
    pub(crate) address: NetworkAddress,
}

impl Own {
    /// This waypoint's own workload, once the controller has told of it. Another that has its address is not it.
    pub(crate) fn workload<'a>(&self, mesh: &'a Mesh) -> Option<&'a Arc<Workload>> {
        mesh.proven_workload(&self.address, &self.identity)
    }
}

impl Waypoint {
    /// Takes over what the controller said.
    fn take(&self, updates: Vec<Update>) {
        self.trust.take(&updates);
        self.state.apply(updates);
    }
}

#[cfg(test)]
mod tests;
