//! A connection that is carried as bytes, from its CONNECT to its end.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use daemon::metrics::traffic::{Reporter, Series};
use tokio::time::Instant;

use super::Flags;
use super::labels::labels;
use super::line::{Entry, write};
use crate::listen::Inbound;
use crate::route::Endpoint;
use crate::worker::Worker;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    inbound: Rc<Inbound>,
    worker: Rc<Worker>,
    began: Instant,
}

impl Connection {
    /// It begins.
    pub(crate) fn open(worker: &Rc<Worker>, inbound: &Rc<Inbound>) -> Self {
        let traffic = &worker.waypoint.telemetry.traffic;
        traffic.sockets_open(Reporter::Waypoint).fetch_add(1, Ordering::Relaxed);
        Self { inbound: inbound.clone(), worker: worker.clone(), began: Instant::now() }
    }

    /// Who wanted it.
    pub(crate) fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// It ended after it had been carried: bytes to the server and to the client.
    pub(crate) fn closed(self, worker: &Worker, endpoint: &Endpoint, outcome: io::Result<(u64, u64)>) {
        let (flags, error) = match &outcome {
            Ok(_) => (Flags::NONE, None),
            Err(error) => (Flags::UC, Some(error.to_string())),
        };
        let (received, sent) = outcome.unwrap_or_default();
        let series = self.series(worker, Some(endpoint), Flags::NONE);
        series.opened.fetch_add(1, Ordering::Relaxed);
        series.received.fetch_add(received, Ordering::Relaxed);
        series.sent.fetch_add(sent, Ordering::Relaxed);
        self.series(worker, Some(endpoint), flags).closed.fetch_add(1, Ordering::Relaxed);
        self.write(Some(endpoint), flags, (received, sent), error.as_deref());
    }

    /// It was never carried.
    pub(crate) fn failed(self, worker: &Worker, flags: Flags, error: &str) {
        let series = self.series(worker, None, flags);
        series.failed.fetch_add(1, Ordering::Relaxed);
        self.write(None, flags, (0, 0), Some(error));
    }

    fn series(&self, worker: &Worker, endpoint: Option<&Endpoint>, flags: Flags) -> std::sync::Arc<Series> {
        let Inbound { source_end, target, .. } = &*self.inbound;
        let (workload, service) = (target.workload.as_deref(), target.service.as_deref());
        let labels = labels(source_end.clone(), endpoint, workload, service, flags);
        worker.waypoint.telemetry.traffic.series(&labels)
    }

    fn write(
        &self,
        endpoint: Option<&Endpoint>,
        flags: Flags,
        (received, sent): (u64, u64),
        error: Option<&str>,
    ) {
        let entry = Entry {
            at: SystemTime::now(),
            request: None,
            status: 0,
            flags,
            details: "-",
            failure: error,
            received,
            sent,
            duration: self.began.elapsed(),
            upstream_time: None,
            endpoint,
            inbound: &self.inbound,
            cause: None,
            route_name: "-",
        };
        write(&self.worker.waypoint.log, &entry);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let traffic = &self.worker.waypoint.telemetry.traffic;
        traffic.sockets_open(Reporter::Waypoint).fetch_sub(1, Ordering::Relaxed);
    }
}
