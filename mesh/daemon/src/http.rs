//! The small HTTP server behind the admin page, readiness and metrics: on a TCP port or a Unix socket, HTTP/1.1 only,
//! bounded in connections and time.

mod places;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::places::{Place, Places};

/// Connections served at once. Further ones wait; on a TCP port, where those of one address have a bound of their own, lesser
/// ones make room for them.
const MAX_CONNECTIONS: usize = places::MAX_FROM_ELSEWHERE + places::MAX_FROM_HERE;
/// The largest body that is read, in bytes.
const MAX_BODY: usize = 1 << 20;
/// How long a client may take to send its request's head, and again for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last in all. A client that reads its answer slowly holds one of the places that readiness
/// is asked over; a scrape or a dump of a large mesh takes seconds.
const CONNECTION_TIME: Duration = Duration::from_secs(120);

/// A request as handlers see it.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, as it was written, empty where there is none.
    pub query: String,
    /// The `Accept` header.
    pub accept: String,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// The value of a query parameter, decoded; `Some("")` for one without a value.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name && !key.is_empty()).then(|| decode(value))
        })
    }
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        // Two digits: a number may have a sign, an escape may not.
        let escaped = bytes.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let escaped = escaped.and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a handler answers.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Plain text with a status.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// JSON, with status 200.
    pub fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(body) => Self { status: StatusCode::OK, content_type: "application/json", body: body.into() },
            Err(error) => Self::text(500, format!("the answer could not be written as JSON: {error}\n")),
        }
    }
}

type Handler = dyn Fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// Paths and who answers them.
#[derive(Clone, Default)]
pub struct Routes(Vec<(Method, &'static str, Arc<Handler>)>);

impl Routes {
    /// Answers a path; one that ends in `/` also answers everything below it.
    #[must_use]
    pub fn on<F, R>(mut self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        self.0.push((method, path, Arc::new(move |call| Box::pin(handler(call)))));
        self
    }

    /// The paths that are answered by a method, in the order in which they were given.
    pub fn paths(&self, method: &Method) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(move |(allowed, ..)| allowed == method).map(|(_, path, _)| *path)
    }

    fn find(&self, method: &Method, path: &str) -> Result<Arc<Handler>, StatusCode> {
        let answers =
            |route: &str| route == path || (route.ends_with('/') && route != "/" && path.starts_with(route));
        let mut known = false;
        for (allowed, _, handler) in self.0.iter().filter(|(_, route, _)| answers(route)) {
            if allowed == method {
                return Ok(handler.clone());
            }
            known = true;
        }
        Err(if known { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND })
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let handler = match self.find(&head.method, head.uri.path()) {
            Ok(handler) => handler,
            Err(status) => {
                let known: Vec<String> =
                    self.0.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
                return Answer::text(status.as_u16(), format!("{status}; there are: {}\n", known.join(", ")));
            }
        };
        let body = match timeout(READ_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return Answer::text(
                    413,
                    format!("the body is larger than {MAX_BODY} bytes or was cut off\n"),
                );
            }
            Err(_) => return Answer::text(408, format!("the body did not come within {READ_TIMEOUT:?}\n")),
        };
        let accept =
            head.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        handler(Call {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or("").to_owned(),
            accept: accept.to_owned(),
            body,
        })
        .await
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(method, path, _)| (method, path))).finish()
    }
}

/// Serves on a TCP listener until dropped.
pub async fn serve_tcp(listener: TcpListener, routes: Routes) {
    serve(listener, routes).await;
}

/// Serves on a Unix socket until dropped, for this user only. A socket file that is left over from before is replaced; another file is not.
///
/// # Errors
/// The socket cannot be made.
pub fn serve_unix(path: &Path, routes: Routes) -> std::io::Result<impl Future<Output = ()> + use<>> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(serve(listener, routes))
}

/// What connections come from.
trait Listen {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn poll(&self, context: &mut Context<'_>) -> Poll<std::io::Result<Self::Stream>>;

    /// Connections that there are at once, those that are about to make room included; further ones wait.
    const MOST: usize;
    /// Whether a connection stays after its answer.
    const KEEPS_ALIVE: bool;

    /// The place of a connection where places are given out; an error where it is gone already.
    fn place(places: &Arc<Places>, stream: &Self::Stream) -> Result<Option<Place>, Gone>;
}

/// Whoever made a connection has left.
struct Gone;

/// Whoever asks has one answer a connection, so that what nobody needs any more takes no place; and who comes is given one
/// at once, so nobody waits.
impl Listen for TcpListener {
    type Stream = TcpStream;

    const MOST: usize = 2 * MAX_CONNECTIONS;
    const KEEPS_ALIVE: bool = false;

    fn poll(&self, context: &mut Context<'_>) -> Poll<std::io::Result<TcpStream>> {
        self.poll_accept(context).map_ok(|(stream, _)| stream)
    }

    fn place(places: &Arc<Places>, stream: &TcpStream) -> Result<Option<Place>, Gone> {
        places.take(stream).map(Some).ok_or(Gone)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    const MOST: usize = MAX_CONNECTIONS;
    const KEEPS_ALIVE: bool = true;

    fn poll(&self, context: &mut Context<'_>) -> Poll<std::io::Result<UnixStream>> {
        self.poll_accept(context).map_ok(|(stream, _)| stream)
    }

    fn place(_: &Arc<Places>, _: &UnixStream) -> Result<Option<Place>, Gone> {
        Ok(None)
    }
}

/// Accepts and serves. The connections end with it.
async fn serve<L: Listen>(listener: L, routes: Routes) {
    let mut connections = JoinSet::new();
    let places = Arc::<Places>::default();
    loop {
        tokio::select! {
            accepted = poll_fn(|context| listener.poll(context)), if connections.len() < L::MOST => match accepted {
                Ok(stream) => {
                    if let Ok(place) = L::place(&places, &stream) {
                        let serving = serve_connection(stream, routes.clone(), L::KEEPS_ALIVE);
                        connections.spawn(in_its_place(place, serving));
                    }
                }
                Err(error) => accept_failed(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves a connection until it has to make room.
async fn in_its_place(place: Option<Place>, serving: impl Future<Output = ()>) {
    match place {
        None => serving.await,
        Some(place) => tokio::select! {
            () = place.end.cancelled() => {
                tracing::debug!("an admin connection made room for another: there are as many as there may be");
            }
            () = serving => {}
        },
    }
}

/// Out of descriptors, or a client that left early: neither is a reason to stop serving, nor to spin.
async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "could not accept a connection to the admin server");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Serves one connection, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub async fn serve_stream(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Routes) {
    serve_connection(stream, routes, true).await;
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Routes,
    keep_alive: bool,
) {
    let service = service_fn(move |request| {
        let routes = routes.clone();
        async move {
            let answer = routes.answer(request).await;
            let mut response = Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            let content_type = http::HeaderValue::from_static(answer.content_type);
            response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection ended early"),
        Err(_) => tracing::debug!("admin connection ended: it lasted longer than {CONNECTION_TIME:?}"),
    }
}

#[cfg(test)]
mod tests;
