//! A client's HTTP connection: read, its requests answered by the filter chain, and left alone where something else is to
//! be spoken on it.

mod body;
pub(crate) mod messages;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use bytes::BytesMut;
use hbone::tunnel::Stream;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use self::body::ResponseBody;
use crate::filter::chain;
use crate::limits::Limit;
use crate::listen::Inbound;
use crate::protocol::{self, Http};
use crate::rewound::Rewound;
use crate::telemetry::{Exchange, KnownSeries};
use crate::upstream::Io;
use crate::worker::Worker;

/// A client's connection, as its requests see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) inbound: Rc<Inbound>,
    /// Series that its requests count under.
    pub(crate) known: KnownSeries,
    /// What is to be spoken on it once the last answer has gone.
    pub(crate) upgrade: RefCell<Option<Upgrade>>,
}

/// An endpoint's connection on which something else than HTTP is to be spoken.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) endpoint: oneshot::Receiver<hyper::client::conn::http1::Parts<TokioIo<Io>>>,
    /// The request that asked for it, which lasts as long.
    pub(crate) exchange: Exchange,
}

/// Runs what hyper has to run beside a connection, on the same thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection of a port that is declared to be HTTP, of whichever version the client speaks.
pub(crate) async fn serve(worker: Rc<Worker>, inbound: Rc<Inbound>, mut stream: Stream) {
    let mut first = BytesMut::new();
    let known = async {
        loop {
            if let Some(version) = protocol::version(&first) {
                return Some(version);
            }
            if stream.read_buf(&mut first).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    };
    let draining = worker.waypoint.draining.clone();
    let version = tokio::select! {
        known = timeout(worker.waypoint.bounds.idle, known) => known.ok().flatten(),
        // A client that has asked for nothing has nothing to lose.
        () = draining.begun() => None,
    };
    match version {
        Some(version) => serve_as(worker, inbound, Rewound::new(first.freeze(), stream), version).await,
        None => {
            let _ = stream.shutdown().await;
        }
    }
}

/// Serves a connection of a version.
pub(crate) async fn serve_as(
    worker: Rc<Worker>,
    inbound: Rc<Inbound>,
    stream: Rewound<Stream>,
    version: Http,
) {
    let connection =
        Rc::new(Connection { worker, inbound, known: RefCell::default(), upgrade: RefCell::default() });
    match version {
        Http::One => serve_one(connection, stream).await,
        Http::Two => serve_two(connection, stream).await,
    }
}

async fn serve_one(connection: Rc<Connection>, stream: Rewound<Stream>) {
    let waypoint = connection.worker.waypoint.clone();
    let handled = connection.clone();
    // hyper gives the connection back only where nothing of it is pinned in place.
    let service = service_fn(move |request| Box::pin(chain::handle(handled.clone(), request)));
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(waypoint.bounds.idle)
        .max_buf_size(waypoint.bounds.head.max(8192))
        .max_headers(waypoint.bounds.fields)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut told = false;
    let outcome = loop {
        tokio::select! {
            outcome = poll_fn(|cx| serving.poll_without_shutdown(cx)) => break outcome,
            () = waypoint.draining.begun(), if !told => {
                told = true;
                std::pin::Pin::new(&mut serving).graceful_shutdown();
            }
        }
    };
    if let Err(error) = outcome {
        failed(&connection, &error);
    }
    let parts = serving.into_parts();
    let mut stream = parts.io.into_inner();
    let upgrade = connection.upgrade.borrow_mut().take();
    match upgrade {
        Some(upgrade) => carry(Rewound::new(parts.read_buf, stream), upgrade).await,
        None => {
            let _ = stream.shutdown().await;
        }
    }
}

async fn serve_two(connection: Rc<Connection>, stream: Rewound<Stream>) {
    let waypoint = connection.worker.waypoint.clone();
    let bounds = &waypoint.bounds;
    let handled = connection.clone();
    let service = service_fn(move |request| chain::handle(handled.clone(), request));
    let serving = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(bounds.stream_window)
        .initial_connection_window_size(bounds.connection_window)
        .max_pending_accept_reset_streams(bounds.pending_resets)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let mut told = false;
    let outcome = loop {
        tokio::select! {
            outcome = serving.as_mut() => break outcome,
            () = waypoint.draining.begun(), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = outcome {
        failed(&connection, &error);
    }
}

fn failed(connection: &Connection, error: &hyper::Error) {
    let hits = &connection.worker.waypoint.hits;
    if error.is_parse_too_large() {
        hits.hit(Limit::Head);
    } else if error.is_timeout() {
        hits.hit(Limit::Idle);
    }
    tracing::debug!(%error, peer = %connection.inbound.client.peer, "a client's connection failed");
}

/// Carries what is spoken instead of HTTP until both ends have ended.
async fn carry(mut client: impl AsyncRead + AsyncWrite + Unpin, upgrade: Upgrade) {
    let Upgrade { endpoint, mut exchange } = upgrade;
    let Ok(parts) = endpoint.await else {
        return exchange.broke(String::from("the endpoint's connection ended"));
    };
    let mut server = Rewound::new(parts.read_buf, parts.io.into_inner());
    match copy_bidirectional(&mut client, &mut server).await {
        Ok((received, sent)) => {
            exchange.tally.received.set(received);
            exchange.tally.sent.set(sent);
            exchange.complete();
        }
        Err(error) => exchange.broke(error.to_string()),
    }
}
