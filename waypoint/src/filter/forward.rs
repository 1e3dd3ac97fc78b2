//! A request to an endpoint: in time, and again at another where its rule says so.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use model::route::retry::{self, NoRetry, RetryPolicy, Verdict};
use model::route::select::Forwarding;
use model::route::timeout::Timeouts;
use model::traffic::outlier::Outcome;
use model::traffic::pool::Ticket;
use proxy::random::draw;
use tokio::time::{Instant, sleep};

use super::chain::{Course, Local};
use super::mirror;
use super::prepare::Prepared;
use crate::balance::Tried;
use crate::protocol::{self, Http};
use crate::route::{self, Endpoint, NoRoute, Wish};
use crate::telemetry::{Exchange, Flags};
use crate::upstream::{
    self, Allowed, Answer, Clock, Deadline, Gate, GateKeeper, Lease, RequestBody, SendError, SharedSource,
    Source, Up,
};

/// Bytes of a request's body that are kept for another try: Envoy's default is a megabyte; what is larger is rarely sent
/// twice, and a thousand clients that all wait hold so much each.
const KEPT: usize = 64 << 10;

/// An endpoint's answer, and what goes with it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Answer>,
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) lease: Lease,
    /// What held the request's body back.
    pub(super) gate: Option<GateKeeper>,
    /// Whether the client asked for something else than HTTP.
    pub(super) upgrade: bool,
    /// Until when all of the answer has to be there.
    pub(super) deadline: Option<Deadline>,
}

/// What came of sending one try.
type Sent = Result<(Response<Answer>, Lease), (SendError, Option<Box<Request<RequestBody>>>)>;

/// How one try ended.
#[expect(clippy::large_enum_variant, reason = "nearly all are answers, and one lives at a time")]
enum Ended {
    Answered(Response<Answer>, Lease),
    Failed {
        error: SendError,
        /// Nothing of the request was sent.
        unsent: bool,
    },
    /// It took longer than it may, or than all may together.
    TooLate(Up),
}

impl Ended {
    /// Notes it for outlier detection.
    fn note(&self, endpoint: &Endpoint, grpc: bool) {
        match self {
            Self::Answered(response, _) => note(endpoint, Ok(response), grpc),
            Self::Failed { error, .. } => note(endpoint, Err(error), grpc),
            // That there is too much says nothing of an endpoint.
            Self::TooLate(_) if endpoint.in_use.as_ref().is_some_and(|in_use| in_use.is_queued()) => {}
            Self::TooLate(_) => endpoint.record(Outcome::TimedOut),
        }
    }
}

/// What is the same for all tries of a request.
struct Sending<'a> {
    forwarding: Option<&'a Forwarding<'a>>,
    policy: Option<Arc<RetryPolicy>>,
    timeouts: Timeouts,
    clock: Rc<Clock>,
    source: SharedSource,
}

/// The form in which an endpoint is sent it.
struct Form {
    version: Http,
    /// What else than HTTP the client wants to speak.
    upgrade: Option<HeaderValue>,
    gate: Option<Gate>,
    prepared: Prepared,
}

