//! The admission webhook: says what is wrong with an object of the mesh before the API server takes it, by the parser and the
//! analysis that files are read by. Where it cannot be asked, objects are taken all the same (`failurePolicy: Ignore`), and
//! what is wrong with them stands in their status.

mod judge;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use manifest::Object;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::judge::{Review, judge};
use crate::ca::listen::{Accepted, Bounds, accept_tls};
use crate::core::Core;
use crate::limits::Limits;
use crate::source::kube::revision::Revision;

/// Where the API server asks.
pub const PATH: &str = "/validate";
/// The largest review, in bytes: two versions of the largest object that an API server takes, and what stands around them.
const MAX_BODY: usize = 7 << 20;
/// How long a question may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions answered at a time; others wait.
const AT_ONCE: usize = 4;
/// An API server keeps few connections. Anybody else who connects is as welcome, but there is no more room than this.
const BOUNDS: (usize, usize) = (256, 64);

/// Nobody proves here who he is: a connection is closed after a while, and the API server opens another.
const UNPROVEN: Duration = Duration::from_secs(3600);

/// Who answers.
#[derive(Debug)]
struct Desk {
    core: Core,
    revision: Revision,
    places: Semaphore,
}

/// Serves until dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    core: Core,
    revision: Revision,
    limits: Limits,
) {
    let desk = Arc::new(Desk { core, revision, places: Semaphore::new(AT_ONCE) });
    let (connections, handshakes) = BOUNDS;
    let bounds = Bounds {
        connections,
        handshakes,
        connections_of_address: connections,
        patience: UNPROVEN,
        ..Bounds::default()
    };
    let mut accepted = pin!(accept_tls(listener, tls, bounds, limits));
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
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(16);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of the admission webhook ended");
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST || head.uri.path() != PATH {
            return text(StatusCode::NOT_FOUND, "POST /validate with an AdmissionReview is answered here");
        }
        let body = match timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large, or was cut off");
            }
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the review did not come in time"),
        };
        let Ok(review) = serde_json::from_slice::<Review>(&body) else {
            return text(StatusCode::BAD_REQUEST, "this is no AdmissionReview of admission.k8s.io/v1");
        };
        let Ok(_place) = self.places.acquire().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the controller is ending");
        };
        let (objects, mesh) = self.known();
        let revision = self.revision.clone();
        // A large mesh is looked through for milliseconds, which other tasks are not to wait for.
        let judged = tokio::task::spawn_blocking(move || {
            let judged = judge(&review.request, &objects, &mesh, &revision);
            review.answer(&judged)
        });
        match judged.await.map(|answer| serde_json::to_vec(&answer)) {
            Ok(Ok(answer)) => {
                let answer = Response::builder()
                    .header(http::header::CONTENT_TYPE, "application/json")
                    .body(answer.into());
                answer.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "no answer could be made"))
            }
            _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the object could not be judged; the log says why"),
        }
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
