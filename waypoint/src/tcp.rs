//! Connections that are carried as bytes, and those of which nobody says what they are.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use hbone::headers::Headers;
use hbone::tunnel::{Request, Stream};
use model::address::Str;
use model::baggage;
use model::route::stream::{self, select_stream};
use model::traffic::ConnectionPool;
use model::traffic::outlier::Outcome;
use proxy::random::draw;
use proxy::tunnel::cause;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::time::{sleep, timeout};

use crate::balance::Tried;
use crate::broken::{BreakOff, break_off_both};
use crate::filter::policy::{self, Judged};
use crate::hello::{self, Hello};
use crate::http;
use crate::listen::Inbound;
use crate::protocol::{self, Http, Looks};
use crate::rewound::Rewound;
use crate::route::{self, Endpoint, Wish};
use crate::telemetry::{Connection, Ended, Flags};
use crate::upstream::{self, DialError, Io};
use crate::worker::Worker;

/// Bytes that a direction moves at a time.
const BUFFER: usize = 16 << 10;

/// Serves a connection of a port that is declared to be plain TCP: its CONNECT is answered when the endpoint is there.
pub(crate) async fn serve(worker: Rc<Worker>, inbound: Rc<Inbound>, request: Request, headers: &Headers) {
    let mut record = Connection::open(&worker, &inbound);
    match to_endpoint(&worker, &inbound, &Hello::Unseen, &mut record).await {
        Ok((io, endpoint)) => {
            carry(&worker, record, &endpoint, &Hello::Unseen, request.accept(headers), io).await
        }
        Err(refused) => {
            request.refuse(refused.status, &cause(&refused.error));
            record.failed(refused.flags, refused.termination.as_deref(), &refused.error);
        }
    }
}

/// Why there is no connection to an endpoint.
#[derive(Debug)]
struct Refused {
    /// What the CONNECT is answered.
    status: u16,
    flags: Flags,
    /// The word of a policy that denies it, as Envoy's access log has it.
    termination: Option<String>,
    error: String,
}

impl Refused {
    fn nowhere(flags: Flags, error: String) -> Self {
        Self { status: 503, flags, termination: None, error }
    }
}

/// Chooses where a connection goes by the host's rules for TLS and TCP, picks an endpoint there, judges the connection and
/// connects.
async fn to_endpoint(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    hello: &Hello,
    record: &mut Connection,
) -> Result<(Io, Endpoint), Refused> {
    let service = inbound.target.service.as_ref();
    let edition = service.map(|service| worker.waypoint.routings.of(&service.key)).unwrap_or_default();
    let decision = edition.routing.as_deref().map(|routing| {
        let destination = inbound.target.destination;
        let connection =
            stream::Connection { client: inbound.asking(), destination, server_name: hello.name() };
        select_stream(routing, &connection, &mut draw)
    });
    let destination = match decision {
        None => None,
        Some(decision) => {
            record.routed(&decision.cause);
            Some(decision.destination.map_err(|missing| Refused::nowhere(Flags::NC, nowhere(missing)))?)
        }
    };
    let tried = Tried::default();
    let wish = Wish { routing: &edition, destination, request: None, tried: &tried };
    let unhealthy = |error: route::NoRoute| Refused::nowhere(error.flags(), error.to_string());
    let endpoint = route::endpoint(worker, inbound, &wish).await.map_err(unhealthy)?;
    let judged = Judged::Connection(hello.sni());
    if let Err(refusal) = policy::judge(worker, inbound, Some(&endpoint), judged).await {
        let error = refusal.to_string();
        return Err(Refused { status: 401, flags: Flags::NONE, termination: Some(refusal.details), error });
    }
    if let Some(in_use) = &endpoint.in_use
        && let Err(overflow) = in_use.hold()
    {
        let error = format!("{overflow} ({})", in_use.blame(overflow.field()));
        return Err(Refused::nowhere(Flags::UO, error));
    }
    let connected = upstream::connect(worker, &endpoint, || request_headers(inbound)).await;
    match &connected {
        Ok(_) => endpoint.record(Outcome::TcpConnected),
        Err(error) if error.is_late() => endpoint.record(Outcome::TimedOut),
        // The endpoint was not asked.
        Err(DialError::Short(_)) => {}
        Err(_) => endpoint.record(Outcome::Failed),
    }
    match connected {
        Ok(io) => Ok((io, endpoint)),
        Err(error) => Err(Refused::nowhere(error.flags(), error.to_string())),
    }
}

