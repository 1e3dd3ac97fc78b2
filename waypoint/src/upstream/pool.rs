//! Connections to endpoints that requests share: one after the other on HTTP/1.1, side by side on HTTP/2. One pool a
//! thread, so that none of it is locked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Identity;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::{Io, RequestBody, SendError, connect};
use crate::http::LocalExecutor;
use crate::limits::{Bounds, Limit};
use crate::listen::Inbound;
use crate::protocol::Http;
use crate::route::{Endpoint, Hop};
use crate::worker::Worker;

/// Connections that may take each other's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    hop: SocketAddr,
    address: SocketAddr,
    /// Who may be there; none in plain.
    expect: Option<Arc<[Identity]>>,
    version: Http,
}

impl Key {
    fn of(endpoint: &Endpoint, version: Http) -> Self {
        let (hop, expect) = match &endpoint.hop {
            Hop::Tunnel { next_hop, expect } => (next_hop.addr(), Some(expect.clone())),
            Hop::Plain(next_hop) => (next_hop.addr(), None),
        };
        Self { hop, address: endpoint.address, expect, version }
    }
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    entries: RefCell<HashMap<Key, Entry, foldhash::fast::RandomState>>,
    /// HTTP/1.1 connections, those in use too.
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
}

/// What is left of a connection when HTTP is over on it.
pub(crate) type Parts = http1::Parts<TokioIo<Io>>;

#[derive(Debug)]
struct One {
    sender: http1::SendRequest<RequestBody>,
    /// Where the connection goes when something else than HTTP is to be spoken on it.
    left: oneshot::Receiver<Parts>,
    since: Instant,
}

#[derive(Debug)]
struct Two {
    sender: http2::SendRequest<RequestBody>,
    requests: Rc<Cell<usize>>,
    since: Rc<Cell<Instant>>,
}

/// The use of a connection for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    used: Used,
    pooled: bool,
}

#[derive(Debug)]
enum Used {
    One { one: One, key: Key },
    Two { sender: http2::SendRequest<RequestBody>, _counted: Counted },
}

/// Counts something while it lasts, and notes when it ended.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>, Option<Rc<Cell<Instant>>>);

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
    /// The connection's; the request is in it where it was not sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.used {
            Used::One { one, .. } => one.sender.try_send_request(request).await,
            Used::Two { sender, .. } => sender.try_send_request(request).await,
        }
    }

    /// Whether the connection had been there before.
    pub(crate) fn was_pooled(&self) -> bool {
        self.pooled
    }

    /// The connection itself, once the endpoint has agreed to speak something else on it.
    pub(crate) fn leave_http(self) -> Option<oneshot::Receiver<Parts>> {
        match self.used {
            Used::One { one, .. } => Some(one.left),
            Used::Two { .. } => None,
        }
    }

    /// The answer is whole: the connection may be used again as soon as the request is.
    pub(crate) fn done(self, worker: &Rc<Worker>) {
        let Used::One { mut one, key } = self.used else { return };
        if one.sender.is_closed() {
            return;
        }
        one.since = Instant::now();
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
        self.entries.borrow_mut().entry(key).or_default().idle.push(one);
    }

    fn take(&self, key: &Key, most: usize) -> Option<Lease> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        while let Some(one) = entry.idle.pop() {
            if one.sender.is_ready() {
                return Some(Lease { used: Used::One { one, key: key.clone() }, pooled: true });
            }
        }
        entry.shared.retain(|two| !two.sender.is_closed());
        let two = entry.shared.iter().find(|two| two.requests.get() < most)?;
        let counted = Counted::new(&two.requests, Some(&two.since));
        Some(Lease { used: Used::Two { sender: two.sender.clone(), _counted: counted }, pooled: true })
    }

    fn dialing(&self, key: &Key) -> Rc<Mutex<()>> {
        self.entries.borrow_mut().entry(key.clone()).or_default().dialing.clone()
    }

    /// Ends connections that have not been used for so long.
    pub(crate) fn release_idle(&self, most: Duration) {
        let now = Instant::now();
        let stale = |since: Instant| now.duration_since(since) >= most;
        self.entries.borrow_mut().retain(|_, entry| {
            entry.idle.retain(|one| !stale(one.since) && !one.sender.is_closed());
            entry
                .shared
                .retain(|two| !two.sender.is_closed() && (two.requests.get() > 0 || !stale(two.since.get())));
            !entry.idle.is_empty() || !entry.shared.is_empty() || Rc::strong_count(&entry.dialing) > 1
        });
    }

    /// Gives up connections to addresses; requests under way go on.
    pub(crate) fn evict(&self, gone: impl Fn(IpAddr) -> bool) {
        self.entries.borrow_mut().retain(|key, _| !gone(key.hop.ip()) && !gone(key.address.ip()));
    }
}