/// Picks an endpoint, judges, and sends, until there is an answer to pass on.
pub(super) async fn send(
    course: &mut Course<'_>,
    exchange: &mut Exchange,
    body: Incoming,
    forwarding: Option<&Forwarding<'_>>,
) -> Result<Answered, Local> {
    let (worker, inbound) = (&course.connection.worker, &course.connection.inbound);
    let sending = Sending::new(course, exchange, body, forwarding);
    let mut retries = Retries::new(sending.policy.as_deref());
    loop {
        let picked = sending.pick(course, &retries.tried).await;
        let to = picked.as_ref().ok();
        if let Some(endpoint) = to {
            exchange.goes_to(endpoint);
        }
        // Also where there is nowhere to go: that is said to who may ask, and after what the rule does before it sends.
        if retries.made == 0 {
            course.enter(exchange, to.map(Rc::as_ref)).await?;
            // Delays that the rule injects are no part of what it allows.
            sending.clock.restart();
        } else {
            course.allowed(exchange, to.map(Rc::as_ref)).await?;
        }
        let endpoint = picked.map_err(|error| nowhere(exchange, &error))?;
        let form = Form::new(course, forwarding, &endpoint).map_err(|local| *local)?;
        let (version, gate, upgrade) =
            (form.version, form.gate.as_ref().map(GateKeeper::of), form.upgrade.is_some());
        if let Some(to) = forwarding.filter(|to| !to.forward.mirrors.is_empty())
            && !upgrade
            && retries.made == 0
        {
            mirror::send(course, to, &form.prepared, version, &sending.source);
        }
        let request = sending.request(form);
        let sent = upstream::send(worker, inbound, &endpoint, version, request);
        let ended = sending.in_time(sent).await;
        ended.note(&endpoint, course.asked.grpc);
        let may_again = sending.source.borrow().is_kept() && !upgrade;
        match retries.next(may_again, &ended, &endpoint) {
            Next::Again(pause) => {
                exchange.tried_again();
                sending.source.borrow_mut().withdraw();
                // What still sends of this try must not read what the next is to send, nor wait for what never comes.
                drop((ended, gate));
                sending.pause(pause).await?;
                continue;
            }
            Next::Overflow(cause) => {
                exchange.decided_by(cause);
                exchange.remark(Flags::UO);
            }
            Next::Exhausted => exchange.remark(Flags::URX),
            Next::No => {}
        }
        return match ended {
            Ended::Answered(mut response, lease) => {
                give_cookie(&mut response, &endpoint);
                let deadline = sending.timeouts.total.map(|total| sending.clock.deadline(total));
                Ok(Answered { response, endpoint, lease, gate, upgrade, deadline })
            }
            Ended::Failed { error, .. } => Err(broken(exchange, &error, &endpoint)),
            Ended::TooLate(_) => Err(late()),
        };
    }
}

impl<'a> Sending<'a> {
    fn new(
        course: &Course<'_>,
        exchange: &Exchange,
        body: Incoming,
        forwarding: Option<&'a Forwarding<'a>>,
    ) -> Self {
        let timeouts =
            forwarding.map_or_else(Timeouts::default, |to| Timeouts::of(to.forward, &course.head.headers));
        let policy = match forwarding {
            Some(forwarding) => forwarding.forward.retry.clone(),
            None => Some(RetryPolicy::shared_default()),
        };
        let room = if policy.is_some() && !body.is_end_stream() { KEPT } else { 0 };
        let clock = Clock::start();
        Self {
            forwarding,
            policy,
            timeouts,
            clock: clock.clone(),
            source: Source::new(body, room, clock, exchange.tally.clone(), course.asked.grpc),
        }
    }

    async fn pick(&self, course: &Course<'_>, tried: &Tried) -> Result<Rc<Endpoint>, NoRoute> {
        let wish = Wish {
            routing: course.routing,
            destination: self.forwarding.map(|to| to.destination),
            request: Some(course.seen),
            tried,
        };
        let connection = course.connection;
        route::endpoint(&connection.worker, &connection.inbound, &wish).await.map(Rc::new)
    }

    /// Waits for a try, no longer than it may take and than all may together.
    async fn in_time(&self, sent: impl Future<Output = Sent>) -> Ended {
        let Timeouts { total, per_try, .. } = self.timeouts;
        let allowed = Allowed { total, per_try: per_try.map(|per_try| (Instant::now(), per_try)) };
        tokio::select! {
            biased;
            sent = sent => match sent {
                Ok((response, lease)) => Ended::Answered(response, lease),
                Err((error, unsent)) => Ended::Failed { error, unsent: unsent.is_some() },
            },
            up = self.clock.up(allowed) => Ended::TooLate(up),
        }
    }

