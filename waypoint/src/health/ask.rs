//! One check: by the way that a request to the endpoint would take, on a connection of its own.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};
use hbone::headers::Headers;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::address::Str;
use model::baggage;
use model::traffic::Probe;
use prost::Message;
use proxy::tunnel::TunnelError;

use super::{Checked, Found};
use crate::route;
use crate::upstream::two::{self, Received, Room};
use crate::upstream::{DialError, Io, connect};
use crate::worker::Worker;

/// What servers read in their logs.
const AGENT: &str = "lateen/health-check";
/// Bytes of gRPC's answer: it is one number.
const MOST: usize = 4096;
/// Bytes of an answer's head.
const HEAD: usize = 16 << 10;

/// What gRPC's server may send: no more than it takes, for many are asked at once.
const ROOM: Room = Room { stream: 16 << 10, connection: 64 << 10, head: HEAD };

/// gRPC's question (`grpc.health.v1.HealthCheckRequest`).
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// Its answer (`grpc.health.v1.HealthCheckResponse`).
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// That the service is there.
const SERVING: i32 = 1;

/// Asks an endpoint once.
pub(super) async fn ask(worker: &Rc<Worker>, checked: &Checked) -> Found {
    let own = worker.waypoint.own.workload(&worker.waypoint.state.read()).cloned();
    // It was known when the check was begun, and will be again.
    let Some(own) = own else { return Found::NotAsked };
    let (service, target) = (&checked.service, checked.target.clone());
    let endpoint = match route::to_selected(worker, &own, service, target, checked.target.port).await {
        Ok(endpoint) => endpoint,
        Err(error) => return Found::Unreachable(error.to_string()),
    };
    let told = || Headers::new().with("baggage", baggage::encode(&own));
    let io = match connect(worker, &endpoint, told).await {
        Ok(io) => io,
        Err(DialError::Short(_) | DialError::Tunnel(TunnelError::Identity(_))) => return Found::NotAsked,
        Err(error) => return Found::Unreachable(error.to_string()),
    };
    let address = checked.address();
    match &checked.check.probe {
        Probe::Tcp { .. } => Found::Passed,
        Probe::Http { path, headers, .. } => over_http(io, address, path, headers).await,
        Probe::Grpc { service, .. } => over_grpc(io, address, service).await,
    }
}

/// A status from 200 to 399 will do, as it does for a kubelet.
async fn over_http(io: Io, address: SocketAddr, path: &str, headers: &[(Str, Str)]) -> Found {
    let mut request = Request::new(Full::<Bytes>::default());
    match path.parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(error) => return Found::Failed(format!("{path} cannot be asked for: {error}")),
    }
    *request.headers_mut() = fields(address, headers);
    let handshake = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = match handshake {
        Ok(made) => made,
        Err(error) => return Found::Unreachable(error.to_string()),
    };
    match beside(connection, sender.send_request(request)).await {
        Ok(response) if (200..400).contains(&response.status().as_u16()) => Found::Passed,
        Ok(response) => Found::Failed(format!("http status: {}", response.status().as_u16())),
        Err(error) => Found::Unreachable(explain(&error)),
    }
}

