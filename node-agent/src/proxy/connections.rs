//! The connections of one thread: counted while they last, judged again when a rule changes, cut when their pod goes.
//!
//! Each thread has its own table, so the path of a connection takes no lock; what concerns all connections goes to
//! all threads ([`worker`](super::worker)).

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use hbone::account::CONNECTION_BYTES;
use hbone::connection::Live;
use model::address::AppAddress;
use serde::Serialize;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::authorize::{self, Judgement};
use super::demand::Uses;
use super::pod::{Phase, Pod};
use super::record::Record;
use super::state::{PATIENCE, State};
use super::worker::Worker;

/// Why a connection is cut when memory is nearly used up.
pub(crate) const SHED: &str = "the node agent's memory is nearly used up and the pod holds most of it: its connections that wait for applications which do not read are reset, then its newest";

/// Why a connection is cut when its pod goes.
pub(crate) const GONE: &str = "the pod is gone";

/// The live connections of one thread.
#[derive(Debug)]
pub(crate) struct Connections {
    entries: RefCell<Slab<Entry>>,
    /// The place in the table from which the next are detached.
    detached: Cell<usize>,
    /// One was put in of which it is not known what it is to be judged by.
    not_judged: Notify,
    /// The thread's own.
    worker: Weak<Worker>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    record: Rc<Record>,
    live: Arc<Live>,
    /// Where it was delivered, for connections that policy judges.
    judged: Option<AppAddress>,
    /// Since when it is not known what it is to be judged by.
    unjudged: Cell<Option<Instant>>,
    /// Its peer does not know how to take it off its tunnel.
    foreign: Cell<bool>,
}

/// A connection's place in the table; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    table: Rc<Connections>,
    key: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(entry) = self.table.entries.borrow_mut().try_remove(self.key) {
            entry.count();
        }
    }
}

impl Registered {
    /// The thread whose table it is.
    pub(crate) fn worker(&self) -> Option<Rc<Worker>> {
        self.table.worker.upgrade()
    }

    /// The peer does not know how to take it off its tunnel: it is carried here to its end.
    pub(crate) fn is_foreign(&self) {
        if let Some(entry) = self.table.entries.borrow().get(self.key) {
            entry.foreign.set(true);
        }
    }

    /// Judges the connection, for one that was judged before it came here or by what may have changed since.
    pub(crate) fn judge(&self, state: &State) {
        let table = self.table.entries.borrow();
        let again = table.get(self.key).and_then(|entry| entry.judge(state, Instant::now()));
        if again.is_some() {
            self.table.not_judged.notify_one();
        }
    }

    /// Leaves the table; whose the connection is, and where it was delivered if policy judges it.
    pub(crate) fn leave(self) -> Option<(Arc<Pod>, Option<AppAddress>)> {
        let entry = self.table.entries.borrow_mut().try_remove(self.key)?;
        entry.count();
        Some((entry.pod, entry.judged))
    }
}

impl Entry {
    /// Brings the connection's counters and its pod's account up to date; returns the bytes since the last time.
    fn count(&self) -> u64 {
        let (sent, received) = self.record.count(&self.live);
        self.pod.account.carried(sent, received);
        sent + received
    }

    /// Cuts it if policy judges it and it may not go on. One whose policy has not arrived waits for it, for [`PATIENCE`] in
    /// all, however often something else changes meanwhile; returns until when.
    fn judge(&self, state: &State, now: Instant) -> Option<Instant> {
        let delivered = self.judged?;
        let ends = self.record.ends();
        let judgement =
            authorize::judge(state, &self.pod, ends.peer, ends.source_identity.as_ref(), delivered);
        match judgement {
            Judgement::Decided(decision) if decision.allows() => self.unjudged.set(None),
            Judgement::Decided(decision) => {
                self.live.cut(&format!("connection closed due to policy change: {}", decision.cause));
            }
            Judgement::NotKnown(why) => {
                let until = self.unjudged.get().unwrap_or(now) + PATIENCE;
                if until <= now {
                    self.live.cut(&format!("connection closed due to policy change: {why}"));
                    return None;
                }
                self.unjudged.set(Some(until - PATIENCE));
                return Some(until);
            }
        }
        None
    }

    /// What its end would give back, as [`Account::memory`](hbone::account::Account::memory) reckons.
    fn memory(&self) -> u64 {
        u64::from(self.live.buffered()) + CONNECTION_BYTES
    }
}

/// One connection as `/config_dump` lists it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) src: String,
    pub(crate) original_dst: String,
    pub(crate) actual_dst: String,
    pub(crate) protocol: &'static str,
    #[serde(skip)]
    pub(crate) pod: Arc<str>,
    #[serde(skip)]
    pub(crate) inbound: bool,
}

