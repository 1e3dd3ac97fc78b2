//! What is said of one connection: the labels it counts under and the line it leaves in the access log.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemon::log::{About, Line};
use daemon::metrics::end::{End, ServiceLabels};
use daemon::metrics::traffic::{Labels, Reporter};
use hbone::connection::Live;
use model::Identity;
use model::address::{AppAddress, NextHop, PeerAddress};
use model::baggage::Baggage;
use model::service::Service;
use model::workload::Workload;
use tokio::time::Instant;
use tracing::Level;

mod shared;

use self::shared::Shared;
use super::Agent;
use super::decisions::Decided;
use super::pod::Pod;

/// Flags that say how a connection failed: `response_flags` of the metrics, as ztunnel has them.
pub(crate) mod flags {
    /// Nothing to remark.
    pub(crate) const NONE: &str = "-";
    /// Refused by policy.
    pub(crate) const DENY: &str = "DENY";
    /// The next hop could not be reached.
    pub(crate) const CONNECT: &str = "CONNECT";
    /// The TLS handshake failed.
    pub(crate) const TLS_FAILURE: &str = "TLS_FAILURE";
    /// The tunnel failed before it could carry anything.
    pub(crate) const H2_HANDSHAKE_FAILURE: &str = "H2_HANDSHAKE_FAILURE";
    /// Connecting to the tunnel's port timed out, as it does behind a NetworkPolicy.
    pub(crate) const NETWORK_POLICY: &str = "NETWORK_POLICY";
    /// A certificate at one of its ends is revoked.
    pub(crate) const CERT_REVOKED: &str = "CERT_REVOKED";
    /// There is no certificate.
    pub(crate) const IDENTITY_ERROR: &str = "IDENTITY_ERROR";
}

/// Who is at the two ends of a connection, and how it goes from one to the other; all but the client's address, so that
/// connections between the same two are alike.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// Which end we are.
    pub(crate) reporter: Reporter,
    /// The client, where known.
    pub(crate) source: Option<Arc<Workload>>,
    /// What a client that is not known said of itself.
    pub(crate) baggage: Option<Box<Baggage>>,
    /// Who TLS proved the client to be.
    pub(crate) source_identity: Option<Identity>,
    /// Where the connection goes next; inbound, where it was accepted.
    pub(crate) next_hop: NextHop,
    /// What was asked of the tunnel.
    pub(crate) authority: Option<Box<str>>,
    /// The server (or its waypoint), where known.
    pub(crate) destination: Option<Arc<Workload>>,
    /// Who TLS proved the server to be.
    pub(crate) destination_identity: Option<Identity>,
    /// The service asked for.
    pub(crate) service: Option<Arc<Service>>,
    /// Where it was delivered, if policy judges it.
    pub(crate) delivered: Option<AppAddress>,
}

impl Ends {
    fn labels(&self, flags: &'static str) -> Labels {
        let source = self.baggage.as_ref().filter(|_| self.source.is_none()).map_or_else(
            || end(self.source.as_deref(), self.source_identity.as_ref()),
            |baggage| End::said(baggage, self.source_identity.as_ref(), text(self.source_identity.as_ref())),
        );
        Labels {
            reporter: self.reporter,
            source,
            destination: end(self.destination.as_deref(), self.destination_identity.as_ref()),
            service: ServiceLabels::of(self.service.as_deref()),
            mutual_tls: self.source_identity.is_some() && self.destination_identity.is_some(),
            flags,
        }
    }

    /// The pod of ours that it is about.
    fn about(&self) -> Option<About<'_>> {
        let own = match self.reporter {
            Reporter::Source => &self.source,
            Reporter::Destination | Reporter::Waypoint => &self.destination,
        };
        own.as_ref().map(|own| About { namespace: own.namespace(), name: &own.name })
    }

    fn write(&self, peer: PeerAddress, line: &mut Line<'_>) {
        line.bare("src.addr", peer);
        if let Some(source) = &self.source {
            line.text("src.workload", &source.name);
            line.text("src.namespace", source.namespace());
        } else if let Some(baggage) = self.baggage.as_deref().filter(|baggage| !baggage.workload.is_empty()) {
            line.text("src.workload", &baggage.workload);
            // What TLS proved goes over what is said.
            let proved = self.source_identity.as_ref().map(|identity| &**identity.namespace());
            line.text("src.namespace", proved.unwrap_or(&baggage.namespace));
        }
        if let Some(identity) = &self.source_identity {
            line.display("src.identity", identity);
        }
        line.bare("dst.addr", self.next_hop);
        if let Some(authority) = &self.authority {
            line.bare("dst.hbone_addr", authority);
        }
        if let Some(service) = &self.service {
            line.text("dst.service", service.key.hostname());
        }
        if let Some(destination) = &self.destination {
            line.text("dst.workload", &destination.name);
            line.text("dst.namespace", destination.namespace());
        }
        if let Some(identity) = &self.destination_identity {
            line.display("dst.identity", identity);
        }
        let direction = match self.reporter {
            Reporter::Source => "outbound",
            Reporter::Destination | Reporter::Waypoint => "inbound",
        };
        line.text("direction", direction);
    }
}

