//! Connections to endpoints that requests share: one after the other on HTTP/1.1, side by side on HTTP/2. One pool a
//! thread, so that none of it is locked.
//!
//! Where a DestinationRule limits connections, who finds none waits for one of this pool, in order, and is counted
//! meanwhile ([`model::traffic::pool`]); who comes later waits behind. A pool that has none may always open one.

mod waiting;

mod opening;

mod queue;

mod lease;

mod rules;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::dial::{Dial, Dialing};
use hyper::client::conn::http1;
use model::Identity;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::lease::Used;
pub(crate) use self::lease::{Lease, Parts};
use self::opening::Unopened;
pub(super) use self::queue::Counted;
use self::queue::{Freed, Queue};
use self::rules::Rules;
pub(super) use self::waiting::lease;
use super::dial::Way;
use super::{RequestBody, two};
use crate::pace::Pace;
use crate::protocol::Http;
use crate::route::{Endpoint, Hop};

/// Connections that may take each other's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    hop: SocketAddr,
    address: SocketAddr,
    /// Who may be there; none in plain.
    expect: Option<Arc<[Identity]>>,
    version: Http,
    /// The cluster, where its rules say anything of connections.
    cluster: Option<u64>,
}

impl Key {
    fn of(endpoint: &Endpoint, version: Http) -> Self {
        let (hop, expect) = match &endpoint.hop {
            Hop::Tunnel { next_hop, expect } => (next_hop.addr(), Some(expect.clone())),
            Hop::Plain(next_hop) => (next_hop.addr(), None),
        };
        let in_use = endpoint.in_use.as_deref().filter(|in_use| in_use.current.own_connections);
        let cluster = in_use.map(|in_use| in_use.id());
        Self { hop, address: endpoint.address, expect, version, cluster }
    }
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    entries: RefCell<HashMap<Key, Entry, foldhash::fast::RandomState>>,
    /// Connections to endpoints, of HTTP and others, those being opened too.
    open: Rc<Cell<usize>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// HTTP/1.1 connections that wait for a request, the one used last at the end.
    idle: Vec<One>,
    /// HTTP/2 connections.
    shared: Vec<Two>,
    /// Of HTTP/2: who comes while a connection is made shares it.
    dialing: Dialing<Unopened>,
    queue: Rc<Queue>,
    /// After how long an unused connection is closed, where the rules say so: never, or after this.
    idle_time: Option<Option<Duration>>,
}

#[derive(Debug)]
struct One {
    sender: http1::SendRequest<RequestBody>,
    /// Where the connection goes when something else than HTTP is to be spoken on it.
    left: oneshot::Receiver<Parts>,
    since: Instant,
    opened: Instant,
    /// Requests that it has carried, with the one under way.
    carried: u32,
    way: Way,
    pace: Rc<Pace>,
}

#[derive(Debug)]
struct Two {
    sender: two::Sender,
    requests: Rc<Cell<usize>>,
    since: Rc<Cell<Instant>>,
    opened: Instant,
    carried: u32,
    way: Way,
}

impl Pools {
    fn keep(&self, key: Key, one: One) {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key).or_default();
        entry.idle.push(one);
        if entry.queue.waiting.get() > 0 {
            entry.queue.freed.notify_one();
        }
    }

    fn take(&self, key: &Key, rules: &Rules) -> Option<Lease> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        while let Some(mut one) = entry.idle.pop() {
            if one.sender.is_ready() && one.way.is_open() && rules.may_carry(one.carried, one.opened) {
                one.carried = one.carried.saturating_add(1);
                let used = Used::One { one, key: key.clone(), rules: *rules };
                return Some(Lease { used, pooled: true, ticket: None });
            }
        }
        // What carries no more goes when its last request is done.
        entry.shared.retain_mut(|two| {
            !two.sender.is_closed() && two.way.is_open() && rules.may_carry(two.carried, two.opened)
        });
        // One more than the endpoint takes would wait in it, whatever others there are.
        let has_room = |two: &&mut Two| two.requests.get() < rules.streams.min(two.sender.streams());
        let two = entry.shared.iter_mut().find(has_room)?;
        two.carried = two.carried.saturating_add(1);
        let counted = Counted::new(&two.requests, Some(&two.since));
        let freed = Freed(entry.queue.clone());
        let used = Used::Two { sender: two.sender.clone(), _counted: counted, _freed: freed };
        Some(Lease { used, pooled: true, ticket: None })
    }

    /// Counts a connection to an endpoint while it lasts, if there may be one more.
    pub(super) fn count(&self, most: usize) -> Option<Counted> {
        (self.open.get() < most).then(|| Counted::new(&self.open, None))
    }

    /// The dial under way, or a new one.
    fn join(&self, key: &Key) -> Rc<Dial<Unopened>> {
        self.entries.borrow_mut().entry(key.clone()).or_default().dialing.join()
    }

    fn queue(&self, key: &Key, rules: &Rules) -> Rc<Queue> {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(key) {
            entry.idle_time = rules.idle;
            return entry.queue.clone();
        }
        let entry = entries.entry(key.clone()).or_default();
        entry.idle_time = rules.idle;
        entry.queue.clone()
    }

    /// Ends connections that have not been used for so long, or as long as their rules say.
    pub(crate) fn release_idle(&self, most: Duration) {
        let now = Instant::now();
        self.entries.borrow_mut().retain(|_, entry| {
            let most = entry.idle_time.unwrap_or(Some(most));
            let stale = |since: Instant| most.is_some_and(|most| now.duration_since(since) >= most);
            entry.idle.retain(|one| !stale(one.since) && !one.sender.is_closed() && one.way.is_open());
            entry.shared.retain(|two| two.way.is_open());
            entry.shared.retain_mut(|two| {
                !two.sender.is_closed() && (two.requests.get() > 0 || !stale(two.since.get()))
            });
            let used = entry.dialing.is_under_way() || Rc::strong_count(&entry.queue) > 1;
            !entry.idle.is_empty() || !entry.shared.is_empty() || used
        });
    }

    /// Gives up connections to addresses; requests under way go on.
    pub(crate) fn evict(&self, gone: impl Fn(IpAddr) -> bool) {
        self.entries.borrow_mut().retain(|key, entry| {
            let stays = !gone(key.hop.ip()) && !gone(key.address.ip());
            if !stays {
                // Who waits for one of these connections looks anew.
                entry.queue.freed.notify_waiters();
            }
            stays
        });
    }
}
