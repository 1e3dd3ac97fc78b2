//! The one ordered list of what happens to a request:
//!
//! 1. [`read`](super::read): host and path in one canonical form, or 400;
//! 2. route: where it goes ([`crate::route`]), or 503;
//! 3. [`policy`]: whether the original client may, or 403;
//! 4. [`forwarded`], [`headers`]: what the endpoint is told, and what it is not;
//! 5. send ([`crate::upstream`]), again where an endpoint cannot be connected to;
//! 6. the answer, as it comes.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;

use hbone::connection::ConnectionId;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tracing::Level;

use super::forwarded::Asker;
use super::policy::{self, Judged};
use super::read::{Asked, read};
use super::{forwarded, headers, local};
use crate::http::{Connection, ResponseBody, Upgrade};
use crate::protocol::{self, Http};
use crate::route::{self, Endpoint};
use crate::telemetry::{Exchange, Flags, Said};
use crate::upstream::{self, Gate, Lease, RequestBody, SendError};

/// How often another endpoint is tried where one cannot be connected to: Istio's default of two retries.
const CONNECTS: usize = 3;

/// An answer of our own instead of an endpoint's.
struct Refusal {
    status: StatusCode,
    flags: Flags,
    details: Cow<'static, str>,
    text: String,
}

/// Answers a request.
pub(crate) async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (head, body) = request.into_parts();
    let asked = read(&head);
    let mut exchange = begin(&connection, &head, asked.as_ref().ok());
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            let text = error.to_string();
            let refusal = Refusal {
                status: StatusCode::BAD_REQUEST,
                flags: Flags::DPE,
                details: "path_or_host_rejected".into(),
                text,
            };
            return Ok(refuse(exchange, &refusal));
        }
    };
    let sent = forward(&connection, &mut exchange, &head, body, &asked).await;
    Ok(match sent {
        Ok(answered) => pass(&connection, exchange, answered),
        Err(refusal) => refuse(exchange, &refusal),
    })
}

fn begin(connection: &Rc<Connection>, head: &Parts, asked: Option<&Asked>) -> Exchange {
    let wanted = connection.worker.waypoint.log.access_enabled(Level::INFO);
    let authority = asked.map_or("", |asked| asked.authority.as_str());
    let said = wanted.then(|| Said::of(&head.method, &head.uri, head.version, authority, &head.headers));
    Exchange::begin(connection, said, &head.headers, asked.is_some_and(|asked| asked.grpc))
}

fn refuse(mut exchange: Exchange, refusal: &Refusal) -> Response<ResponseBody> {
    let response = local::answer(refusal.status, &refusal.text, exchange.is_grpc());
    exchange.answered_here(response.status().as_u16(), refusal.flags, refusal.details.clone());
    exchange.trailers(response.headers());
    response
}

/// An endpoint's answer, and what goes with it.
struct Answered {
    response: Response<Incoming>,
    lease: Lease,
    gate: Option<Gate>,
    upgrade: bool,
}

/// Picks an endpoint, judges, and sends.
async fn forward(
    connection: &Rc<Connection>,
    exchange: &mut Exchange,
    head: &Parts,
    body: Incoming,
    asked: &Asked,
) -> Result<Answered, Refusal> {
    let (worker, inbound) = (&connection.worker, &connection.inbound);
    let version = protocol::to_endpoint(inbound.target.protocol, head.version);
    let upgrade = asked.upgrade.clone().filter(|_| version == Http::One);
    let waits = asked.expects_continue && version == Http::One && head.version == Version::HTTP_11;
    let gate = waits.then(Gate::default);
    let body = RequestBody::new(body, gate.clone(), exchange.tally.clone(), asked.grpc);
    let mut request = Some(prepare(connection, head, body, asked, version, upgrade.clone(), gate.as_ref())?);
    let seen = asked.request(head, inbound);
    let mut tries = 0;
    loop {
        tries += 1;
        let endpoint = Rc::new(route::endpoint(worker, inbound).await.map_err(|error| no_endpoint(&error))?);
        exchange.goes_to(&endpoint);
        allowed(connection, exchange, Some(&endpoint), &seen).await?;
        let Some(unsent) = request.take() else { return Err(lost()) };
        match upstream::send(worker, inbound, &endpoint, version, unsent).await {
            Ok((response, lease)) => {
                return Ok(Answered { response, lease, gate, upgrade: upgrade.is_some() });
            }
            Err((SendError::Dial(error), Some(unsent))) if tries < CONNECTS => {
                tracing::debug!(endpoint = %endpoint.address, %error, "trying another endpoint");
                request = Some(*unsent);
            }
            Err((error, _)) => {
                exchange.failed(error.to_string());
                return Err(Refusal {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    flags: error.flags(),
                    details: error.details().into(),
                    text: String::from("upstream connect error or disconnect/reset before headers"),
                });
            }
        }
    }
}

