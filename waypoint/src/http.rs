//! A client's HTTP connection: read, its requests answered by the filter chain, and left alone where something else is to
//! be spoken on it.

mod body;
pub(crate) mod messages;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use bytes::BytesMut;
use hbone::tunnel::Stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::traffic::pool::Ticket;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use self::body::ResponseBody;
use crate::broken::{BreakOff, break_off_both};
use crate::filter::{Standing, chain};
use crate::limits::Limit;
use crate::listen::Inbound;
use crate::pace::{Pace, Paced};
use crate::protocol::{self, Http};
use crate::rewound::Rewound;
use crate::telemetry::{Exchange, KnownSeries};
use crate::upstream::Parts;
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
    /// Requests that are not over.
    pub(crate) requests: Cell<u32>,
    /// How it is filled, where HTTP/1.1 is spoken on it.
    pub(crate) pace: Rc<Pace>,
}

impl Connection {
    /// A request begins. Where the client has as many as it may, it waits with the next: that is counted.
    pub(crate) fn begun(&self) {
        let requests = self.requests.get().saturating_add(1);
        self.requests.set(requests);
        if requests == self.worker.waypoint.bounds.streams {
            self.worker.waypoint.hits.hit(Limit::Streams);
        }
    }

    /// One is over.
    pub(crate) fn ended(&self) {
        self.requests.set(self.requests.get().saturating_sub(1));
    }
}

/// An endpoint's connection on which something else than HTTP is to be spoken.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) parts: oneshot::Receiver<Parts>,
    /// The request that asked for it, which lasts as long.
    pub(crate) exchange: Exchange,
    /// What it is judged by again.
    pub(crate) standing: Standing,
    /// Its place among the requests that are counted, if they are.
    pub(crate) _counted: Option<Ticket>,
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
    let leaving = inbound.leaving.clone();
    let version = tokio::select! {
        biased;
        known = timeout(worker.waypoint.bounds.idle, known) => known.ok().flatten(),
        // Not before: its first request may be on its way.
        () = leaving.over() => None,
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
    let connection = Rc::new(Connection {
        worker,
        inbound,
        known: RefCell::default(),
        upgrade: RefCell::default(),
        requests: Cell::default(),
        pace: Rc::default(),
    });
    match version {
        Http::One => serve_one(connection, stream).await,
        Http::Two => serve_two(connection, stream).await,
    }
}

async fn serve_one(connection: Rc<Connection>, stream: Rewound<Stream>) {
    let waypoint = connection.worker.waypoint.clone();
    let (handled, leaving) = (connection.clone(), connection.inbound.leaving.clone());
    let watch = stream.rest().watch();
    // hyper gives the connection back only where nothing of it is pinned in place.
    let service = service_fn(move |request| Box::pin(answer_one(handled.clone(), request)));
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(waypoint.bounds.idle)
        .max_buf_size(waypoint.bounds.head.max(8192))
        .max_headers(waypoint.bounds.fields)
        .serve_connection(TokioIo::new(Paced::new(stream, &connection.pace)), service);
    let mut told = false;
    // A client that ends its half while it is answered has gone, as to Envoy: nothing tells it from one that reads on.
    let outcome = loop {
        tokio::select! {
            outcome = poll_fn(|cx| serving.poll_without_shutdown(cx)) => break outcome,
            // Until then answers say that they are the last: a request on its way to here would find nobody.
            () = leaving.over(), if !told => {
                told = true;
                std::pin::Pin::new(&mut serving).graceful_shutdown();
            }
            // Also while more of a request has come than its endpoint takes, and hyper reads nothing.
            () = watch.lost() => break Ok(()),
        }
    };
    let in_order = match &outcome {
        Ok(()) => true,
        Err(error) => {
            failed(&connection, error);
            ends_in_order(error)
        }
    };
    let parts = serving.into_parts();
    let mut stream = parts.io.into_inner();
    let upgrade = connection.upgrade.borrow_mut().take();
    match upgrade {
        Some(upgrade) => carry(&connection, Rewound::new(parts.read_buf, stream), upgrade).await,
        None if in_order => {
            let _ = stream.shutdown().await;
        }
        // An answer may have ended in the middle, and one without a length is whole where its connection ends.
        None => stream.break_off(),
    }
}

/// Whether a connection of HTTP/1.1 that failed so may end as one on which all has been said: what could not be read has been
/// answered, and who says nothing was not being answered.
fn ends_in_order(error: &hyper::Error) -> bool {
    error.is_parse() || error.is_timeout()
}

/// Answers a request on HTTP/1.1, and says so where it is the last.
async fn answer_one(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let leaving = connection.inbound.leaving.clone();
    connection.pace.begin();
    let mut response = chain::handle(connection, request).await?;
    if leaving.has_begun() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn serve_two(connection: Rc<Connection>, stream: Rewound<Stream>) {
    let waypoint = connection.worker.waypoint.clone();
    let bounds = &waypoint.bounds;
    let windows = bounds.client_windows(&waypoint.limits.windows);
    let handled = connection.clone();
    // hyper gives each request a task of its own: what it moves there step by step is to be a pointer.
    let service = service_fn(move |request| Box::pin(chain::handle(handled.clone(), request)));
    let serving = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        // What is larger than it may is refused by us, and counted, while it is not far larger.
        .max_header_list_size(u32::try_from(bounds.head * 2).unwrap_or(u32::MAX))
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection())
        .max_pending_accept_reset_streams(bounds.pending_resets)
        .max_send_buf_size(bounds.untaken)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let leaving = connection.inbound.leaving.clone();
    let mut told = false;
    let outcome = loop {
        tokio::select! {
            outcome = serving.as_mut() => break outcome,
            () = leaving.begun(), if !told => {
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
    } else if is_calmed(error) {
        hits.hit(Limit::Resets);
    }
    tracing::debug!(%error, peer = %connection.inbound.client.peer, "a client's connection failed");
}

/// Whether a connection was ended from here because its client resets what it asks for before it is dealt with.
fn is_calmed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_go_away() && cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// Carries what is spoken instead of HTTP until both ends have ended, or a policy denies it.
async fn carry(
    connection: &Connection,
    mut client: impl AsyncRead + AsyncWrite + BreakOff + Unpin,
    upgrade: Upgrade,
) {
    let Upgrade { parts, mut exchange, standing, _counted } = upgrade;
    let Ok(parts) = parts.await else {
        client.break_off();
        return exchange.broke(String::from("the endpoint's connection ended"));
    };
    let Parts { http, opened: _opened } = parts;
    let mut server = Rewound::new(http.read_buf, http.io.into_inner());
    let carried = tokio::select! {
        carried = copy_bidirectional(&mut client, &mut server) => carried,
        denied = standing.denied(connection) => {
            break_off_both(&mut client, &mut server);
            return exchange.cut_off(denied);
        }
    };
    match carried {
        Ok((received, sent)) => {
            exchange.tally.received.set(received);
            exchange.tally.sent.set(sent);
            exchange.complete();
        }
        Err(error) => {
            break_off_both(&mut client, &mut server);
            exchange.broke(error.to_string());
        }
    }
}
