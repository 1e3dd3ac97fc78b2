//! The admission webhook: says what is wrong with an object of the mesh before the API server takes it, by the parser and the
//! analysis that files are read by. Where it cannot be asked, objects are taken all the same (`failurePolicy: Ignore`), and
//! what is wrong with them stands in their status.

mod judge;

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use manifest::Object;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::transport::server::Connected;

use self::judge::{Review, judge};
use crate::ca::listen::{Accepted, Bounds, accept_tls};
use crate::core::Core;
use crate::limits::Limits;
use crate::source::kube::revision::Revision;
use crate::turns::{Turn, Turns};

/// Where the API server asks.
pub const PATH: &str = "/validate";
/// The largest review, in bytes: two versions of the largest object that an API server takes, and what stands around them.
const MAX_BODY: usize = 7 << 20;
/// How long a question may take until it is there, the wait for its turn included: an API server asks for 5 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a question may take to come once it has its turn: an API server sends it in one go.
const READING: Duration = Duration::from_secs(1);
/// Questions read and answered at a time; others wait, unread.
const AT_ONCE: usize = 4;
/// Of one address: anybody may ask here, and nobody is to keep the API server waiting.
const OF_ADDRESS: usize = 2;
/// An API server keeps few connections. Anybody else who connects is as welcome, but there is no more room than this.
const BOUNDS: Bounds = Bounds {
    handshakes: 64,
    handshakes_of_address: 16,
    connections: 256,
    connections_of_address: 16,
    patience: UNPROVEN,
};
/// Bytes of a connection that may come before anybody reads them.
const WINDOW: u32 = 64 << 10;

/// Nobody proves here who he is: a connection is closed after a while, and the API server opens another.
const UNPROVEN: Duration = Duration::from_secs(3600);

/// Who answers.
#[derive(Debug)]
struct Desk {
    core: Core,
    revision: Revision,
    turns: Turns,
}

/// Serves until dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    core: Core,
    revision: Revision,
    limits: Limits,
) {
    let desk = Arc::new(Desk::new(core, revision));
    let mut accepted = pin!(accept_tls(listener, tls, BOUNDS, limits));
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            Some(one) = accepted.next() => {
                if let Ok(stream) = one {
                    served.spawn(connection(stream, desk.clone()));
                }
            }
            Some(_) = served.join_next() => {}
        }
    }
}

async fn connection(stream: Accepted, desk: Arc<Desk>) {
    let from = stream.connect_info().address.map(|address| address.ip().to_canonical());
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(from, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(WINDOW as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(16)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of the admission webhook ended");
    }
}

impl Desk {
    fn new(core: Core, revision: Revision) -> Self {
        Self { core, revision, turns: Turns::new(AT_ONCE, OF_ADDRESS) }
    }

    async fn answer<B>(self: Arc<Self>, from: Option<IpAddr>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        if head.method != Method::POST || head.uri.path() != PATH {
            return text(StatusCode::NOT_FOUND, "POST /validate with an AdmissionReview is answered here");
        }
        let until = Instant::now() + PATIENCE;
        // Before a byte of it is read: what waits takes no memory.
        let Ok(turn) = timeout_at(until, self.turns.take(from)).await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many reviews are under way; ask again");
        };
        let until = until.min(Instant::now() + READING);
        let body = match timeout_at(until, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large, or was cut off");
            }
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the review did not come in time"),
        };
        // Reading it and looking through a large mesh take milliseconds, which other tasks are not to wait for. The turn
        // goes along: it lasts as long as the work, also where who asked has left.
        let judged = tokio::task::spawn_blocking(move || self.judged(&body, turn));
        match judged.await {
            Ok(answer) => answer,
            Err(_) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, "the object could not be judged; the log says why")
            }
        }
    }

    fn judged(&self, body: &[u8], turn: Turn) -> Response<Full<Bytes>> {
        let Ok(review) = serde_json::from_slice::<Review>(body) else {
            return text(StatusCode::BAD_REQUEST, "this is no AdmissionReview of admission.k8s.io/v1");
        };
        let (objects, mesh) = self.known();
        let judged = judge(&review.request, &objects, &mesh, &self.revision);
        turn.well_used();
        let answer = serde_json::to_vec(&review.answer(&judged)).ok().and_then(|answer| {
            let answer = Response::builder()
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(answer.into());
            answer.ok()
        });
        answer.unwrap_or_else(|| text(StatusCode::INTERNAL_SERVER_ERROR, "no answer could be made"))
    }

    fn known(&self) -> (Vec<Arc<Object>>, model::mesh::Settings) {
        let held = self.core.read();
        let objects = held.compiler.index().objects().cloned().collect();
        (objects, held.compiler.context().settings.clone())
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