/// The fields of a request: what is written stands in the place of what is usual.
fn fields(address: SocketAddr, written: &[(Str, Str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in written {
        // What cannot be a header was refused where it was written.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&**name), HeaderValue::try_from(&**value)) {
            fields.append(name, value);
        }
    }
    let host = address.to_string();
    for (name, usual) in [(HOST, host.as_str()), (USER_AGENT, AGENT), (ACCEPT, "*/*")] {
        if let Ok(usual) = HeaderValue::try_from(usual)
            && !fields.contains_key(&name)
        {
            fields.insert(name, usual);
        }
    }
    fields
}

/// `SERVING` will do.
async fn over_grpc(io: Io, address: SocketAddr, service: &str) -> Found {
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(Full::new(question(service)));
    let request = match request {
        Ok(request) => request,
        Err(error) => return Found::Failed(error.to_string()),
    };
    let (mut sender, connection) = match two::begin(io, ROOM).await {
        Ok(made) => made,
        Err(error) => return Found::Unreachable(error.to_string()),
    };
    beside(two::run(connection, None, None), async move {
        match sender.send(request).await {
            Ok(response) => served(response).await,
            Err((error, _)) => Found::Unreachable(error.to_string()),
        }
    })
    .await
}

/// A message as gRPC frames it: not compressed, its length, itself.
fn question(service: &str) -> Bytes {
    let message = Question { service: service.to_owned() }.encode_to_vec();
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// What gRPC's answer says.
async fn served(response: Response<Received>) -> Found {
    let status = response.status();
    if status != http::StatusCode::OK {
        return Found::Failed(format!("http status: {}", status.as_u16()));
    }
    let head = response.headers().clone();
    let body = match Limited::new(response.into_body(), MOST).collect().await {
        Ok(body) => body,
        Err(error) => return Found::Unreachable(error.to_string()),
    };
    // Where there is no message, what follows it comes with the head.
    let trailers = body.trailers().cloned().unwrap_or(head);
    match code(&trailers) {
        Some(0) => {}
        Some(5) => return Found::Failed("the server does not know the service (grpc status 5)".to_owned()),
        Some(12) => {
            return Found::Failed("the server does not speak grpc.health.v1 (grpc status 12)".to_owned());
        }
        Some(other) => return Found::Failed(format!("grpc status {other}")),
        None => return Found::Failed("an answer without a grpc-status".to_owned()),
    }
    judge(&body.to_bytes())
}

fn code(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What the framed message says.
fn judge(framed: &[u8]) -> Found {
    let message = framed.strip_prefix(&[0]).and_then(|rest| {
        let (length, message) = rest.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*length) as usize == message.len()).then_some(message)
    });
    let Some(Ok(answer)) = message.map(Answer::decode) else {
        return Found::Failed("an answer that is none of grpc.health.v1".to_owned());
    };
    match answer.status {
        SERVING => Found::Passed,
        2 => Found::Failed("NOT_SERVING".to_owned()),
        3 => Found::Failed("SERVICE_UNKNOWN".to_owned()),
        other => Found::Failed(format!("serving status {other}")),
    }
}

/// Waits for an answer while its connection is driven; what has come by its end counts.
async fn beside<T, E>(connection: impl Future<Output = Result<(), E>>, asking: impl Future<Output = T>) -> T {
    let mut asking = pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        _ = connection => asking.await,
    }
}

/// An error with what is behind it.
fn explain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stands_in_the_place_of_what_is_usual() {
        let address = "10.0.0.7:8080".parse().unwrap();
        let told = |written: &[(&str, &str)]| {
            let written: Vec<(Str, Str)> =
                written.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let fields = fields(address, &written);
            let mut lines: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            lines.join("; ")
        };
        assert_eq!(told(&[]), "accept: */*; host: 10.0.0.7:8080; user-agent: lateen/health-check");
        assert_eq!(
            told(&[("Host", "shop"), ("X-A", "1"), ("x-a", "2"), ("User-Agent", "me")]),
            "accept: */*; host: shop; user-agent: me; x-a: 1; x-a: 2"
        );
    }

    #[test]
    fn what_grpc_says_is_read_by_the_letter() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let none = || Found::Failed("an answer that is none of grpc.health.v1".to_owned());
        let says = |text: &str| Found::Failed(text.to_owned());
        let table: [(&[u8], Found); 8] = [
            (&[0, 0, 0, 0, 2, 8, 1], Found::Passed),
            (&[0, 0, 0, 0, 2, 8, 2], says("NOT_SERVING")),
            (&[0, 0, 0, 0, 2, 8, 3], says("SERVICE_UNKNOWN")),
            // No status at all is UNKNOWN.
            (&[0, 0, 0, 0, 0], says("serving status 0")),
            (&[], none()),
            (&[1, 0, 0, 0, 2, 8, 1], none()),
            (&[0, 0, 0, 0, 3, 8, 1], none()),
            (&[0, 0, 0, 0, 2, 8], none()),
        ];
        for (framed, expected) in table {
            assert_eq!(judge(framed), expected, "{framed:?}");
        }
    }
}
