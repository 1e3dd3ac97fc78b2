//! A connection that is carried as bytes, from its CONNECT to its end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::metrics::traffic::{Reporter, Series};
use model::route::Cause;
use tokio::time::Instant;

use super::Flags;
use super::labels::labels;
use super::line::{Entry, write};
use super::metered::{Counts, Metered};
use super::records::{Decided, Record};
use crate::filter::policy::Denied;
use crate::listen::Inbound;
use crate::route::Endpoint;
use crate::worker::Worker;

/// Why a connection that was carried is not any more.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both its ends did, or one failed.
    Itself(io::Result<()>),
    /// A policy denies it now.
    Denied(Denied),
    /// Nothing went over it for as long as a rule allows.
    Idle(String),
    /// It lasted as long as a rule allows.
    TooLong(String),
}

impl Ended {
    /// Whether all of both directions has been carried.
    pub(crate) fn is_in_order(&self) -> bool {
        matches!(self, Self::Itself(Ok(())))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    inbound: Rc<Inbound>,
    worker: Rc<Worker>,
    began: Instant,
    counts: Counts,
    /// The rule that decided where it goes, if there is any for its host.
    cause: Option<String>,
}

impl Connection {
    /// It begins.
    pub(crate) fn open(worker: &Rc<Worker>, inbound: &Rc<Inbound>) -> Self {
        let traffic = &worker.waypoint.telemetry.traffic;
        traffic.sockets_open(Reporter::Waypoint).fetch_add(1, Ordering::Relaxed);
        Self {
            inbound: inbound.clone(),
            worker: worker.clone(),
            began: Instant::now(),
            counts: Counts::default(),
            cause: None,
        }
    }

    /// A rule decided where it goes.
    pub(crate) fn routed(&mut self, cause: &Cause<'_>) {
        self.cause = Some(cause.to_string());
    }

    /// Who wanted it.
    pub(crate) fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// It is carried to an endpoint from now on; what goes over the client's side counts as it goes.
    pub(crate) fn carried<T>(&self, endpoint: &Endpoint, client: T) -> Metered<T> {
        let series = self.series(Some(endpoint), Flags::NONE);
        series.opened.fetch_add(1, Ordering::Relaxed);
        Metered::new(client, series, self.counts.clone())
    }

    /// What goes over it, and when the last of it went.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// It ended after it had been carried.
    pub(crate) fn closed(self, endpoint: &Endpoint, outcome: Ended) {
        let (flags, termination, error) = match outcome {
            Ended::Itself(Ok(())) => (Flags::NONE, None, None),
            Ended::Itself(Err(error)) => (Flags::UC, None, Some(error.to_string())),
            Ended::Denied(denied) => (Flags::NONE, Some(denied.details.clone()), Some(denied.to_string())),
            Ended::Idle(why) => (Flags::NONE, None, Some(why)),
            Ended::TooLong(why) => (Flags::DT, None, Some(why)),
        };
        self.series(Some(endpoint), flags).closed.fetch_add(1, Ordering::Relaxed);
        let end = End { flags, termination: termination.as_deref(), error: error.as_deref() };
        self.write(Some(endpoint), &end);
    }

    /// It was never carried. `termination` is the word of a policy that denied it.
    pub(crate) fn failed(self, flags: Flags, termination: Option<&str>, error: &str) {
        self.series(None, flags).failed.fetch_add(1, Ordering::Relaxed);
        self.write(None, &End { flags, termination, error: Some(error) });
    }

    fn series(&self, endpoint: Option<&Endpoint>, flags: Flags) -> Arc<Series> {
        let Inbound { source_end, target, .. } = &*self.inbound;
        let (workload, service) = (target.workload.as_deref(), target.service.as_deref());
        let labels = labels(source_end.clone(), endpoint, workload, service, flags);
        self.worker.waypoint.telemetry.traffic.series(&labels)
    }

    fn write(&self, endpoint: Option<&Endpoint>, end: &End<'_>) {
        let (received, sent) = self.counts.get();
        let entry = Entry {
            at: SystemTime::now().checked_sub(self.began.elapsed()).unwrap_or(UNIX_EPOCH),
            request: None,
            status: 0,
            flags: end.flags,
            details: "-",
            termination: end.termination,
            failure: end.error,
            received,
            sent,
            duration: self.began.elapsed(),
            upstream_time: None,
            endpoint,
            inbound: &self.inbound,
            cluster: None,
            cause: self.cause.as_deref(),
            route_name: "-",
        };
        write(&self.worker.waypoint.log, &entry);
        if self.worker.waypoint.records.are_kept() {
            let decided = Decided {
                denied: end.termination.and(end.error).map(Into::into),
                passed: None,
                blamed: None,
                route: self.cause.as_deref().map(Into::into),
            };
            self.worker.waypoint.records.keep(self.worker.index, Record::new(&entry, decided));
        }
    }
}

/// How it ended.
struct End<'a> {
    flags: Flags,
    termination: Option<&'a str>,
    error: Option<&'a str>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let traffic = &self.worker.waypoint.telemetry.traffic;
        traffic.sockets_open(Reporter::Waypoint).fetch_sub(1, Ordering::Relaxed);
    }
}
