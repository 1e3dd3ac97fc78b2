//! A request to an endpoint: in time, and again at another where its rule says so.

use std::rc::Rc;
use std::sync::Arc;

use http::{Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use model::route::retry::{self, RetryPolicy, Verdict};
use model::route::select::Forwarding;
use model::route::timeout::Timeouts;
use tokio::time::{Instant, sleep, timeout_at};

use super::chain::{Course, Local};
use super::prepare::Prepared;
use crate::protocol::{self, Http};
use crate::route::{self, NoRoute, Wish, draw};
use crate::telemetry::{Exchange, Flags};
use crate::upstream::{self, Gate, Lease, RequestBody, SendError, Source};

/// Bytes of a request's body that are kept for another try: Envoy's default is a megabyte; what is larger is rarely sent
/// twice, and a thousand clients that all wait hold so much each.
const KEPT: usize = 64 << 10;

/// An endpoint's answer, and what goes with it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    /// What held the request's body back.
    pub(super) gate: Option<Gate>,
    /// Whether the client asked for something else than HTTP.
    pub(super) upgrade: bool,
    /// Until when all of the answer has to be there.
    pub(super) deadline: Option<Instant>,
}

/// How one try ended.
#[expect(clippy::large_enum_variant, reason = "nearly all are answers, and one lives at a time")]
enum Tried {
    Answered(Response<Incoming>, Lease),
    Failed(SendError),
    /// It took longer than it may, or than all may together.
    TooLate {
        all: bool,
    },
}

/// Picks an endpoint, judges, and sends, until there is an answer to pass on.
pub(super) async fn send(
    course: &mut Course<'_>,
    exchange: &mut Exchange,
    body: Incoming,
    forwarding: Option<&Forwarding<'_>>,
) -> Result<Answered, Local> {
    let (worker, inbound) = (&course.connection.worker, &course.connection.inbound);
    let version = protocol::to_endpoint(inbound.target.protocol, course.head.version);
    let timeouts =
        forwarding.map_or_else(Timeouts::default, |to| Timeouts::of(to.forward, &course.head.headers));
    let policy = match forwarding {
        Some(forwarding) => forwarding.forward.retry.clone(),
        None => Some(RetryPolicy::shared_default()),
    };
    let began = Instant::now();
    let deadline = timeouts.total.map(|total| began + total);
    let upgrade = course.asked.upgrade.clone().filter(|_| version == Http::One);
    let waits =
        course.asked.expects_continue && version == Http::One && course.head.version == Version::HTTP_11;
    let gate = waits.then(Gate::default);
    let room = if policy.is_some() && !body.is_end_stream() { KEPT } else { 0 };
    let source = Source::new(body, room, exchange.tally.clone(), course.asked.grpc);
    let prepared = Prepared::new(course, forwarding, version, upgrade.clone()).map_err(|local| *local)?;
    let mut retries = 0;
    let mut failed_at = None;
    loop {
        let wish = Wish {
            routing: course.routing,
            destination: forwarding.map(|to| to.destination),
            request: Some(course.seen),
            avoid: failed_at,
        };
        let endpoint = match route::endpoint(worker, inbound, &wish).await {
            Ok(endpoint) => Rc::new(endpoint),
            Err(error) => {
                course.allowed(exchange, None).await?;
                return Err(no_endpoint(&error));
            }
        };
        exchange.goes_to(&endpoint);
        if retries == 0 {
            course.enter(exchange, Some(&endpoint)).await?
        } else {
            course.allowed(exchange, Some(&endpoint)).await?
        }
        let body = RequestBody::new(&source, gate.clone());
        let request = prepared.request(body, gate.as_ref(), timeouts.headers(began.elapsed()));
        let limit = timeouts.per_try.map(|per_try| Instant::now() + per_try);
        let sending = upstream::send(worker, inbound, &endpoint, version, request);
        let tried = within(sending, limit, deadline).await;
        let may_again = source.borrow().is_kept() && upgrade.is_none();
        let verdict = if may_again { again(policy.as_ref(), retries, &tried) } else { None };
        if let Some(pause) = verdict {
            retries += 1;
            failed_at = Some(endpoint.address);
            sleep(pause).await;
            continue;
        }
        let exhausted =
            policy.as_ref().is_some_and(|policy| policy.attempts > 0 && retries >= policy.attempts);
        return match tried {
            Tried::Answered(response, lease) => {
                Ok(Answered { response, lease, gate, upgrade: upgrade.is_some(), deadline })
            }
            Tried::Failed(error) => Err(broken(exchange, &error, exhausted)),
            Tried::TooLate { .. } => Err(late(exhausted)),
        };
    }
}

type Sent = Result<(Response<Incoming>, Lease), (SendError, Option<Box<http::Request<RequestBody>>>)>;

/// Waits for a try, no longer than it may take and than all may together.
async fn within(
    sending: impl Future<Output = Sent>,
    limit: Option<Instant>,
    deadline: Option<Instant>,
) -> Tried {
    let (until, all) = match (limit, deadline) {
        (Some(limit), Some(deadline)) if deadline <= limit => (Some(deadline), true),
        (Some(limit), _) => (Some(limit), false),
        (None, deadline) => (deadline, true),
    };
    let sent = match until {
        None => sending.await,
        Some(until) => match timeout_at(until, sending).await {
            Ok(sent) => sent,
            Err(_) => return Tried::TooLate { all },
        },
    };
    match sent {
        Ok((response, lease)) => Tried::Answered(response, lease),
        Err((error, _)) => Tried::Failed(error),
    }
}

/// Whether to try again, and after how long.
fn again(policy: Option<&Arc<RetryPolicy>>, retries: u32, tried: &Tried) -> Option<std::time::Duration> {
    let outcome = match tried {
        Tried::Answered(response, _) => {
            retry::Outcome::Response { status: response.status(), headers: response.headers() }
        }
        Tried::Failed(SendError::Dial(_)) => retry::Outcome::ConnectFailure,
        Tried::Failed(SendError::Full) => retry::Outcome::Overflow,
        Tried::Failed(SendError::Broken(error)) if is_refused(error) => retry::Outcome::RefusedStream,
        Tried::Failed(SendError::Broken(_)) => retry::Outcome::Reset { sent: true },
        Tried::TooLate { all: true } => retry::Outcome::Timeout,
        Tried::TooLate { all: false } => retry::Outcome::PerTryTimeout,
    };
    match retry::retry(policy.map(|policy| &**policy), retries, &outcome, &mut draw) {
        Verdict::Again { because, after } => {
            tracing::debug!(?because, ?after, "trying again");
            Some(after)
        }
        Verdict::No(_) => None,
    }
}

/// Whether the endpoint has surely not worked on a request.
fn is_refused(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let reason =
        error.source().and_then(|source| source.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    reason == Some(h2::Reason::REFUSED_STREAM)
}

fn no_endpoint(error: &NoRoute) -> Local {
    Local::new(StatusCode::SERVICE_UNAVAILABLE, error.flags(), "no_healthy_upstream", error.to_string())
}

fn broken(exchange: &mut Exchange, error: &SendError, exhausted: bool) -> Local {
    exchange.failed(error.to_string());
    let flags = if exhausted { error.flags().exhausted() } else { error.flags() };
    let text = "upstream connect error or disconnect/reset before headers";
    Local::new(StatusCode::SERVICE_UNAVAILABLE, flags, error.details(), text)
}

fn late(exhausted: bool) -> Local {
    let flags = if exhausted { Flags::UT.exhausted() } else { Flags::UT };
    Local::new(StatusCode::GATEWAY_TIMEOUT, flags, "response_timeout", "upstream request timeout")
}
