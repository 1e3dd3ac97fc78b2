//! New connections. Of HTTP/2 one is made at a time, and whoever waits for it shares it, or learns why there is none.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lease::{Lease, Parts, Used};
use super::queue::{Counted, Freed, Opened};
use super::rules::Rules;
use super::{Key, One, Two};
use crate::balance::InUse;
use crate::limits::{Bounds, Limit};
use crate::listen::Inbound;
use crate::pace::Paced;
use crate::protocol::Http;
use crate::route::Endpoint;
use crate::tcp::request_headers;
use crate::upstream::two::{self, Growing};
use crate::upstream::{Broken, DialError, connect};
use crate::worker::Worker;

/// What a connection is wanted for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) inbound: &'a Inbound,
    pub(super) endpoint: &'a Endpoint,
    pub(super) key: &'a Key,
    pub(super) rules: &'a Rules,
    /// Whether it must not be one that has been there.
    pub(super) fresh: bool,
}

/// Why there is no new connection.
#[derive(Debug, Clone)]
pub(super) enum Unopened {
    /// None came about.
    Failed(DialError),
    /// There are as many as the rules allow: one of them is to be waited for.
    Full,
}

impl From<DialError> for Unopened {
    fn from(error: DialError) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Wanted<'a> {
    /// The rules that limit connections, if any do.
    pub(super) fn limits(self) -> Option<&'a InUse> {
        self.endpoint.in_use.as_deref().filter(|in_use| in_use.current.own_connections)
    }

    /// Makes a connection; nothing where another request has done it while this one waited for its turn.
    ///
    /// # Errors
    /// There is none, for this request and for all that waited for the same.
    pub(super) async fn open(self) -> Result<Option<Lease>, Unopened> {
        match self.key.version {
            Http::One => self.one(self.place()?).await.map(Some),
            Http::Two => self.worker.pools.join(self.key).take_part(|| self.in_turn()).await,
        }
    }

    async fn in_turn(self) -> Result<Lease, Unopened> {
        // Room may have come about meanwhile on one that is there.
        let there = if self.fresh { None } else { self.worker.pools.take(self.key, self.rules) };
        match there {
            Some(lease) => Ok(lease),
            None => self.two(self.place()?).await,
        }
    }

    /// A place for one more connection.
    fn place(self) -> Result<Opened, Unopened> {
        let queue = self.worker.pools.queue(self.key, self.rules);
        let ticket = match self.limits() {
            Some(in_use) => Some(in_use.connection(queue.open.get() == 0).map_err(|_| Unopened::Full)?),
            None => None,
        };
        Ok(Opened::new(queue, ticket))
    }

    async fn one(self, opened: Opened) -> Result<Lease, Unopened> {
        let Wanted { worker, inbound, endpoint, key, rules, .. } = self;
        let waypoint = &worker.waypoint;
        let io = connect(worker, endpoint, || request_headers(inbound)).await?;
        let (way, pace) = (io.way(), Rc::default());
        let handshake = http1::Builder::new()
            .max_buf_size(read_buffer(&waypoint.bounds))
            .max_headers(waypoint.bounds.fields)
            .handshake(TokioIo::new(Paced::new(io, &pace)));
        let (sender, mut connection) =
            handshake.await.map_err(|error| DialError::Ended(Arc::new(Broken::One(error))))?;
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
        Ok(Lease { used: Used::One { one, key: key.clone(), rules: *rules }, pooled: false, ticket: None })
    }

    async fn two(self, opened: Opened) -> Result<Lease, Unopened> {
        let Wanted { worker, inbound, endpoint, key, rules, .. } = self;
        let bounds = &worker.waypoint.bounds;
        let io = connect(worker, endpoint, || request_headers(inbound)).await?;
        let way = io.way();
        let windows = bounds.endpoint_windows(&worker.waypoint.limits.windows);
        let room = two::Room { stream: windows.stream, connection: windows.connection(), head: bounds.head };
        let (sender, connection) =
            two::begin(io, room).await.map_err(|error| DialError::Ended(Arc::new(Broken::Two(error))))?;
        let running = two::run(connection, rules.ping, Some(Growing::new(windows, &sender)));
        let queue = opened.queue.clone();
        tokio::task::spawn_local(async move {
            let _held = opened;
            if let Err(error) = running.await {
                tracing::debug!(%error, "a connection to an endpoint failed");
            }
        });
        let mut entries = worker.pools.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_default();
        if !entry.shared.is_empty() {
            worker.waypoint.hits.hit(Limit::UpstreamStreams);
        }
        let now = Instant::now();
        let since = Rc::new(Cell::new(now));
        let two =
            Two { sender: sender.clone(), requests: Rc::default(), since, opened: now, carried: 1, way };
        let counted = Counted::new(&two.requests, Some(&two.since));
        entry.shared.push(two);
        // Who waits may share it.
        (0..queue.waiting.get().min(rules.streams)).for_each(|_| queue.freed.notify_one());
        let used = Used::Two { sender, _counted: counted, _freed: Freed(queue) };
        Ok(Lease { used, pooled: false, ticket: None })
    }
}

/// hyper wants room for its own reads; heads are bounded by it.
fn read_buffer(bounds: &Bounds) -> usize {
    bounds.head.max(8192)
}
