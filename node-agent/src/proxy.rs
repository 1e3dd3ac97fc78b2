//! The proxying role: everything behind a captured pod's listeners. This file alone knows every part and joins them.
//!
//! The life of a connection, which is also the order of the modules:
//!
//! ```text
//! accept ─► outbound  (model::plan)  ─► dial ══ tunnel ══► inbound (model::accept ─► authorize) ─► dial ─► application
//!       ├─► plaintext (authorize)    ─► dial ─► application
//!       └─► dns
//! record: what is said of it      connections: judged again, cut      worker: the thread it lives on
//! moves: from tunnel to tunnel    parking: until the client comes     handover: to the proxy that takes this one's place
//! balance: from thread to thread
//! ```

pub(crate) mod accept;

pub(crate) mod outbound;

pub(crate) mod inbound;

pub(crate) mod plaintext;

pub(crate) mod authorize;

pub(crate) mod dial;

pub(crate) mod traceparent;

pub(crate) mod record;

pub(crate) mod decisions;

pub(crate) mod carry;

pub(crate) mod finish;

pub(crate) mod connections;

pub(crate) mod moves;

pub(crate) mod balance;

pub(crate) mod parking;

pub(crate) mod handover;

pub(crate) mod retire;

pub(crate) mod dns;

pub(crate) mod dns_metrics;

pub(crate) mod pod;

mod offenders;
pub(crate) mod places;

pub(crate) mod handshakes;

pub(crate) mod limits;

pub(crate) mod files;

pub(crate) mod memory;

pub(crate) mod top;

pub(crate) mod worker;

pub(crate) mod demand;
pub(crate) mod trust;

pub(crate) mod save;

pub(crate) mod journal;

pub(crate) mod restore;

pub(crate) mod members;

pub(crate) mod members_metrics;

pub(crate) mod dump;

pub(crate) mod admin;

mod app;

pub use self::app::run;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use daemon::log::Log;
use daemon::metrics::traffic::Traffic;
use daemon::shutdown::Shutdown;
use hbone::account::{Account, AccountLimits, Ledger};
use hbone::limits::Limits;
use model::mesh::Update;
use proxy::trust::Trust;
use xds::diagnostics::Ring;
use xds::state::{self, State};

use self::decisions::Decided;
use self::demand::Demand;
use self::dns::Upstreams;
use self::dns_metrics::DnsMetrics;
use self::handover::{Onward, Predecessors};
use self::handshakes::Handshakes;
use self::limits::Hits;
use self::parking::Parking;
use self::pod::Pod;
use self::top::Rates;
use self::worker::Handle;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) state: State,
    pub(crate) demand: Demand,
    pub(crate) trust: Trust,
    pub(crate) traffic: Traffic,
    /// What was decided lately.
    pub(crate) decisions: Ring<Decided>,
    pub(crate) log: Log,
    pub(crate) limits: Limits,
    pub(crate) account_limits: AccountLimits,
    /// What all accounts together hold.
    pub(crate) ledger: Arc<Ledger>,
    /// Tunnels whose peers have not shown yet who they are.
    pub(crate) handshakes: Handshakes,
    /// Bytes of memory and open files that the process may have.
    pub(crate) memory_limit: u64,
    pub(crate) open_files: u64,
    /// How often a limit of the agent itself was hit.
    pub(crate) hits: Hits,
    pub(crate) rates: Rates,
    pub(crate) node: String,
    /// Of the sockets of tunnels; empty for the host's.
    pub(crate) tunnel_congestion_control: String,
    /// Bytes a second from which a thread gives connections away.
    pub(crate) thread_busy: u64,
    pub(crate) workers: Vec<Handle>,
    pub(crate) upstreams: Upstreams,
    /// What follows `SERVICE.NAMESPACE.svc` in host names.
    pub(crate) domain: String,
    pub(crate) dns_metrics: DnsMetrics,
    pub(crate) pods: Mutex<HashMap<Arc<str>, Arc<Pod>>>,
    /// Connections without a tunnel.
    pub(crate) parking: Parking,
    /// Proxies whose place this one takes, and that have not handed everything over yet.
    pub(crate) predecessors: Predecessors,
    onward: RwLock<Option<Onward>>,
    /// Begins when a newer proxy is there.
    pub(crate) superseded: Shutdown,
    /// Begins when what is left is cut.
    pub(crate) over: Shutdown,
    /// How often an account of a pod that is gone was full.
    pub(crate) refused_before: AtomicU64,
    /// The settings in force, for `/config_dump`.
    pub(crate) config: serde_json::Value,
}

impl Agent {
    fn account(&self) -> Arc<Account> {
        Account::listed(self.account_limits, &self.ledger)
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Pod>>> {
        // The map is whole between any two calls on it.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what is detached goes, if a newer proxy takes it over.
    fn onward(&self) -> Option<Onward> {
        self.onward.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a newer proxy has taken over.
    fn is_retiring(&self) -> bool {
        self.superseded.has_begun()
    }

    fn set_onward(&self, onward: Option<Onward>) {
        *self.onward.write().unwrap_or_else(PoisonError::into_inner) = onward;
    }

    /// Takes over what the controller said.
    fn take(&self, updates: Vec<Update>) {
        // Before any connection is judged by a workload of a new trust domain.
        self.trust.take(&updates);
        if self.demand.is_on() {
            self.demand.note(&self.state.read(), &updates);
        }
        self.state.apply(updates);
    }

    /// Whether a resource of that name is in force.
    fn knows(&self, type_url: &str, name: &str) -> bool {
        let mesh = self.state.read();
        type_url != proto::type_url::ADDRESS
            || mesh.workload(name).is_some()
            || demand::service_of(&mesh, name).is_some()
    }

    /// Whether nothing is left that a connection hangs on, nor comes from a predecessor.
    fn has_no_connection(&self) -> bool {
        // In this order: what a predecessor has handed over is on an account.
        self.predecessors.none() && self.pods().values().all(|pod| pod.has_no_connection())
    }

    /// Whether no pod waits for a name.
    fn has_no_query(&self) -> bool {
        self.pods().values().all(|pod| pod.has_no_query())
    }

    /// Tunnels that all threads serve. Requests may still come on them.
    fn served_tunnels(&self) -> usize {
        self.workers.iter().map(Handle::tunnels).sum()
    }
}
