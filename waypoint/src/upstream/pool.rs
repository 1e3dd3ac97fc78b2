//! Connections to endpoints that requests share: one after the other on HTTP/1.1, side by side on HTTP/2. One pool a
//! thread, so that none of it is locked.
//!
//! Where a DestinationRule limits connections, who finds none waits for one of this pool, in order, and is counted
//! meanwhile ([`model::traffic::pool`]); who comes later waits behind. A pool that has none may always open one.

mod rules;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::Identity;
use model::traffic::outlier::Outcome;
use model::traffic::pool::{Overflow, Ticket};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::Instant;

use self::rules::Rules;
use super::dial::Way;
use super::two::Growing;
use super::{Answer, Broken, Io, RequestBody, SendError, connect, two};
use crate::limits::{Bounds, Limit};
use crate::listen::Inbound;
use crate::pace::{Pace, Paced};
use crate::protocol::Http;
use crate::route::{Endpoint, Hop};
use crate::tcp::request_headers;
use crate::worker::Worker;

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
    /// Held while an HTTP/2 connection is made: who comes meanwhile shares it.
    dialing: Rc<Mutex<()>>,
    queue: Rc<Queue>,
    /// After how long an unused connection is closed, where the rules say so: never, or after this.
    idle_time: Option<Option<Duration>>,
}

/// Who waits for a connection of an entry, and what they wait for.
#[derive(Debug, Default)]
struct Queue {
    waiting: Rc<Cell<usize>>,
    /// Something that they wait for may be there.
    freed: Notify,
    /// Connections open, or being opened.
    open: Rc<Cell<usize>>,
}

/// A connection that is open or being opened.
#[derive(Debug)]
pub(crate) struct Opened {
    queue: Rc<Queue>,
    _ticket: Option<Ticket>,
    _counted: Counted,
}

impl Opened {
    fn new(queue: Rc<Queue>, ticket: Option<Ticket>) -> Self {
        let _counted = Counted::new(&queue.open, None);
        Self { queue, _ticket: ticket, _counted }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.queue.freed.notify_one();
    }
}

/// What is left of a connection when HTTP is over on it.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The connection, and what was read of it already.
    pub(crate) http: http1::Parts<TokioIo<Paced<Io>>>,
    /// It counts as one for as long as it lasts.
    pub(crate) opened: Opened,
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

/// The use of a connection for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    used: Used,
    pooled: bool,
    /// Counts the request, where requests are counted.
    ticket: Option<Ticket>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and is moved, not kept")]
enum Used {
    One { one: One, key: Key, rules: Rules },
    Two { sender: two::Sender, _counted: Counted, _freed: Freed },
}

/// Says that a stream of HTTP/2 may be had.
#[derive(Debug)]
struct Freed(Rc<Queue>);

impl Drop for Freed {
    fn drop(&mut self) {
        if self.0.waiting.get() > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// Counts something while it lasts, and notes when it ended.
#[derive(Debug)]
pub(super) struct Counted(Rc<Cell<usize>>, Option<Rc<Cell<Instant>>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>, since: Option<&Rc<Cell<Instant>>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone(), since.cloned())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
        if let Some(since) = &self.1 {
            since.set(Instant::now());
        }
    }
}

