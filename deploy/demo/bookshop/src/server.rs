//! The HTTP server that all roles share.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::roles::{Call, Shop};

/// The largest body taken, in bytes.
const MAX_BODY: usize = 64 << 10;

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn serve(bind: IpAddr, port: u16, shop: Shop) -> std::io::Result<()> {
    let listener = match TcpListener::bind(SocketAddr::new(bind, port)).await {
        Err(_) if bind.is_unspecified() => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?,
        bound => bound?,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shop = Arc::new(shop);
    println!("{} listening on port {port}", shop.name());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let shop = shop.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let shop = shop.clone();
                        async move { Ok::<_, Infallible>(answer(&shop, request).await) }
                    });
                    let io = TokioIo::new(stream);
                    // A client that hangs up in the middle is its own business.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
                });
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

async fn answer(shop: &Shop, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return text(413, "the body is too large\n"),
    };
    let call = Call { method: head.method, path: head.uri.path().to_owned(), headers: head.headers, body };
    if call.path == "/health" {
        return json(200, &serde_json::json!({ "status": format!("{} is healthy", shop.name()) }));
    }
    shop.answer(call).await
}

/// A page of text.
pub(crate) fn text(status: u16, body: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body.to_owned())
}

/// A page of HTML.
pub(crate) fn html(body: String) -> Response<Full<Bytes>> {
    with_type(200, "text/html; charset=utf-8", body)
}

/// A JSON document.
pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response<Full<Bytes>> {
    with_type(status, "application/json", value.to_string())
}

fn with_type(status: u16, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let value = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    response
}
