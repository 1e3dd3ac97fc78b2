//! The connections of one thread: counted while they last, judged again when a rule changes, cut when their pod goes.
//!
//! Each thread has its own table, so the path of a connection takes no lock; what concerns all connections goes to
//! all threads ([`worker`](super::worker)).

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use daemon::metrics::traffic::Reporter;
use hbone::account::CONNECTION_BYTES;
use hbone::connection::Live;
use serde::Serialize;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::authorize::{self, Judgement, NO_LONGER};
use super::balance::Carries;
use super::demand::Uses;
use super::pod::{Phase, Pod};
use super::record::Record;
use super::state::{PATIENCE, State};
use super::worker::Worker;

/// Why a connection is cut when memory is nearly used up.
pub(crate) const SHED: &str = "the node agent's memory is nearly used up and the pod holds most of it: its connections that wait for applications which do not read are reset, then its newest";

/// Why a connection is cut when its pod goes.
pub(crate) const GONE: &str = "the pod is gone";

/// Why a connection is cut when the agent ends.
pub(crate) const OVER: &str = "the node agent ends, and the connection has not ended in its grace period";

/// The live connections of one thread.
#[derive(Debug)]
pub(crate) struct Connections {
    entries: RefCell<Slab<Rc<Entry>>>,
    /// The place in the table from which the next are detached.
    detached: Cell<usize>,
    /// Since when it is not known of some what they are to be judged by. By key; nearly always empty.
    unjudged: RefCell<HashMap<u32, Instant>>,
    /// One was put in of which that is not known.
    not_judged: Notify,
    tide: Cell<Tide>,
    /// The thread's number.
    thread: u16,
    /// The thread's own.
    worker: Weak<Worker>,
}

/// A connection's entry: the one allocation for all that the agent keeps of it.
#[derive(Debug)]
struct Entry {
    table: Rc<Connections>,
    key: u32,
    pod: Arc<Pod>,
    live: Arc<Live>,
    /// Its peer does not know how to take it off its tunnel.
    foreign: Cell<bool>,
    /// Another thread has had no tunnel for it.
    stays: Cell<bool>,
    /// The number of the thread on which it goes on once it is off its tunnel.
    thread: Cell<u16>,
    record: Record,
}

/// A connection's place in the table; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Registered(Rc<Entry>);

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.0.table.entries.borrow_mut().try_remove(self.0.key as usize);
        if removed.is_some() {
            self.0.count();
            self.0.table.unjudged.borrow_mut().remove(&self.0.key);
        }
    }
}

impl Registered {
    /// The thread whose table it is.
    pub(crate) fn worker(&self) -> Option<Rc<Worker>> {
        self.0.table.worker.upgrade()
    }

    /// The number of the thread on which it goes on once it is off its tunnel.
    pub(crate) fn thread(&self) -> usize {
        self.0.thread.get().into()
    }

    /// What is said of the connection.
    pub(crate) fn record(&self) -> &Record {
        &self.0.record
    }

    /// The peer does not know how to take it off its tunnel: it is carried here to its end.
    pub(crate) fn is_foreign(&self) {
        self.0.foreign.set(true);
    }

    /// Another thread has had no tunnel for it: it is not given to one again.
    pub(crate) fn stays(&self) {
        self.0.stays.set(true);
    }

    /// Judges the connection, for one that was judged before it came here or by what may have changed since.
    pub(crate) fn judge(&self, state: &State) {
        if self.0.judge(state, Instant::now()).is_some() {
            self.0.table.not_judged.notify_one();
        }
    }

    /// Leaves the table; whose the connection is, and what is said of it.
    pub(crate) fn leave(self) -> Option<(Arc<Pod>, Record)> {
        let entry = Rc::clone(&self.0);
        drop(self);
        let Entry { pod, record, .. } = Rc::into_inner(entry)?;
        Some((pod, record))
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
        let ends = self.record.ends();
        let delivered = ends.delivered?;
        let (peer, identity) = (self.record.peer(), ends.source_identity.as_ref());
        match authorize::judge(state, &self.pod, peer, identity, delivered) {
            Judgement::Decided(decision) if decision.allows() => {
                self.table.unjudged.borrow_mut().remove(&self.key);
            }
            Judgement::Decided(decision) => {
                self.live.cut(&format!("{NO_LONGER}{}", decision.cause));
            }
            Judgement::NotKnown(why) => {
                let until = *self.table.unjudged.borrow_mut().entry(self.key).or_insert(now) + PATIENCE;
                if until <= now {
                    self.live.cut(&format!("{NO_LONGER}{why}"));
                    return None;
                }
                return Some(until);
            }
        }
        None
    }