fn no_endpoint(error: &route::NoRoute) -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        flags: error.flags(),
        details: "no_healthy_upstream".into(),
        text: error.to_string(),
    }
}

fn lost() -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        flags: Flags::UC,
        details: "upstream_reset_before_response_started{connection_termination}".into(),
        text: String::new(),
    }
}

/// Whether the original client may.
async fn allowed(
    connection: &Connection,
    exchange: &mut Exchange,
    endpoint: Option<&Endpoint>,
    request: &model::request::Request<'_>,
) -> Result<(), Refusal> {
    let judged = Judged::Request(request);
    let verdict = policy::judge(&connection.worker, &connection.inbound, endpoint, judged).await;
    verdict.map_err(|denied| {
        exchange.decided_by(denied.cause);
        Refusal {
            status: StatusCode::FORBIDDEN,
            flags: Flags::NONE,
            details: denied.details.into(),
            text: String::from("RBAC: access denied"),
        }
    })
}

/// The request as it goes to an endpoint.
fn prepare(
    connection: &Connection,
    head: &Parts,
    body: RequestBody,
    asked: &Asked,
    version: Http,
    upgrade: Option<HeaderValue>,
    gate: Option<&Gate>,
) -> Result<Request<RequestBody>, Refusal> {
    let inbound = &connection.inbound;
    let client = &inbound.client;
    // What came is judged again where another endpoint is tried.
    let mut fields = head.headers.clone();
    headers::leave_connection(&mut fields, upgrade);
    let asker = Asker {
        address: client.peer.ip(),
        principal: &client.principal,
        fingerprint: &client.fingerprint,
        is_proxy: inbound.source.as_ref().is_some_and(|source| source.profile.native_tunnel),
    };
    let own = &connection.worker.waypoint.own.principal;
    forwarded::tell(&mut fields, &asker, own, || ConnectionId::random().to_bytes());
    if gate.is_none() {
        // Who is not held back hears from us that it may go on.
        fields.remove(header::EXPECT);
    }
    let uri = target(&mut fields, asked, version).ok_or_else(|| Refusal {
        status: StatusCode::BAD_REQUEST,
        flags: Flags::DPE,
        details: "path_or_host_rejected".into(),
        text: String::from("the request's host or path cannot be sent on"),
    })?;
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = fields;
    if let Some(gate) = gate {
        let gate = gate.clone();
        hyper::ext::on_informational(&mut request, move |informed| {
            if informed.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    Ok(request)
}

/// The target in the form that the version wants, from the canonical path; the host is where the version has it.
fn target(headers: &mut HeaderMap, asked: &Asked, version: Http) -> Option<Uri> {
    let path = match &asked.query {
        Some(query) => PathAndQuery::from_maybe_shared(bytes::Bytes::from(format!("{}?{query}", asked.path))),
        None => PathAndQuery::try_from(asked.path.as_str()),
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path.ok()?);
    match version {
        Http::One => {
            headers.insert(header::HOST, HeaderValue::from_str(&asked.authority).ok()?);
        }
        Http::Two => {
            headers.remove(header::HOST);
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(Authority::try_from(asked.authority.as_str()).ok()?);
        }
    }
    Uri::from_parts(parts).ok()
}

/// The endpoint's answer as it goes to the client.
fn pass(connection: &Rc<Connection>, mut exchange: Exchange, answered: Answered) -> Response<ResponseBody> {
    let Answered { response, lease, gate, upgrade } = answered;
    let (mut head, body) = response.into_parts();
    exchange.answered(head.status.as_u16(), &head.headers);
    if let Some(gate) = gate.as_ref().filter(|_| head.status.is_success()) {
        // It may have taken the request on without a word in between.
        gate.open();
    }
    let switches = upgrade && head.status == StatusCode::SWITCHING_PROTOCOLS;
    let to = head.headers.get(header::UPGRADE).filter(|_| switches).cloned();
    headers::leave_connection(&mut head.headers, to);
    head.version = Version::default();
    head.extensions.clear();
    if !switches {
        let body = ResponseBody::passed(body, exchange, lease, gate, &connection.worker);
        return Response::from_parts(head, body);
    }
    if let Some(endpoint) = lease.leave_http() {
        *connection.upgrade.borrow_mut() = Some(Upgrade { endpoint, exchange });
    }
    Response::from_parts(head, ResponseBody::own(""))
}