fn end(workload: Option<&Workload>, principal: Option<&Identity>) -> End {
    let principal = text(principal);
    match workload {
        Some(workload) => End::of(workload, principal),
        None => End { principal, ..End::default() },
    }
}

fn text(principal: Option<&Identity>) -> Arc<str> {
    principal.map(|identity| identity.to_string().into()).unwrap_or_default()
}

/// A record on its way to another process.
#[derive(Debug)]
pub(crate) struct Travelling {
    /// The client's address.
    pub(crate) peer: PeerAddress,
    /// Who is at the ends.
    pub(crate) ends: Ends,
    /// How long ago it was opened.
    pub(crate) age: Duration,
    /// Bytes that have been counted: sent and received.
    pub(crate) counted: (u64, u64),
}

/// One connection from the moment its ends are known until it has ended. Dropping it without an end counts it as
/// closed, so that no count of open connections can drift.
#[derive(Debug)]
pub(crate) struct Record {
    peer: PeerAddress,
    shared: Arc<Shared>,
    started: Instant,
    counted: Cell<(u64, u64)>,
    established: Cell<bool>,
    ended: Cell<bool>,
}

impl Record {
    /// Counts a client's connection as opened.
    pub(crate) fn open(peer: PeerAddress, ends: Ends, agent: &Arc<Agent>) -> Self {
        let shared = Shared::of(ends, agent);
        shared.series.opened.fetch_add(1, Ordering::Relaxed);
        agent.traffic.sockets_open(shared.ends.reporter).fetch_add(1, Ordering::Relaxed);
        Self {
            peer,
            shared,
            started: Instant::now(),
            counted: Cell::default(),
            established: Cell::new(false),
            ended: Cell::new(false),
        }
    }

    /// It goes another way than it was opened for, before it was there; it is the same connection.
    pub(crate) fn rerouted(&mut self, ends: Ends, agent: &Arc<Agent>) {
        self.shared = Shared::of(ends, agent);
    }

    /// What another process that goes on with it has to know.
    pub(crate) fn luggage(&self, live: &Live) -> Travelling {
        self.count(live);
        let (peer, ends) = (self.peer, self.shared.ends.clone());
        Travelling { peer, ends, age: self.started.elapsed(), counted: self.counted.get() }
    }

    /// It has gone to another process: it is neither open here any more nor closed.
    pub(crate) fn leave(self) {
        self.ended.set(true);
        self.closed_a_socket();
    }

    /// Goes on with one of another process. It counts as opened here, so that this process's counters say how many are
    /// open.
    pub(crate) fn arrive(travelled: Travelling, agent: &Arc<Agent>) -> Self {
        let Travelling { peer, ends, age, counted } = travelled;
        let mut record = Self::open(peer, ends, agent);
        let now = Instant::now();
        record.started = now.checked_sub(age).unwrap_or(now);
        record.counted.set(counted);
        record.established.set(true);
        record
    }

    /// Who is at the ends.
    pub(crate) fn ends(&self) -> &Ends {
        &self.shared.ends
    }

    /// The client's address.
    pub(crate) fn peer(&self) -> PeerAddress {
        self.peer
    }

    /// When it was opened.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The connection carries bytes from now on.
    pub(crate) fn established(&self) {
        self.established.set(true);
    }

    /// Brings the counters of bytes up to date (long connections are counted while they last) and returns how many our
    /// application has sent and received since the last time.
    pub(crate) fn count(&self, live: &Live) -> (u64, u64) {
        let (sent, received) = self.counted.get();
        let now = (live.sent(), live.received());
        self.counted.set(now);
        let (sent, received) = (now.0 - sent, now.1 - received);
        // What our application sends goes from the client to the server where it is the client.
        let (to_server, to_client) = match self.ends().reporter {
            Reporter::Source => (sent, received),
            Reporter::Destination | Reporter::Waypoint => (received, sent),
        };
        self.shared.series.received.fetch_add(to_server, Ordering::Relaxed);
        self.shared.series.sent.fetch_add(to_client, Ordering::Relaxed);
        (sent, received)
    }