impl Lease {
    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// The connection's, and the request where nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Answer>, (Broken, Option<Request<RequestBody>>)> {
        match &mut self.used {
            Used::One { one, .. } => {
                one.pace.begin();
                request.body_mut().keep_to(&one.pace);
                one.sender.try_send_request(request).await.map(|response| response.map(Answer::One)).map_err(
                    |mut error| {
                        let unsent = error.take_message();
                        (error.into_error().into(), unsent)
                    },
                )
            }
            Used::Two { sender, .. } => match sender.send(request).await {
                Ok(response) => Ok(response.map(Answer::Two)),
                Err((error, unsent)) => Err((error.into(), unsent)),
            },
        }
    }

    /// Whether the connection had been there before.
    pub(crate) fn was_pooled(&self) -> bool {
        self.pooled
    }

    /// The connection itself, once the endpoint has agreed to speak something else on it, and what counts the request.
    pub(crate) fn leave_http(self) -> Option<(oneshot::Receiver<Parts>, Option<Ticket>)> {
        match self.used {
            Used::One { one, .. } => Some((one.left, self.ticket)),
            Used::Two { .. } => None,
        }
    }

    /// The answer is whole: the connection may be used again as soon as the request is.
    pub(crate) fn done(self, worker: &Rc<Worker>) {
        let Used::One { mut one, key, rules } = self.used else { return };
        one.since = Instant::now();
        if one.sender.is_closed() || !rules.may_carry(one.carried, one.opened) {
            return;
        }
        if one.sender.is_ready() {
            return worker.pools.keep(key, one);
        }
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            if one.sender.ready().await.is_ok() {
                worker.pools.keep(key, one);
            }
        });
    }
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
        let two = entry.shared.iter_mut().find(|two| two.requests.get() < rules.streams)?;
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

    fn dialing(&self, key: &Key) -> Rc<Mutex<()>> {
        self.entries.borrow_mut().entry(key.clone()).or_default().dialing.clone()
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
            let used = Rc::strong_count(&entry.dialing) > 1 || Rc::strong_count(&entry.queue) > 1;
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

/// A connection to an endpoint for one request: a pooled one unless it has to be `fresh`.
///
/// # Errors
/// It cannot be connected to, or there are too many connections, or requests.
pub(super) async fn lease(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    version: Http,
    fresh: bool,
) -> Result<Lease, SendError> {
    let key = Key::of(endpoint, version);
    let rules = Rules::of(endpoint, &worker.waypoint.bounds);
    let queue = worker.pools.queue(&key, &rules);
    let pooled = if fresh || queue.waiting.get() > 0 { None } else { worker.pools.take(&key, &rules) };
    let lease = match pooled {
        Some(lease) => lease,
        // Its state is ten times what a request over a pooled connection needs.
        None => Box::pin(wait(worker, inbound, endpoint, &key, &rules, fresh)).await?,
    };
    let Some(in_use) = &endpoint.in_use else { return Ok(lease) };
    in_use.record(Outcome::Connected);
    match in_use.request() {
        Ok(ticket) => Ok(Lease { ticket, ..lease }),
        Err(overflow) => {
            lease.done(worker);
            Err(SendError::Overflow(overflow))
        }
    }
}

/// Waits for a connection: for one that is made, or for one that others give back.
async fn wait(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    key: &Key,
    rules: &Rules,
    fresh: bool,
) -> Result<Lease, SendError> {
    let in_use = endpoint.in_use.as_deref();
    let limits = in_use.filter(|in_use| in_use.current.own_connections);
    let _pending = match limits {
        Some(in_use) => Some(in_use.pending().map_err(SendError::Overflow)?),
        None => None,
    };
    let mut behind = worker.pools.queue(key, rules).waiting.get() > 0;
    loop {
        let queue = worker.pools.queue(key, rules);
        let opened = match limits {
            _ if behind => None,
            Some(in_use) => match in_use.connection(queue.open.get() == 0) {
                Ok(ticket) => Some(Opened::new(queue.clone(), Some(ticket))),
                Err(Overflow::Connections(_)) => None,
                Err(overflow) => return Err(SendError::Overflow(overflow)),
            },
            None => Some(Opened::new(queue.clone(), None)),
        };
        if let Some(opened) = opened {
            return dial(worker, inbound, endpoint, key, rules, fresh, opened).await;
        }
        behind = false;
        let counted = Counted::new(&queue.waiting, None);
        queue.freed.notified().await;
        drop(counted);
        if let Some(lease) = worker.pools.take(key, rules) {
            return Ok(lease);
        }
    }
}

/// Makes a connection.
async fn dial(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    key: &Key,
    rules: &Rules,
    fresh: bool,
    opened: Opened,
) -> Result<Lease, SendError> {
    match key.version {
        Http::One => one(worker, inbound, endpoint, key.clone(), rules, opened).await,
        Http::Two => {
            let dialing = worker.pools.dialing(key);
            let _dialing = dialing.lock().await;
            // Somebody may have made one meanwhile.
            if !fresh && let Some(lease) = worker.pools.take(key, rules) {
                return Ok(lease);
            }
            two(worker, inbound, endpoint, key.clone(), rules, opened).await
        }
    }
}

async fn one(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    key: Key,
    rules: &Rules,
    opened: Opened,
) -> Result<Lease, SendError> {
    let waypoint = &worker.waypoint;
    let io = connect(worker, endpoint, || request_headers(inbound)).await?;
    let (way, pace) = (io.way(), Rc::default());
    let handshake = http1::Builder::new()
        .max_buf_size(read_buffer(&waypoint.bounds))
        .max_headers(waypoint.bounds.fields)
        .handshake(TokioIo::new(Paced::new(io, &pace)));
    let (sender, mut connection) = handshake.await.map_err(Broken::One)?;
    let (leave, left) = oneshot::channel();
    tokio::task::spawn_local(async move {
        if let Err(error) = poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
            tracing::debug!(%error, "a connection to an endpoint failed");
        }
        // Nobody waits for it unless something else is to be spoken.
        if let Err(parts) = leave.send(Parts { http: connection.into_parts(), opened }) {
            let _ = parts.http.io.into_inner().shutdown().await;
        }
    });
    let now = Instant::now();
    let one = One { sender, left, since: now, opened: now, carried: 1, way, pace };
    Ok(Lease { used: Used::One { one, key, rules: *rules }, pooled: false, ticket: None })
}

/// hyper wants room for its own reads; heads are bounded by it.
fn read_buffer(bounds: &Bounds) -> usize {
    bounds.head.max(8192)
}

async fn two(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    key: Key,
    rules: &Rules,
    opened: Opened,
) -> Result<Lease, SendError> {
    let bounds = &worker.waypoint.bounds;
    let io = connect(worker, endpoint, || request_headers(inbound)).await?;
    let way = io.way();
    let windows = bounds.endpoint_windows(&worker.waypoint.limits.windows);
    let room = two::Room { stream: windows.stream, connection: windows.connection(), head: bounds.head };
    let (sender, connection) = two::begin(io, room).await.map_err(Broken::Two)?;
    let running = two::run(connection, rules.ping, Some(Growing::new(windows, &sender)));
    let queue = opened.queue.clone();
    tokio::task::spawn_local(async move {
        let _held = opened;
        if let Err(error) = running.await {
            tracing::debug!(%error, "a connection to an endpoint failed");
        }
    });
    let mut entries = worker.pools.entries.borrow_mut();
    let entry = entries.entry(key).or_default();
    if !entry.shared.is_empty() {
        worker.waypoint.hits.hit(Limit::UpstreamStreams);
    }
    let now = Instant::now();
    let since = Rc::new(Cell::new(now));
    let two = Two { sender: sender.clone(), requests: Rc::default(), since, opened: now, carried: 1, way };
    let counted = Counted::new(&two.requests, Some(&two.since));
    entry.shared.push(two);
    // Who waits may share it.
    (0..queue.waiting.get().min(rules.streams)).for_each(|_| queue.freed.notify_one());
    let used = Used::Two { sender, _counted: counted, _freed: Freed(queue) };
    Ok(Lease { used, pooled: false, ticket: None })
}
