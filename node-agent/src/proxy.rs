//! The proxying role: everything behind a captured pod's listeners. This file alone knows every part and joins them.
//!
//! The life of a connection, which is also the order of the modules:
//!
//! ```text
//! accept ─► outbound  (model::plan)  ─► dial ══ tunnel ══► inbound (model::accept ─► authorize) ─► dial ─► application
//!       ├─► plaintext (authorize)    ─► dial ─► application
//!       └─► dns
//! record: what is said of it      connections: judged again, cut      worker: the thread it lives on
//! ```

pub(crate) mod accept;

pub(crate) mod outbound;

pub(crate) mod inbound;

pub(crate) mod plaintext;

pub(crate) mod authorize;

pub(crate) mod dial;

pub(crate) mod traceparent;

pub(crate) mod record;

pub(crate) mod finish;

pub(crate) mod connections;

pub(crate) mod dns;

pub(crate) mod dns_metrics;

pub(crate) mod pod;

pub(crate) mod worker;

pub(crate) mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::log::Log;
use daemon::metrics::traffic::Traffic;
use hbone::account::{Account, AccountLimits};
use hbone::limits::Limits;
use identity::rotation::Certificates;

use self::dns::Upstreams;
use self::dns_metrics::DnsMetrics;
use self::pod::Pod;
use self::state::State;
use self::worker::Handle;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) state: State,
    pub(crate) certificates: Certificates,
    pub(crate) traffic: Traffic,
    pub(crate) log: Log,
    pub(crate) limits: Limits,
    pub(crate) account_limits: AccountLimits,
    pub(crate) workers: Vec<Handle>,
    pub(crate) upstreams: Upstreams,
    pub(crate) dns_metrics: DnsMetrics,
    pub(crate) pods: Mutex<HashMap<Arc<str>, Arc<Pod>>>,
}

impl Agent {
    fn account(&self) -> Arc<Account> {
        Account::new(self.account_limits)
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Pod>>> {
        // The map is whole between any two calls on it.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