    /// Waits before another try; there is none once the time of all is up.
    async fn pause(&self, pause: Duration) -> Result<(), Local> {
        tokio::select! {
            biased;
            () = sleep(pause) => Ok(()),
            _ = self.clock.up(Allowed { total: self.timeouts.total, per_try: None }) => Err(late()),
        }
    }

    /// The request of one try.
    fn request(&self, form: Form) -> Request<RequestBody> {
        let body = RequestBody::new(&self.source, form.gate.clone());
        form.prepared.request(body, form.gate.as_ref(), self.timeouts.headers(self.clock.passed()))
    }
}

impl Form {
    fn new(
        course: &Course<'_>,
        forwarding: Option<&Forwarding<'_>>,
        endpoint: &Endpoint,
    ) -> Result<Self, Box<Local>> {
        let (head, asked) = (course.head, course.asked);
        let declared = course.connection.inbound.target.protocol;
        let rules = endpoint.in_use.as_ref().map(|in_use| &in_use.current.policy.connection_pool.http);
        let version = match rules {
            Some(rules) => protocol::by_rules(declared, head.version, asked.upgrade.is_some(), rules),
            None => protocol::to_endpoint(declared, head.version),
        };
        let upgrade = asked.upgrade.clone().filter(|_| version == Http::One);
        let waits = asked.expects_continue && version == Http::One && head.version == Version::HTTP_11;
        let prepared = Prepared::new(course, forwarding, version, upgrade.clone())?;
        Ok(Self { version, upgrade, gate: waits.then(Gate::default), prepared })
    }
}

/// The tries of a request after its first.
struct Retries<'a> {
    policy: Option<&'a RetryPolicy>,
    made: u32,
    tried: Tried,
    /// The one under way, where they are counted.
    ticket: Option<Ticket>,
}

/// What follows a try.
enum Next {
    /// Another, after a pause.
    Again(Duration),
    /// None, because too many are under way; by whose limit.
    Overflow(String),
    /// None, because there were as many as there may be.
    Exhausted,
    /// None.
    No,
}

impl<'a> Retries<'a> {
    fn new(policy: Option<&'a RetryPolicy>) -> Self {
        let ignore_previous = policy.and_then(|policy| policy.ignore_previous_hosts);
        Self { policy, made: 0, tried: Tried { ignore_previous, ..Tried::default() }, ticket: None }
    }

    /// Whether to try again after a try that ended so.
    fn next(&mut self, may: bool, ended: &Ended, endpoint: &Endpoint) -> Next {
        self.ticket = None;
        let policy = self.policy.filter(|_| may);
        let (because, after) = match retry::retry(policy, self.made, &outcome(ended), &mut draw) {
            Verdict::Again { because, after } => (because, after),
            Verdict::No(NoRetry::Exhausted(_)) => return Next::Exhausted,
            _ => return Next::No,
        };
        if let Some(in_use) = &endpoint.in_use {
            match in_use.retry() {
                Ok(ticket) => self.ticket = Some(ticket),
                Err(overflow) => return Next::Overflow(in_use.blame(overflow.field())),
            }
            if self.policy.is_some_and(|policy| policy.remote_localities) {
                self.tried.priorities.push(in_use.priority);
            }
        }
        tracing::debug!(?because, ?after, "trying again");
        self.made += 1;
        self.tried.endpoints.push(endpoint.address);
        Next::Again(after)
    }
}

/// Gives the client the cookie that leads it to the same endpoint again, as Envoy does: with answers of endpoints only.
fn give_cookie(response: &mut Response<Answer>, endpoint: &Endpoint) {
    let text = endpoint.in_use.as_ref().and_then(|in_use| in_use.set_cookie.as_deref());
    if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// What a try's end is to the rule of retries.
fn outcome(ended: &Ended) -> retry::Outcome<'_> {
    match ended {
        Ended::Answered(response, _) => {
            retry::Outcome::Response { status: response.status(), headers: response.headers() }
        }
        Ended::Failed { error, unsent } => failure(error, *unsent),
        Ended::TooLate(Up::All) => retry::Outcome::Timeout,
        Ended::TooLate(Up::Try) => retry::Outcome::PerTryTimeout,
    }
}