/// Why a rule leads nowhere.
fn nowhere(missing: &[Str]) -> String {
    match missing {
        [] => String::from("the route has no destination with a weight"),
        missing => format!("the route's destinations do not resolve: {}", missing.join(", ")),
    }
}

async fn carry(
    worker: &Worker,
    record: Connection,
    endpoint: &Endpoint,
    hello: &Hello,
    client: impl AsyncRead + AsyncWrite + BreakOff + Unpin,
    mut server: impl AsyncRead + AsyncWrite + BreakOff + Unpin,
) {
    let mut client = record.carried(endpoint, client);
    let judged = Judged::Connection(hello.sni());
    let ended = tokio::select! {
        outcome = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER) => {
            Ended::Itself(outcome.map(drop))
        }
        denied = policy::until_denied(worker, record.inbound(), endpoint, judged) => Ended::Denied(denied),
        ended = until_over(&record, endpoint) => ended,
    };
    if !ended.is_in_order() {
        // Neither may take what has come for all there was.
        break_off_both(&mut client, &mut server);
    }
    record.closed(endpoint, ended);
}

/// Waits until a connection has been idle, or there, for as long as it may: an hour without a byte where no rule says
/// otherwise, as Envoy does.
async fn until_over(record: &Connection, endpoint: &Endpoint) -> Ended {
    let in_use = endpoint.in_use.as_deref();
    let pool = in_use.map(|in_use| &in_use.current.policy.connection_pool);
    let idle = pool.map_or(Some(ConnectionPool::DEFAULT_IDLE), ConnectionPool::tcp_idle);
    let age = pool.and_then(|pool| pool.tcp.max_connection_duration).filter(|age| !age.is_zero());
    let blame = |field| match in_use.filter(|in_use| !in_use.current.cause.is_empty()) {
        Some(in_use) => in_use.blame(field),
        None => format!("{field} by default"),
    };
    tokio::select! {
        () = until(idle, |idle| record.counts().until_idle(idle)) => {
            let field = blame("connectionPool.tcp.idleTimeout");
            Ended::Idle(format!("no byte for {:?} ({field})", idle.unwrap_or_default()))
        }
        () = until(age, sleep) => {
            let field = blame("connectionPool.tcp.maxConnectionDuration");
            Ended::TooLong(format!("open for {:?} ({field})", age.unwrap_or_default()))
        }
    }
}

/// Waits for what comes after a time, if there is one.
async fn until<F: Future<Output = ()>>(time: Option<Duration>, wait: impl FnOnce(Duration) -> F) {
    match time {
        Some(time) => wait(time).await,
        None => std::future::pending().await,
    }
}

/// What a client that speaks first may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// TLS, or anything else that is carried as bytes.
    BeTls,
    /// HTTP, or that.
    BeHttp,
}

/// What has come first.
#[derive(Debug)]
enum First {
    Http(Http),
    Bytes(Hello),
}

/// Serves a connection of a port that nothing is declared of, or that it is TLS. What the client sends first decides; where
/// it sends nothing, the server may be one that speaks first, and is connected to.
pub(crate) async fn sniff(worker: Rc<Worker>, inbound: Rc<Inbound>, mut stream: Stream, may: May) {
    let mut read = BytesMut::new();
    let bounds = &worker.waypoint.bounds;
    let first = match timeout(bounds.server_first, first(&mut stream, &mut read, may)).await {
        Ok(first) => first,
        Err(_) if read.is_empty() => return either_first(worker, inbound, stream, may).await,
        // It has begun to speak: it will go on.
        Err(_) => match timeout(bounds.sniff, first(&mut stream, &mut read, may)).await {
            Ok(first) => first,
            Err(_) => return stream.break_off(),
        },
    };
    begin(worker, inbound, first, Rewound::new(read.freeze(), stream)).await;
}