    /// Whether another thread may carry it on: it can be taken off its tunnel, and it is we who ask for the next.
    fn may_leave(&self) -> bool {
        let ends = self.record.ends();
        let plain = ends.authority.is_none();
        !self.foreign.get() && !self.stays.get() && (plain || ends.reporter == Reporter::Source)
    }

    /// What its end would give back, as [`Account::memory`](hbone::account::Account::memory) reckons.
    fn memory(&self) -> u64 {
        u64::from(self.live.buffered()) + CONNECTION_BYTES
    }
}

/// How many connections there have been, to see when a peak of them is over.
#[derive(Debug, Clone, Copy, Default)]
struct Tide {
    highest: usize,
    last: usize,
}

/// What fewer connections leave behind is not worth the trouble.
const PEAK: usize = 256;

impl Tide {
    /// Whether many have gone and hardly any more are going.
    fn settles(&mut self, now: usize) -> bool {
        let over = now.abs_diff(self.last) < PEAK / 8 && now + PEAK <= self.highest;
        self.highest = if over { now } else { self.highest.max(now) };
        self.last = now;
        over
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
    pub(crate) fn new(worker: Weak<Worker>, thread: usize) -> Self {
        Self {
            entries: RefCell::default(),
            detached: Cell::default(),
            unjudged: RefCell::default(),
            not_judged: Notify::new(),
            tide: Cell::default(),
            thread: u16::try_from(thread).unwrap_or(u16::MAX),
            worker,
        }
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

    /// Takes these off their tunnels, to go on on another thread. Returns how many are still there.
    pub(crate) fn send(&self, keys: &[u32], thread: usize) -> usize {
        let Ok(thread) = u16::try_from(thread) else { return 0 };
        let table = self.entries.borrow();
        let there = keys.iter().filter_map(|key| table.get(*key as usize));
        there
            .map(|entry| {
                entry.thread.set(thread);
                entry.live.detach();
            })
            .count()
    }

    /// Puts a connection in. One that was still being opened when its pod went is cut at once: nobody comes again for it.
    pub(crate) fn register(self: &Rc<Self>, pod: Arc<Pod>, record: Record, live: Arc<Live>) -> Registered {
        if pod.phase() == Phase::Gone {
            live.cut(GONE);
        }
        let mut entries = self.entries.borrow_mut();
        let place = entries.vacant_entry();
        // Descriptors run out long before.
        let key = u32::try_from(place.key()).unwrap_or(u32::MAX);
        let (foreign, stays, thread) = (Cell::default(), Cell::default(), Cell::new(self.thread));
        let entry = Rc::new(Entry { table: self.clone(), key, pod, live, foreign, stays, thread, record });
        place.insert(entry.clone());
        Registered(entry)
    }

    /// To be called every second or so. Once a peak of connections is over, the table becomes as small as they are few
    /// now; whether that was so.
    pub(crate) fn settle(&self) -> bool {
        let mut entries = self.entries.borrow_mut();
        let mut tide = self.tide.get();
        let over = tide.settles(entries.len());
        self.tide.set(tide);
        if over {
            entries.shrink_to_fit();
        }
        over
    }

    /// Brings the byte counters of all connections up to date; returns the bytes carried since the last time, and tells `each`
    /// of those that another thread may carry on.
    pub(crate) fn count(&self, mut each: impl FnMut(Carries)) -> u64 {
        let mut all = 0;
        for (_, entry) in self.entries.borrow().iter() {
            let bytes = entry.count();
            all += bytes;
            if entry.may_leave() {
                each(Carries { key: entry.key, bytes });
            }
        }
        all
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
            table.iter().map(|(_, entry)| &**entry).filter(|entry| &*entry.pod.uid == uid).collect();
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
            if ends.reporter == Reporter::Source {
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
            let inbound = ends.reporter == Reporter::Destination;
            let asked = ends.delivered.map(|delivered| delivered.to_string());
            let asked = asked.or_else(|| ends.authority.as_deref().map(str::to_owned));
            Listed {
                src: entry.record.peer().to_string(),
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

#[cfg(test)]
mod tests {
    use super::Tide;

    #[test]
    fn a_peak_is_over_when_many_have_gone_and_no_more_go() {
        let mut tide = Tide::default();
        let seen = [0, 5, 9000, 9000, 8000, 3000, 0, 0, 0, 200, 0, 0, 300, 300, 40, 40, 40];
        let over: Vec<usize> = (0..seen.len()).filter(|at| tide.settles(seen[*at])).collect();
        // Once for the 9,000; the 200 are none; the 300 leave 40.
        assert_eq!(over, [7, 15]);
    }
}
