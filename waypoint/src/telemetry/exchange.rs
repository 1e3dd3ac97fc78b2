//! A request from its head to the end of its answer: what it counts under and what its line says.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use daemon::trace::Span;
use http::HeaderMap;
use model::route::select::Forwarding;
use model::route::{Decision, Outcome};
use tokio::time::Instant;
use tracing::Level;

use super::Flags;
use super::labels::{GrpcStatus, RequestLabels, known_status, labels};
use super::line::{Entry, Said, cluster_name, put_together, write};
use super::records::{Decided, Record};
use super::series::{Added, Series};
use super::spans::More;
use crate::filter::policy::{Denied, Passed};
use crate::http::Connection;
use crate::route::Endpoint;

/// What has gone by, both ways; shared with the bodies that count it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes of the request's body.
    pub(crate) received: Cell<u64>,
    /// Bytes of the answer's.
    pub(crate) sent: Cell<u64>,
    /// Messages of gRPC in the request.
    pub(crate) messages_received: Cell<u64>,
    /// And in the answer.
    pub(crate) messages_sent: Cell<u64>,
}

/// One request. Dropping it is the end: unless something else was said, the client went away.
#[derive(Debug)]
pub(crate) struct Exchange {
    connection: Rc<Connection>,
    at: SystemTime,
    began: Instant,
    said: Option<Box<Said>>,
    /// Whether it leaves a line in the access log.
    logged: bool,
    span: Option<Span>,
    /// What policies on trial would have decided, for its span.
    trial: Vec<(&'static str, String)>,
    grpc: bool,
    grpc_status: GrpcStatus,
    request_head: u64,
    response_head: u64,
    pub(crate) tally: Rc<Tally>,
    status: u16,
    flags: Flags,
    decided: Decided,
    /// Flags of what happened on the way, however it ends.
    remarks: Flags,
    retries: u32,
    details: Cow<'static, str>,
    failure: Option<String>,
    cause: Option<String>,
    route_name: Option<String>,
    cluster: Option<String>,
    endpoint: Option<Rc<Endpoint>>,
    asked: Option<Instant>,
    upstream_time: Option<Duration>,
}

impl Exchange {
    /// It begins.
    pub(crate) fn begin(
        connection: &Rc<Connection>,
        said: Option<Said>,
        headers: &HeaderMap,
        grpc: bool,
        span: Option<Span>,
    ) -> Self {
        connection.begun();
        Self {
            connection: connection.clone(),
            at: SystemTime::now(),
            began: Instant::now(),
            logged: said.is_some() && connection.worker.waypoint.log.access_enabled(Level::INFO),
            said: said.map(Box::new),
            span,
            trial: Vec::new(),
            grpc,
            grpc_status: None,
            request_head: size(headers),
            response_head: 0,
            tally: Rc::default(),
            status: 0,
            flags: Flags::DC,
            decided: Decided::default(),
            remarks: Flags::NONE,
            retries: 0,
            details: "downstream_remote_disconnect".into(),
            failure: None,
            cause: None,
            route_name: None,
            cluster: None,
            endpoint: None,
            asked: None,
            upstream_time: None,
        }
    }

    /// It goes to an endpoint.
    pub(crate) fn goes_to(&mut self, endpoint: &Rc<Endpoint>) {
        self.endpoint = Some(endpoint.clone());
        self.asked = Some(Instant::now());
    }

    /// What decided, beside the rule by which it went.
    pub(crate) fn decided_by(&mut self, cause: String) {
        self.decided.blamed = Some(cause.as_str().into());
        self.decided.route = self.cause.take().map(String::into_boxed_str);
        self.cause = Some(cause);
    }

    /// A policy denied it, for this cause.
    pub(crate) fn denied(&mut self, cause: String) {
        self.decided.denied = Some(cause.as_str().into());
        self.decided.route = self.cause.take().map(String::into_boxed_str);
        self.cause = Some(cause);
    }

    /// A policy denies what came of it, which ends.
    pub(crate) fn cut_off(&mut self, denied: Denied) {
        (self.flags, self.details) = (Flags::NONE, denied.details.into());
        self.failure = Some(String::from("the policies in force deny it now"));
        self.denied(denied.cause);
    }

    /// It may pass, and policies on trial have said what they would have decided.
    pub(crate) fn allowed(&mut self, passed: Passed) {
        if self.span.is_some() {
            self.trial = passed.decision.dry_run_tags();
        }
        self.decided.passed = Some(passed.decision.cause);
    }

    /// Something happened that its flags say, however it ends.
    pub(crate) fn remark(&mut self, flags: Flags) {
        self.remarks = self.remarks.and(flags);
    }

    /// It is tried once more.
    pub(crate) fn tried_again(&mut self) {
        self.retries += 1;
    }

    /// The endpoint has answered; the answer's body is still to come.
    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        self.response_head = size(headers);
        self.upstream_time = self.asked.map(|asked| asked.elapsed());
        self.trailers(headers);
    }

    /// Fields that may tell how a call of gRPC went.
    pub(crate) fn trailers(&mut self, fields: &HeaderMap) {
        if self.grpc
            && let Some(status) = fields.get("grpc-status")
        {
            let status = status.to_str().ok().and_then(|status| status.parse().ok());
            self.grpc_status = status.map(known_status);
        }
    }

