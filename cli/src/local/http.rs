//! One HTTP request over one connection: how the mesh asks its own parts.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Longest answer read.
const LONGEST: usize = 64 << 20;

/// Sends a request and reads the whole answer.
pub(crate) async fn call<S>(
    stream: S,
    method: Method,
    path: &str,
    body: String,
) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}

/// `GET` of JSON on a Unix socket.
pub(crate) async fn get_json<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    patience: Duration,
) -> io::Result<T> {
    get_json_over(UnixStream::connect(socket), path, patience).await
}

/// `GET` of JSON over a connection that is being made.
pub(crate) async fn get_json_over<T, S>(
    connecting: impl Future<Output = io::Result<S>>,
    path: &str,
    patience: Duration,
) -> io::Result<T>
where
    T: DeserializeOwned,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ask = async { call(connecting.await?, Method::GET, path, String::new()).await };
    let (status, body) = tokio::time::timeout(patience, ask).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if !status.is_success() {
        return Err(io::Error::other(format!("{path} answers {status}")));
    }
    serde_json::from_slice(&body).map_err(io::Error::other)
}