fn failure(error: &SendError, unsent: bool) -> retry::Outcome<'static> {
    match error {
        SendError::Dial(_) => retry::Outcome::ConnectFailure,
        SendError::Short(_) | SendError::Overflow(_) => retry::Outcome::Overflow,
        SendError::Broken(error) if error.is_refused() => retry::Outcome::RefusedStream { sent: !unsent },
        SendError::Broken(_) => retry::Outcome::Reset { sent: !unsent },
    }
}

/// Notes for outlier detection how a try ended. That there is too much says nothing of an endpoint.
pub(super) fn note(endpoint: &Endpoint, ended: Result<&Response<Answer>, &SendError>, grpc: bool) {
    let outcome = match ended {
        Ok(response) => {
            let grpc_status = response.headers().get("grpc-status").filter(|_| grpc);
            match grpc_status.and_then(|status| status.to_str().ok()?.parse().ok()) {
                Some(status) => Outcome::of_grpc(status),
                None => Outcome::Response(response.status().as_u16()),
            }
        }
        Err(SendError::Short(_) | SendError::Overflow(_)) => return,
        Err(SendError::Dial(error)) if error.is_late() => Outcome::TimedOut,
        Err(_) => Outcome::Failed,
    };
    endpoint.record(outcome);
}

fn nowhere(exchange: &mut Exchange, error: &NoRoute) -> Local {
    exchange.failed(error.to_string());
    if let Some(cause) = error.cause() {
        exchange.decided_by(cause);
    }
    Local::new(StatusCode::SERVICE_UNAVAILABLE, error.flags(), "no_healthy_upstream", error.to_string())
}

fn broken(exchange: &mut Exchange, error: &SendError, endpoint: &Endpoint) -> Local {
    exchange.failed(error.to_string());
    let text = "upstream connect error or disconnect/reset before headers";
    let flags = error.flags();
    let SendError::Overflow(overflow) = error else {
        return Local::new(StatusCode::SERVICE_UNAVAILABLE, flags, error.details(), text);
    };
    if let Some(in_use) = &endpoint.in_use {
        exchange.decided_by(in_use.blame(overflow.field()));
    }
    let text = format!("{text}. reset reason: overflow");
    let mut local = Local::new(StatusCode::SERVICE_UNAVAILABLE, flags, error.details(), text);
    // Who calls is told that it is not a failure, as by Envoy.
    local.headers.insert("x-envoy-overloaded", HeaderValue::from_static("true"));
    local
}

fn late() -> Local {
    Local::new(StatusCode::GATEWAY_TIMEOUT, Flags::UT, "response_timeout", "upstream request timeout")
}

#[cfg(test)]
mod tests {
    use h2::Reason;
    use model::route::retry::RetryOn;
    use model::traffic::pool::Overflow;

    use super::*;
    use crate::upstream::{Broken, DialError};

    #[test]
    fn what_was_not_sent_may_be_sent_again_where_the_rule_asks_for_just_that() {
        let (on, status_codes) = RetryOn::parse("reset-before-request").unwrap();
        let policy = RetryPolicy { on, status_codes, ..RetryPolicy::default() };
        let broken = || SendError::Broken(Broken::Two(h2::Error::from(Reason::INTERNAL_ERROR)));
        for (error, unsent, again) in [
            (broken(), true, true),
            (broken(), false, false),
            (SendError::Dial(DialError::Timeout), true, true),
            (SendError::Overflow(Overflow::Connections(1)), true, false),
        ] {
            let verdict = retry::retry(Some(&policy), 0, &failure(&error, unsent), &mut |_| 0);
            assert_eq!(matches!(verdict, Verdict::Again { .. }), again, "{error} {unsent}");
        }
    }
}
