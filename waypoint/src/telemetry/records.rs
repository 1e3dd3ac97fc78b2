//! What this waypoint decided lately, for `lateen why`: a record of each request and connection, kept short, and made into
//! words only when somebody asks.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use model::authz::Cause;
use model::service::Service;
use model::workload::Workload;
use proto::diagnostics::{Decision, DecisionQuery, Verdict};
use xds::diagnostics::{Answers, Ring, cut, is_meant, micros, newest, peer};

use super::Flags;
use super::line::{Entry, shown};

/// A request, or a connection that was carried as bytes.
#[derive(Debug)]
pub(crate) struct Record {
    at: SystemTime,
    duration: Duration,
    peer: SocketAddr,
    principal: Arc<str>,
    source: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
    workload: Option<Arc<Workload>>,
    address: SocketAddr,
    asked: Option<Asked>,
    status: u16,
    flags: Flags,
    decided: Decided,
    detail: Box<str>,
}

/// What a request asked for, copied: its head's bytes are part of a larger buffer.
#[derive(Debug)]
struct Asked {
    method: Method,
    authority: Box<str>,
    path: Box<str>,
    id: Box<str>,
}

/// By what it was decided.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// The word of a policy that denied it.
    pub(super) denied: Option<Box<str>>,
    /// Why it might pass.
    pub(super) passed: Option<Cause>,
    /// What else decided: a limit that was reached, or what is missing.
    pub(super) blamed: Option<Box<str>>,
    /// The rule by which it went.
    pub(super) route: Option<Box<str>>,
}

impl Record {
    /// Of what the access log's line would say.
    pub(super) fn new(entry: &Entry<'_>, decided: Decided) -> Self {
        let target = &entry.inbound.target;
        let workload = entry.endpoint.and_then(|endpoint| endpoint.workload.as_ref());
        let asked = entry.request.map(|said| Asked {
            method: said.method.clone(),
            authority: cut(&said.authority).into(),
            path: cut(said.uri.path_and_query().map_or("/", |path| path.as_str())).into(),
            id: cut(&shown(said.request_id.as_ref()).unwrap_or_default()).into(),
        });
        Self {
            at: entry.at,
            duration: entry.duration,
            peer: entry.inbound.client.peer.addr(),
            principal: entry.inbound.client.principal.clone(),
            source: entry.inbound.source.clone(),
            service: target.service.clone(),
            workload: workload.or(target.workload.as_ref()).cloned(),
            address: entry.endpoint.map_or(target.destination, |endpoint| endpoint.address),
            asked,
            status: entry.status,
            flags: entry.flags,
            detail: decided.blamed.as_deref().or(entry.failure).unwrap_or(entry.details).into(),
            decided,
        }
    }

    /// Whether it went as it was to go.
    pub(super) fn went_well(&self) -> bool {
        self.verdict() == Verdict::Passed
    }

    fn verdict(&self) -> Verdict {
        let refused = self.asked.is_some() && (self.status == 0 || self.status >= 500);
        match &self.decided.denied {
            Some(_) => Verdict::Denied,
            None if refused || (self.asked.is_none() && self.flags != Flags::NONE) => Verdict::Failed,
            None => Verdict::Passed,
        }
    }

    fn is_meant(&self, query: &DecisionQuery) -> bool {
        let id = self.asked.as_ref().map_or("", |asked| &*asked.id);
        let ends = [&self.source, &self.workload].into_iter().flatten();
        let namespaces = ends.map(|workload| &**workload.namespace());
        let namespaces = namespaces.chain(self.service.as_ref().map(|service| service.key.namespace()));
        is_meant(query, self.at, id, namespaces, self.went_well())
    }

    fn told(&self) -> Decision {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let asked = self.asked.as_ref();
        let server = self.workload.as_ref().map(|workload| workload.identity() as &dyn fmt::Display);
        let Decided { denied, passed, route, .. } = &self.decided;
        let policy = denied.as_ref().map(ToString::to_string);
        Decision {
            begun_micros: micros(self.at),
            duration_micros: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            direction: String::new(),
            client: Some(peer(self.source.as_deref(), Some(&self.principal), self.peer)),
            server: Some(peer(self.workload.as_deref(), server, self.address)),
            service: text(self.service.as_ref().map(|service| service.key.hostname())),
            method: text(asked.map(|asked| asked.method.as_str())),
            authority: text(asked.map(|asked| &*asked.authority)),
            path: text(asked.map(|asked| &*asked.path)),
            request_id: text(asked.map(|asked| &*asked.id)),
            status: self.status.into(),
            flags: self.flags.to_string(),
            verdict: self.verdict().into(),
            policy: policy.or_else(|| passed.as_ref().map(ToString::to_string)).unwrap_or_default(),
            route: text(route.as_deref()),
            detail: self.detail.to_string(),
        }
    }
}

/// The records of all threads, each of which keeps its own.
#[derive(Debug)]
pub(crate) struct Records(Box<[Ring<Record>]>);

impl Records {
    /// None yet, and so many at most of what passed, and of what did not, over all threads.
    pub(crate) fn new(threads: usize, most: usize) -> Self {
        Self((0..threads).map(|_| Ring::new(most.div_ceil(threads.max(1)))).collect())
    }

    /// Whether any are kept.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.first().is_some_and(Ring::is_on)
    }

    /// Keeps one.
    pub(super) fn keep(&self, thread: usize, record: Record) {
        if let Some(ring) = self.0.get(thread) {
            let passed = record.went_well();
            ring.push(record, passed);
        }
    }
}

/// Answers questions of people.
#[derive(Debug)]
pub(crate) struct Desk(pub(crate) Arc<crate::Waypoint>);

impl Answers for Desk {
    fn decisions(&self, query: &DecisionQuery) -> Vec<Decision> {
        let meant = |record: &Record| record.is_meant(query).then(|| record.told());
        newest(&self.0.records.0, query, meant)
    }
}