async fn begin(
    worker: Rc<Worker>,
    inbound: Rc<Inbound>,
    first: io::Result<First>,
    mut stream: Rewound<Stream>,
) {
    match first {
        Ok(First::Http(version)) => http::serve_as(worker, inbound, stream, version).await,
        Ok(First::Bytes(hello)) => {
            let mut record = Connection::open(&worker, &inbound);
            match to_endpoint(&worker, &inbound, &hello, &mut record).await {
                Ok((io, endpoint)) => carry(&worker, record, &endpoint, &hello, stream, io).await,
                Err(refused) => {
                    // Its CONNECT was answered before there was anything to see: an end would say that the server had
                    // nothing to say.
                    stream.break_off();
                    record.failed(refused.flags, refused.termination.as_deref(), &refused.error);
                }
            }
        }
        Err(error) => tracing::debug!(%error, peer = %inbound.client.peer, "ended before it said anything"),
    }
}

/// Reads until it is seen what comes; what ends before is no HTTP.
async fn first(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut, may: May) -> io::Result<First> {
    loop {
        match protocol::look(read) {
            Looks::Http(version) if may == May::BeHttp => return Ok(First::Http(version)),
            Looks::Open if may == May::BeHttp || read.len() < 2 => {}
            Looks::Tls => {
                if let Some(hello) = hello::read(read) {
                    return Ok(First::Bytes(hello));
                }
            }
            Looks::Http(_) | Looks::Open | Looks::Other => return Ok(First::Bytes(Hello::NoTls)),
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(First::Bytes(Hello::Unseen));
        }
    }
}

/// Connects to the server while the client says nothing, and goes by who speaks first.
async fn either_first(worker: Rc<Worker>, inbound: Rc<Inbound>, mut stream: Stream, may: May) {
    let mut read = BytesMut::new();
    let mut record = Connection::open(&worker, &inbound);
    let (mut server, endpoint) = match to_endpoint(&worker, &inbound, &Hello::Unseen, &mut record).await {
        Ok(connected) => connected,
        // Whether that is a failure depends on what the client wants: a request may go elsewhere, and is answered.
        Err(_) => {
            drop(record);
            let sniffed = timeout(worker.waypoint.bounds.sniff, first(&mut stream, &mut read, may)).await;
            let Ok(first) = sniffed else { return stream.break_off() };
            return begin(worker, inbound, first, Rewound::new(read.freeze(), stream)).await;
        }
    };
    let mut greeting = BytesMut::new();
    let client_first = tokio::select! {
        first = first(&mut stream, &mut read, may) => Some(first),
        _ = server.read_buf(&mut greeting) => None,
        () = sleep(worker.waypoint.bounds.sniff) => return break_off_both(&mut stream, &mut server),
    };
    let stream = Rewound::new(read.freeze(), stream);
    match client_first {
        Some(Ok(First::Bytes(hello))) if !hello.is_tls() => {
            carry(&worker, record, &endpoint, &hello, stream, server).await;
        }
        // What was connected is not what requests go over, and a server's name may lead elsewhere.
        Some(Ok(first)) => {
            drop((server, endpoint, record));
            begin(worker, inbound, Ok(first), stream).await;
        }
        Some(Err(_)) => server.break_off(),
        None => {
            let server = Rewound::new(greeting.freeze(), server);
            carry(&worker, record, &endpoint, &Hello::Unseen, stream, server).await;
        }
    }
}

/// What the far end of a tunnel is told for its telemetry.
pub(crate) fn request_headers(inbound: &Inbound) -> Headers {
    let host = inbound.target.service.as_ref().map(|service| service.key.hostname());
    Headers::new()
        .with("forwarded", baggage::forwarded(inbound.client.peer.addr(), host))
        .with("baggage", baggage::encode(&inbound.own))
}