    /// Ends the record: the counters, and the line in the access log.
    pub(crate) fn end(self, live: Option<&Live>, failure: Option<&Failure>) {
        if let Some(live) = live {
            self.count(live);
        }
        let flags = failure.map_or(flags::NONE, |failure| failure.flags);
        self.close(flags);
        self.remember(failure);
        let level = match failure {
            Some(_) => Level::ERROR,
            None => Level::INFO,
        };
        if !self.shared.agent.log.access_enabled(level) {
            return;
        }
        let (sent, received) = self.counted.get();
        let millis = self.started.elapsed().as_millis();
        self.shared.agent.log.access(self.ends().about(), level, "connection complete", |line| {
            self.ends().write(self.peer, line);
            line.number("bytes_sent", sent);
            line.number("bytes_recv", received);
            line.display("duration", format_args!("{millis}ms"));
            if let Some(failure) = failure {
                line.text("error", &failure.error);
            }
        });
    }

    /// Keeps what was decided for who asks later.
    fn remember(&self, failure: Option<&Failure>) {
        let decisions = &self.shared.agent.decisions;
        if decisions.is_on() {
            let decided = Decided::new(self.peer, self.ends(), self.started.elapsed(), failure);
            let went_well = decided.went_well();
            decisions.push(decided, went_well);
        }
    }

    fn close(&self, flags: &'static str) {
        if self.ended.replace(true) {
            return;
        }
        self.closed_a_socket();
        let Shared { ends, series, agent } = &*self.shared;
        let other = (flags != flags::NONE).then(|| agent.traffic.series(&ends.labels(flags)));
        let series = other.as_ref().unwrap_or(series);
        series.closed.fetch_add(1, Ordering::Relaxed);
        if !self.established.get() && flags != flags::NONE {
            series.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn closed_a_socket(&self) {
        let open = self.shared.agent.traffic.sockets_open(self.shared.ends.reporter);
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.close(flags::NONE);
    }
}

/// Why a connection failed: what is counted and what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The flag it counts under.
    pub(crate) flags: &'static str,
    /// The text.
    pub(crate) error: String,
}

impl Failure {
    /// A failure with its flag.
    pub(crate) fn new(flags: &'static str, error: impl std::fmt::Display) -> Self {
        Self { flags, error: error.to_string() }
    }
}

/// A connection of a pod that failed before its ends were known: a warning, no series.
pub(crate) fn refused_early(
    agent: &Agent,
    pod: &Pod,
    direction: &str,
    peer: PeerAddress,
    destination: SocketAddr,
    error: &str,
) {
    let about = About { namespace: &pod.namespace, name: &pod.name };
    agent.log.access(Some(about), Level::WARN, "connection failed", |line| {
        line.display("src.addr", peer);
        line.display("dst.addr", destination);
        line.text("direction", direction);
        line.text("error", error);
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use daemon::log::Format;

    use super::*;

    /// A connection that arrived, of a client that proved who it is and of whom nothing more is known.
    pub(crate) fn arriving(source_identity: Identity) -> Ends {
        Ends {
            reporter: Reporter::Destination,
            source: None,
            baggage: None,
            source_identity: Some(source_identity),
            next_hop: NextHop::new(SocketAddr::from(([10, 0, 0, 9], 4711))),
            authority: None,
            destination: None,
            destination_identity: None,
            service: None,
            delivered: None,
        }
    }

    #[test]
    fn a_client_is_not_logged_under_a_namespace_that_its_certificate_does_not_name() {
        let said = "k8s.namespace.name=payments,k8s.pod.name=till";
        let address = SocketAddr::from(([10, 0, 0, 9], 4711));
        let ends = Ends {
            baggage: Some(Box::new(Baggage::read(std::iter::once(said.as_bytes())))),
            ..arriving(Identity::new("cluster.local", "shop", "visitor"))
        };
        let mut text = Vec::new();
        let mut line = Line::begin(&mut text, Format::Plain, Level::INFO, "access", "connection complete");
        ends.write(PeerAddress::new(address), &mut line);
        line.end();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("src.namespace=\"shop\"") && !text.contains("payments"), "{text}");
    }
}
