//! The one ordered list of what happens to a request:
//!
//! 1. [`read`](super::read): host and path in one canonical form, or 400; an id for who has none, and the client's certificate
//!    where rules may ask for it ([`forwarded`](super::forwarded));
//! 2. route: the rule that is for it, and of that a destination, a redirect or an answer (`model::route`);
//! 3. endpoint: of the destination ([`crate::route`]); where there is none, 503, once 4 and 5 are done;
//! 4. [`policy`]: whether the original client may, or 403; where the rule leads to another namespace, also with the head as it
//!    goes ([`super::outgoing`]);
//! 5. CORS, then the faults that the rule injects;
//! 6. [`forwarded`](super::forwarded), [`headers`](super::headers), what the rule changes ([`super::prepare`]);
//! 7. send ([`super::forward`]), in time, and again where the rule says so;
//! 8. the answer, as it comes or of our own, with what the rule changes in its head.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;

use hbone::connection::ConnectionId;
use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use model::route::cors::CorsDecision;
use model::route::fault::{ABORT_BODY, AbortWith};
use model::route::headers::Edit;
use model::route::select::Forwarding;
use model::route::{Decision, Outcome, Redirect};
use proxy::random::draw;
use tokio::time::sleep;
use tracing::Level;

use super::forward::{self, Answered};
use super::outgoing::Outgoing;
use super::policy::{self, Judged};
use super::read::{Asked, read};
use super::standing::Standing;
use super::{forwarded, headers, local};
use crate::http::{Connection, ResponseBody, Upgrade};
use crate::known::Edition;
use crate::limits::Limit;
use crate::route::Endpoint;
use crate::telemetry::{Exchange, Flags, Said};

/// An answer of our own instead of an endpoint's.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) status: StatusCode,
    pub(super) flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) details: Cow<'static, str>,
    pub(super) body: Cow<'static, [u8]>,
    pub(super) headers: HeaderMap,
    /// The status of gRPC, where it does not follow from the other.
    pub(super) grpc_status: Option<u8>,
    /// Whether what the rule changes in answers is changed in it, as Envoy does it.
    pub(super) edited: bool,
}

impl Local {
    /// An answer with a text.
    pub(super) fn new(
        status: StatusCode,
        flags: Flags,
        details: impl Into<Cow<'static, str>>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        let body = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        let (headers, details) = (HeaderMap::new(), details.into());
        Self { status, flags, details, body, headers, grpc_status: None, edited: true }
    }
}

/// A request on its way through the list.
pub(super) struct Course<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) head: &'a Parts,
    pub(super) asked: &'a Asked,
    /// As routing and policy see it.
    pub(super) seen: &'a model::request::Request<'a>,
    pub(super) routing: &'a Edition,
    /// What the routing says; nothing where the host has none of its own.
    pub(super) decision: Option<&'a Decision<'a>>,
    /// What comes into the answer for CORS.
    cors: Vec<Edit>,
}

/// Answers a request.
pub(crate) async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut head, body) = request.into_parts();
    let asked = read(&head);
    forwarded::identify(&mut head.headers, || ConnectionId::random().to_bytes());
    let mut exchange = begin(&connection, &mut head, asked.as_ref().ok());
    if let Some(local) = too_large(&connection, &head) {
        return Ok(answer(exchange, &head.method, local));
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            let local =
                Local::new(StatusCode::BAD_REQUEST, Flags::DPE, "path_or_host_rejected", error.to_string());
            return Ok(answer(exchange, &head.method, local));
        }
    };
    let inbound = &connection.inbound;
    headers::join_cookies(&mut head.headers);
    forwarded::certify(&mut head.headers, &inbound.client.asker, inbound.by_waypoint);
    let routing = routing(&connection);
    let seen = asked.request(&head, &connection.inbound);
    let decision = routing.routing.as_deref().map(|routing| routing.select(&seen, &mut draw));
    if let Some(decision) = &decision {
        exchange.routed(decision);
    }
    let mut course = Course {
        connection: &connection,
        head: &head,
        asked: &asked,
        seen: &seen,
        routing: &routing,
        decision: decision.as_ref(),
        cors: Vec::new(),
    };
    let outcome = course.run(&mut exchange, body).await;
    let (mut response, edited) = match outcome {
        Ok(answered) => (pass(&course, exchange, answered), true),
        Err(local) => {
            let edited = local.edited;
            (answer(exchange, &head.method, local), edited)
        }
    };
    if let Some(decision) = decision.filter(|_| edited) {
        let edits = decision.response_edits(&seen, response.status(), response.headers());
        edits.into_iter().for_each(|edit| edit.apply(response.headers_mut()));
    }
    course.cors.into_iter().for_each(|edit| edit.apply(response.headers_mut()));
    Ok(response)
}