    /// The answer is ours, not an endpoint's.
    pub(crate) fn answered_here(&mut self, status: u16, flags: Flags, details: Cow<'static, str>) {
        (self.status, self.flags, self.details) = (status, flags, details);
    }

    /// What broke.
    pub(crate) fn failed(&mut self, failure: String) {
        self.failure = Some(failure);
    }

    /// The answer is whole.
    pub(crate) fn complete(&mut self) {
        (self.flags, self.details) = (Flags::NONE, "via_upstream".into());
    }

    /// The answer broke off.
    pub(crate) fn broke(&mut self, error: String) {
        (self.flags, self.details) = (Flags::UR, "upstream_reset_after_response_started".into());
        self.failure = Some(error);
    }

    /// The answer took longer than it may.
    pub(crate) fn too_late(&mut self) {
        (self.flags, self.details) = (Flags::UT, "response_timeout".into());
    }

    /// The rule by which it goes where it goes, and what the access log calls it.
    pub(crate) fn routed(&mut self, decision: &Decision<'_>) {
        if self.said.is_some() {
            self.cause = Some(put_together(format_args!("{}", decision.cause)));
            self.route_name = decision.route_name();
            if (self.logged || self.span.is_some())
                && let Outcome::Forward(Forwarding { destination, .. }) = &decision.outcome
            {
                let port = destination.port.unwrap_or(self.connection.inbound.target.destination.port());
                let host = destination.service.hostname();
                self.cluster = Some(cluster_name(port, "http", destination.subset.as_deref(), host));
            }
        }
    }

    /// Whether it is a call of gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    fn series(&self) -> Arc<Series> {
        let grpc = self.grpc.then_some(self.grpc_status);
        let endpoint = self.endpoint.as_deref();
        let of = |known: &Known| {
            let same = match (&known.endpoint, endpoint.and_then(|endpoint| endpoint.workload.as_ref())) {
                (Some(known), Some(workload)) => Arc::ptr_eq(known, workload),
                (None, None) => true,
                _ => false,
            };
            same && (known.status, known.grpc, known.flags) == (self.status, grpc, self.flags)
        };
        let known = &self.connection.known;
        if let Some(found) = known.borrow().iter().find(|known| of(known)) {
            return found.series.clone();
        }
        let inbound = &self.connection.inbound;
        let (workload, service) = (inbound.target.workload.as_deref(), inbound.target.service.as_deref());
        let ends = labels(inbound.source_end.clone(), endpoint, workload, service, Flags::NONE);
        let labels = RequestLabels { ends, code: self.status, grpc, flags: self.flags };
        let series = self.connection.worker.shard.series(labels);
        let mut known = known.borrow_mut();
        if known.len() >= KNOWN {
            known.clear();
        }
        let endpoint = endpoint.and_then(|endpoint| endpoint.workload.clone());
        known.push(Known { endpoint, status: self.status, grpc, flags: self.flags, series: series.clone() });
        series
    }
}

/// Series that a connection remembers.
const KNOWN: usize = 8;

/// A series that was looked up before on a connection: mostly its next request counts under it too.
#[derive(Debug)]
pub(crate) struct Known {
    endpoint: Option<Arc<model::workload::Workload>>,
    status: u16,
    grpc: Option<GrpcStatus>,
    flags: Flags,
    series: Arc<Series>,
}

/// The series that a connection remembers.
pub(crate) type KnownSeries = RefCell<Vec<Known>>;

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.ended();
        let duration = self.began.elapsed();
        self.flags = self.flags.and(self.remarks);
        let tally = &self.tally;
        self.series().add(&Added {
            duration,
            request_bytes: self.request_head + tally.received.get(),
            response_bytes: self.response_head + tally.sent.get(),
            messages: (tally.messages_received.get(), tally.messages_sent.get()),
        });
        if self.said.is_none() {
            return;
        }
        let entry = Entry {
            at: self.at,
            request: self.said.as_deref(),
            status: self.status,
            flags: self.flags,
            details: &self.details,
            termination: None,
            failure: self.failure.as_deref(),
            received: tally.received.get(),
            sent: tally.sent.get(),
            duration,
            upstream_time: self.upstream_time,
            endpoint: self.endpoint.as_deref(),
            inbound: &self.connection.inbound,
            cluster: self.cluster.as_deref(),
            cause: self.cause.as_deref(),
            route_name: self.route_name.as_deref().unwrap_or(if self.cause.is_none() {
                "default"
            } else {
                "-"
            }),
        };
        let waypoint = &self.connection.worker.waypoint;
        if self.logged {
            write(&waypoint.log, &entry);
        }
        if let (Some(spans), Some(span)) = (&waypoint.spans, self.span) {
            let source = &self.connection.inbound.source_end;
            let grpc = self.grpc.then_some(self.grpc_status);
            spans.end(span, &entry, &More { source, retries: self.retries, grpc, trial: &self.trial });
        }
        if waypoint.records.are_kept() {
            let mut decided = std::mem::take(&mut self.decided);
            if decided.denied.is_none() && decided.blamed.is_none() {
                decided.route = self.cause.as_deref().map(Into::into);
            }
            waypoint.records.keep(self.connection.worker.index, Record::new(&entry, decided));
        }
    }
}

/// Bytes of a head's fields.
fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}
