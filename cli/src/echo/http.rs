//! The HTTP side of `lateen echo`: HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::{Identity, accept, plain};

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, identity: Arc<Identity>) {
    loop {
        let (stream, peer) = accept(&listener).await;
        let local = stream.local_addr().map(plain).ok();
        let identity = Arc::clone(&identity);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                answer(request, plain(peer), local, Arc::clone(&identity))
            });
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// One report. `?status=N` answers with that code, `?format=text` with lines instead of JSON.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    local: Option<SocketAddr>,
    identity: Arc<Identity>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let mut size: u64 = 0;
    // Counted and let go: the body may be larger than memory.
    while let Some(Ok(frame)) = body.frame().await {
        size += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    let mut headers = Map::new();
    for (name, value) in &parts.headers {
        let value = Value::from(String::from_utf8_lossy(value.as_bytes()));
        match headers.get_mut(name.as_str()) {
            Some(Value::Array(values)) => values.push(value),
            _ => drop(headers.insert(name.as_str().to_owned(), Value::Array(vec![value]))),
        }
    }
    let report = json!({
        "name": identity.name,
        "version": identity.version,
        "peer": peer,
        "local": local,
        "protocol": format!("{:?}", parts.version),
        "method": parts.method.as_str(),
        "host": parts.uri.host().or_else(|| parts.headers.get("host").and_then(|host| host.to_str().ok())),
        "path": parts.uri.path_and_query().map(|path| path.as_str()),
        "bodyBytes": size,
        "headers": headers,
    });
    let query = parts.uri.query().unwrap_or_default();
    let asked = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let as_text = asked("format") == Some("text");
    let text = if as_text { lines(&report) } else { format!("{report:#}\n") };
    // hyper leaves it out of an answer to HEAD in HTTP/1.1 alone.
    let text =
        if parts.method == Method::HEAD && parts.version == Version::HTTP_2 { String::new() } else { text };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let kind = if as_text { "text/plain" } else { "application/json" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(status) = asked("status").and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok()) {
        *response.status_mut() = status;
    }
    for (name, value) in [("x-echo-name", &identity.name), ("x-echo-version", &identity.version)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(response)
}

/// `key: value` lines; of the headers each one.
fn lines(report: &Value) -> String {
    let mut text = String::new();
    for (key, value) in report.as_object().into_iter().flatten() {
        match value {
            Value::Object(headers) => {
                for (name, values) in headers {
                    for value in values.as_array().into_iter().flatten() {
                        text.push_str(&format!("header {name}: {}\n", value.as_str().unwrap_or_default()));
                    }
                }
            }
            Value::String(value) => text.push_str(&format!("{key}: {value}\n")),
            other => text.push_str(&format!("{key}: {other}\n")),
        }
    }
    text
}