/// The refusal of a head that is larger than it may be. hyper sees to that in HTTP/1.1 alone, where it is read.
fn too_large(connection: &Connection, head: &Parts) -> Option<Local> {
    /// What HTTP/2 counts for a field beside its name and value (RFC 9113, section 6.5.2).
    const FIELD: usize = 32;
    if head.version != Version::HTTP_2 {
        return None;
    }
    let waypoint = &connection.worker.waypoint;
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + FIELD;
    let fields: usize = head.headers.iter().map(field).sum();
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fits = fields + path <= waypoint.bounds.head && head.headers.len() <= waypoint.bounds.fields;
    (!fits).then(|| {
        waypoint.hits.hit(Limit::Head);
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Local::new(status, Flags::NONE, "request_headers_too_large", "")
    })
}

fn routing(connection: &Connection) -> Edition {
    let service = connection.inbound.target.service.as_ref();
    service.map(|service| connection.worker.waypoint.routings.of(&service.key)).unwrap_or_default()
}

fn begin(connection: &Rc<Connection>, head: &mut Parts, asked: Option<&Asked>) -> Exchange {
    let waypoint = &connection.worker.waypoint;
    // From here on the headers tell of our span: endpoints are told what the rule leaves of them.
    let random = || ConnectionId::random().to_bytes();
    let span = waypoint.spans.as_ref().and_then(|spans| spans.tracer.begin(&mut head.headers, random, draw));
    let wanted = span.is_some() || waypoint.records.are_kept() || waypoint.log.access_enabled(Level::INFO);
    let authority = asked.map_or("", |asked| asked.authority.as_str());
    let said = wanted.then(|| Said::of(&head.method, &head.uri, head.version, authority, &head.headers));
    Exchange::begin(connection, said, &head.headers, asked.is_some_and(|asked| asked.grpc), span)
}

/// An answer of our own.
fn answer(mut exchange: Exchange, method: &Method, local: Local) -> Response<ResponseBody> {
    let mut response = local::answer(method, local.status, &local.body, exchange.is_grpc());
    response.headers_mut().extend(local.headers);
    if let Some(status) = local.grpc_status.filter(|_| exchange.is_grpc()) {
        response.headers_mut().insert("grpc-status", HeaderValue::from(u16::from(status)));
    }
    exchange.answered_here(response.status().as_u16(), local.flags, local.details);
    exchange.trailers(response.headers());
    response
}

/// The endpoint's answer as it goes to the client.
fn pass(course: &Course<'_>, mut exchange: Exchange, answered: Answered) -> Response<ResponseBody> {
    let connection = course.connection;
    let Answered { response, endpoint, lease, gate, upgrade, deadline } = answered;
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
        let body = ResponseBody::passed(body, exchange, lease, gate, connection, deadline);
        return Response::from_parts(head, body);
    }
    if let Some((parts, _counted)) = lease.leave_http() {
        let standing = Standing::new(course, endpoint);
        *connection.upgrade.borrow_mut() = Some(Upgrade { parts, exchange, standing, _counted });
    }
    Response::from_parts(head, ResponseBody::own(""))
}