impl Connections {
    /// An empty table of a thread.
    pub(crate) fn new(worker: Weak<Worker>) -> Self {
        Self { entries: RefCell::default(), detached: Cell::new(0), not_judged: Notify::new(), worker }
    }

    /// Takes `most` connections off their tunnels, of those whose peers know how; the next time, those that follow in the
    /// table, round and round. Returns how many were asked.
    pub(crate) fn detach(&self, most: usize) -> usize {
        let table = self.entries.borrow();
        let from = self.detached.get();
        let mut asked = 0;
        for place in (from..table.capacity()).chain(0..from.min(table.capacity())) {
            if asked == most {
                self.detached.set(place);
                return asked;
            }
            if let Some(entry) = table.get(place).filter(|entry| !entry.foreign.get()) {
                entry.live.detach();
                asked += 1;
            }
        }
        asked
    }

    /// Puts a connection in; `judged` is where it was delivered if policy judges it. One that was still being opened
    /// when its pod went is cut at once: nobody comes again for it.
    pub(crate) fn register(
        self: &Rc<Self>,
        pod: Arc<Pod>,
        record: Rc<Record>,
        live: Arc<Live>,
        judged: Option<AppAddress>,
    ) -> Registered {
        if pod.phase() == Phase::Gone {
            live.cut(GONE);
        }
        let key = self.entries.borrow_mut().insert(Entry {
            pod,
            record,
            live,
            judged,
            unjudged: Cell::default(),
            foreign: Cell::default(),
        });
        Registered { table: self.clone(), key }
    }

    /// Brings the byte counters of all connections up to date; returns the bytes carried since the last time.
    pub(crate) fn count(&self) -> u64 {
        self.entries.borrow().iter().map(|(_, entry)| entry.count()).sum()
    }

    /// Judges all inbound connections again and cuts those that may not go on. Returns when the first of those is to be
    /// judged again of which it is not known.
    pub(crate) fn judge(&self, state: &State) -> Option<Instant> {
        let now = Instant::now();
        self.entries.borrow().iter().filter_map(|(_, entry)| entry.judge(state, now)).min()
    }

    /// Waits until one comes of which it is not known what it is to be judged by: then all are to be judged.
    pub(crate) async fn not_judged(&self) {
        self.not_judged.notified().await;
    }

    /// Cuts every connection.
    pub(crate) fn cut_all(&self, cause: &str) {
        self.entries.borrow().iter().for_each(|(_, entry)| entry.live.cut(cause));
    }

    /// Cuts every connection of a pod.
    pub(crate) fn cut_pod(&self, uid: &str, cause: &str) {
        for (_, entry) in self.entries.borrow().iter().filter(|(_, entry)| &*entry.pod.uid == uid) {
            entry.live.cut(cause);
        }
    }

    /// Cuts connections of a pod until about `bytes` have come back: those that wait for an application which does not
    /// read, the largest first, then the newest. Returns how many, and what that gives back.
    pub(crate) fn shed(&self, uid: &str, bytes: u64) -> (usize, u64) {
        let table = self.entries.borrow();
        let mut own: Vec<&Entry> =
            table.iter().map(|(_, entry)| entry).filter(|entry| &*entry.pod.uid == uid).collect();
        own.sort_by_key(|entry| Reverse((entry.live.buffered(), entry.record.started())));
        let (mut cut, mut freed) = (0, 0);
        for entry in own {
            if freed >= bytes {
                break;
            }
            entry.live.cut(SHED);
            (cut, freed) = (cut + 1, freed + entry.memory());
        }
        (cut, freed)
    }

    /// What they go to.
    pub(crate) fn uses(&self) -> Uses {
        let mut uses = Uses::default();
        for (_, entry) in self.entries.borrow().iter() {
            let ends = entry.record.ends();
            if ends.reporter == daemon::metrics::traffic::Reporter::Source {
                uses.add(ends.next_hop.ip(), ends.destination.as_deref(), ends.service.as_deref());
            }
        }
        uses
    }

    /// All of them, for `/config_dump`.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let table = self.entries.borrow();
        let listed = table.iter().map(|(_, entry)| {
            let ends = entry.record.ends();
            let inbound = ends.reporter == daemon::metrics::traffic::Reporter::Destination;
            let asked = entry.judged.map(|delivered| delivered.to_string());
            let asked = asked.or_else(|| ends.authority.as_deref().map(str::to_owned));
            Listed {
                src: ends.peer.to_string(),
                original_dst: asked.unwrap_or_else(|| ends.next_hop.to_string()),
                actual_dst: ends.next_hop.to_string(),
                protocol: if ends.authority.is_some() { "HBONE" } else { "TCP" },
                pod: entry.pod.uid.clone(),
                inbound,
            }
        });
        listed.collect()
    }
}
