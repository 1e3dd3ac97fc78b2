//! Connections that are carried as bytes, and those of which nobody says what they are.

use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use hbone::headers::Headers;
use hbone::tunnel::{Request, Stream};
use model::baggage;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::time::{sleep, timeout};

use crate::filter::policy::{self, Judged};
use crate::http;
use crate::listen::{Inbound, cause};
use crate::protocol::{self, Looks};
use crate::rewound::Rewound;
use crate::route::{self, Endpoint, Wish};
use crate::telemetry::{Connection, Flags};
use crate::upstream::{self, Io};
use crate::worker::Worker;

/// Bytes that a direction moves at a time.
const BUFFER: usize = 16 << 10;

/// Serves a connection of a port that is declared to be plain TCP: its CONNECT is answered when the endpoint is there.
pub(crate) async fn serve(worker: Rc<Worker>, inbound: Rc<Inbound>, request: Request, headers: &Headers) {
    let record = Connection::open(&worker, &inbound);
    match to_endpoint(&worker, &inbound).await {
        Ok((io, endpoint)) => carry(&worker, record, &endpoint, request.accept(headers), io).await,
        Err(refused) => {
            request.refuse(refused.status, &cause(&refused.error));
            record.failed(&worker, refused.flags, &refused.error);
        }
    }
}

/// Why there is no connection to an endpoint.
#[derive(Debug)]
struct Refused {
    /// What the CONNECT is answered.
    status: u16,
    flags: Flags,
    error: String,
}

/// Picks an endpoint, judges the connection and connects.
async fn to_endpoint(worker: &Rc<Worker>, inbound: &Inbound) -> Result<(Io, Endpoint), Refused> {
    let unhealthy =
        |error: route::NoRoute| Refused { status: 503, flags: error.flags(), error: error.to_string() };
    let endpoint = route::endpoint(worker, inbound, &Wish::default()).await.map_err(unhealthy)?;
    if let Err(refusal) = policy::judge(worker, inbound, Some(&endpoint), Judged::Connection).await {
        return Err(Refused { status: 401, flags: Flags::NONE, error: refusal.to_string() });
    }
    match upstream::connect(worker, &endpoint, inbound).await {
        Ok(io) => Ok((io, endpoint)),
        Err(error) => Err(Refused { status: 503, flags: Flags::UF, error: error.to_string() }),
    }
}

async fn carry(
    worker: &Worker,
    record: Connection,
    endpoint: &Endpoint,
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) {
    let outcome = tokio::select! {
        outcome = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER) => outcome,
        // Dropped, both are reset.
        denied = until_denied(worker, record.inbound(), endpoint) => Err(io::Error::other(denied)),
    };
    record.closed(worker, endpoint, outcome);
}

/// Judges a connection again whenever a rule changes, until one denies it.
async fn until_denied(worker: &Worker, inbound: &Inbound, endpoint: &Endpoint) -> policy::Denied {
    let mut changes = worker.waypoint.state.changes();
    // It may have changed since the connection was judged.
    let mut judged = None;
    loop {
        let rules = changes.borrow_and_update().rules;
        if judged != Some(rules) {
            judged = Some(rules);
            if let Err(denied) = policy::judge_again(worker, inbound, endpoint) {
                return denied;
            }
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Serves a connection of a port that nothing is declared of. What the client sends first decides; where it sends
/// nothing, the server may be one that speaks first, and is connected to.
pub(crate) async fn sniff(worker: Rc<Worker>, inbound: Rc<Inbound>, mut stream: Stream) {
    let mut first = BytesMut::new();
    let bounds = &worker.waypoint.bounds;
    let looks = match timeout(bounds.server_first, looks_like(&mut stream, &mut first)).await {
        Ok(looks) => looks,
        Err(_) if first.is_empty() => return either_first(worker, inbound, stream).await,
        // It has begun to speak: it will go on.
        Err(_) => match timeout(bounds.sniff, looks_like(&mut stream, &mut first)).await {
            Ok(looks) => looks,
            Err(_) => return,
        },
    };
    begin(worker, inbound, looks, Rewound::new(first.freeze(), stream)).await;
}

async fn begin(worker: Rc<Worker>, inbound: Rc<Inbound>, looks: io::Result<Looks>, stream: Rewound<Stream>) {
    match looks {
        Ok(Looks::Http(version)) => http::serve_as(worker, inbound, stream, version).await,
        Ok(_) => {
            let record = Connection::open(&worker, &inbound);
            match to_endpoint(&worker, &inbound).await {
                Ok((io, endpoint)) => carry(&worker, record, &endpoint, stream, io).await,
                Err(refused) => record.failed(&worker, refused.flags, &refused.error),
            }
        }
        Err(error) => tracing::debug!(%error, peer = %inbound.client.peer, "ended before it said anything"),
    }
}

/// Reads until it is seen what comes; what ends before is no HTTP.
async fn looks_like(stream: &mut (impl AsyncRead + Unpin), first: &mut BytesMut) -> io::Result<Looks> {
    loop {
        match protocol::look(first) {
            Looks::Open => {}
            seen => return Ok(seen),
        }
        if stream.read_buf(first).await? == 0 {
            return Ok(Looks::Other);
        }
    }
}

/// Connects to the server while the client says nothing, and goes by who speaks first.
async fn either_first(worker: Rc<Worker>, inbound: Rc<Inbound>, mut stream: Stream) {
    let mut first = BytesMut::new();
    let (mut server, endpoint) = match to_endpoint(&worker, &inbound).await {
        Ok(connected) => connected,
        // Whether that is a failure depends on what the client wants: a request may go elsewhere, and is answered.
        Err(_) => {
            let sniffed = timeout(worker.waypoint.bounds.sniff, looks_like(&mut stream, &mut first)).await;
            let Ok(looks) = sniffed else { return };
            return begin(worker, inbound, looks, Rewound::new(first.freeze(), stream)).await;
        }
    };
    let mut greeting = BytesMut::new();
    let server_first = tokio::select! {
        looks = looks_like(&mut stream, &mut first) => Some(looks),
        _ = server.read_buf(&mut greeting) => None,
        () = sleep(worker.waypoint.bounds.sniff) => return,
    };
    let stream = Rewound::new(first.freeze(), stream);
    match server_first {
        // What was connected is not what requests go over.
        Some(looks @ Ok(Looks::Http(_))) => {
            drop(server);
            begin(worker, inbound, looks, stream).await;
        }
        Some(Err(_)) => {}
        _ => {
            let record = Connection::open(&worker, &inbound);
            carry(&worker, record, &endpoint, stream, Rewound::new(greeting.freeze(), server)).await;
        }
    }
}

/// What the far end of a tunnel is told for its telemetry.
pub(crate) fn request_headers(inbound: &Inbound) -> Headers {
    let host = inbound.target.service.as_ref().map(|service| &*service.key.hostname);
    Headers::new()
        .with("forwarded", baggage::forwarded(inbound.client.peer.addr(), host))
        .with("baggage", baggage::encode(&inbound.own))
}