impl Course<'_> {
    /// Steps 3 to 7.
    async fn run(&mut self, exchange: &mut Exchange, body: Incoming) -> Result<Answered, Local> {
        let outcome = self.decision.map(|decision| decision.outcome);
        match outcome {
            None => forward::send(self, exchange, body, None).await,
            Some(Outcome::Forward(forwarding)) => {
                forward::send(self, exchange, body, Some(&forwarding)).await
            }
            Some(other) => {
                let forwards = matches!(other, Outcome::NoDestination(_));
                // What would have been answered by the rule itself has no rule of its own once it is refused.
                let refused = |local| Local { edited: forwards, ..local };
                self.enter(exchange, None).await.map_err(refused)?;
                Err(self.of_rule(&other))
            }
        }
    }

    /// What the rule answers by itself.
    fn of_rule(&self, outcome: &Outcome<'_>) -> Local {
        match outcome {
            Outcome::Redirect(redirect) => self.redirect(redirect),
            Outcome::Respond(response) => {
                let body = response.body.as_ref().map(|body| body.to_vec()).unwrap_or_default();
                let local = Local::new(response.status, Flags::NONE, "direct_response", "");
                Local { body: body.into(), ..local }
            }
            Outcome::NoDestination(missing) => {
                let text = match missing {
                    [] => String::from("the route has no destination with a weight"),
                    missing => format!("the route's destinations do not resolve: {}", missing.join(", ")),
                };
                Local::new(StatusCode::SERVICE_UNAVAILABLE, Flags::NC, "cluster_not_found", text)
            }
            _ => Local::new(StatusCode::NOT_FOUND, Flags::NR, "route_not_found", ""),
        }
    }

    fn redirect(&self, redirect: &Redirect) -> Local {
        let matched = self.decision.map_or(1, |decision| decision.matched_length(self.seen.path));
        match redirect.location(self.seen, matched) {
            Some(location) => {
                let mut local = Local::new(redirect.code, Flags::NONE, "direct_response", "");
                local.headers.insert(header::LOCATION, location);
                local
            }
            None => Local::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Flags::NONE,
                "direct_response",
                "the redirect leads nowhere",
            ),
        }
    }

    /// Policy, CORS and faults: what stands before the way to an endpoint, or to an answer of the rule's.
    pub(super) async fn enter(
        &mut self,
        exchange: &mut Exchange,
        endpoint: Option<&Endpoint>,
    ) -> Result<(), Local> {
        self.allowed(exchange, endpoint).await?;
        let Some(rule) = self.decision.and_then(|decision| decision.rule) else { return Ok(()) };
        match rule.cors.as_ref().map(|cors| cors.decide(self.seen)) {
            None | Some(CorsDecision::Pass) => {}
            Some(CorsDecision::Allow(edits)) => self.cors = edits,
            Some(CorsDecision::Answer(status, headers)) => {
                let local = Local::new(status, Flags::NONE, "cors_preflight", "");
                return Err(Local { headers, edited: false, ..local });
            }
        }
        let Some(fault) = &rule.fault else { return Ok(()) };
        let injected = fault.inject(&mut draw);
        if let Some(delay) = injected.delay {
            exchange.remark(Flags::DI);
            sleep(delay).await;
        }
        match injected.abort {
            None => Ok(()),
            Some(AbortWith::Http(status)) => {
                Err(Local::new(status, Flags::FI, "fault_filter_abort", ABORT_BODY))
            }
            Some(AbortWith::Grpc(status)) => {
                let local = Local::new(StatusCode::OK, Flags::FI, "fault_filter_abort", ABORT_BODY);
                Err(Local { grpc_status: Some(status), ..local })
            }
        }
    }

    /// How the routing sends it on, if it does.
    pub(super) fn forwarding(&self) -> Option<&Forwarding<'_>> {
        match &self.decision?.outcome {
            Outcome::Forward(forwarding) => Some(forwarding),
            _ => None,
        }
    }

    /// As it goes, where that is for others to judge as well.
    pub(super) fn outgoing(&self, endpoint: Option<&Endpoint>) -> Result<Option<Box<Outgoing>>, Box<Local>> {
        let away = endpoint.filter(|endpoint| policy::leads_away(&self.connection.inbound, endpoint));
        away.map(|_| Outgoing::of(self)).transpose()
    }

    /// Whether the original client may.
    pub(super) async fn allowed(
        &self,
        exchange: &mut Exchange,
        endpoint: Option<&Endpoint>,
    ) -> Result<(), Local> {
        let Connection { worker, inbound, .. } = &**self.connection;
        let verdict = match self.outgoing(endpoint).map_err(|local| *local)? {
            None => {
                let judged = Judged::Request { came: self.seen, goes: None };
                policy::judge(worker, inbound, endpoint, judged).await
            }
            Some(outgoing) => {
                let goes = outgoing.request(inbound);
                let judged = Judged::Request { came: self.seen, goes: Some(&goes) };
                Box::pin(policy::judge(worker, inbound, endpoint, judged)).await
            }
        };
        let passed = verdict.map_err(|denied| {
            exchange.denied(denied.cause);
            Local::new(StatusCode::FORBIDDEN, Flags::NONE, denied.details, "RBAC: access denied")
        })?;
        exchange.allowed(passed);
        Ok(())
    }
}