/// A connection to an endpoint for one request: a pooled one unless it has to be `fresh`.
///
/// # Errors
/// It cannot be connected to, or there are too many connections.
pub(super) async fn lease(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    version: Http,
    fresh: bool,
) -> Result<Lease, SendError> {
    let key = Key::of(endpoint, version);
    let bounds = &worker.waypoint.bounds;
    if !fresh && let Some(lease) = worker.pools.take(&key, bounds.upstream_streams) {
        return Ok(lease);
    }
    match version {
        // Its state is ten times what a request over a pooled connection needs.
        Http::One => Box::pin(one(worker, inbound, endpoint, key)).await,
        Http::Two => {
            let dialing = worker.pools.dialing(&key);
            let _dialing = dialing.lock().await;
            // Somebody may have made one meanwhile.
            if !fresh && let Some(lease) = worker.pools.take(&key, bounds.upstream_streams) {
                return Ok(lease);
            }
            Box::pin(two(worker, inbound, endpoint, key)).await
        }
    }
}

async fn one(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    key: Key,
) -> Result<Lease, SendError> {
    let waypoint = &worker.waypoint;
    if worker.pools.open.get() >= waypoint.bounds.upstream_connections {
        waypoint.hits.hit(Limit::UpstreamConnections);
        return Err(SendError::Full);
    }
    let counted = Counted::new(&worker.pools.open, None);
    let io = connect(worker, endpoint, inbound).await.map_err(SendError::Dial)?;
    let handshake = http1::Builder::new()
        .max_buf_size(read_buffer(&waypoint.bounds))
        .max_headers(waypoint.bounds.fields)
        .handshake(TokioIo::new(io));
    let (sender, mut connection) = handshake.await.map_err(SendError::Broken)?;
    let (leave, left) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let _counted = counted;
        if let Err(error) = poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
            tracing::debug!(%error, "a connection to an endpoint failed");
        }
        // Nobody waits for it unless something else is to be spoken.
        if let Err(parts) = leave.send(connection.into_parts()) {
            let _ = parts.io.into_inner().shutdown().await;
        }
    });
    let one = One { sender, left, since: Instant::now() };
    Ok(Lease { used: Used::One { one, key }, pooled: false })
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
) -> Result<Lease, SendError> {
    let bounds = &worker.waypoint.bounds;
    let io = connect(worker, endpoint, inbound).await.map_err(SendError::Dial)?;
    let handshake = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(bounds.stream_window)
        .initial_connection_window_size(bounds.connection_window)
        .handshake(TokioIo::new(io));
    let (sender, connection) = handshake.await.map_err(SendError::Broken)?;
    let connection: Pin<Box<dyn Future<Output = hyper::Result<()>>>> = Box::pin(connection);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an endpoint failed");
        }
    });
    let mut entries = worker.pools.entries.borrow_mut();
    let entry = entries.entry(key).or_default();
    if !entry.shared.is_empty() {
        worker.waypoint.hits.hit(Limit::UpstreamStreams);
    }
    let two =
        Two { sender: sender.clone(), requests: Rc::default(), since: Rc::new(Cell::new(Instant::now())) };
    let counted = Counted::new(&two.requests, Some(&two.since));
    entry.shared.push(two);
    Ok(Lease { used: Used::Two { sender, _counted: counted }, pooled: false })
}
