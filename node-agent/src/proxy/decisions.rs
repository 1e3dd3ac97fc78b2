//! What this agent decided lately, for `lateen why`: a record of each connection, kept short, and made into words only
//! when somebody asks.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::metrics::traffic::Reporter;
use model::Identity;
use model::address::PeerAddress;
use model::service::Service;
use model::workload::Workload;
use proto::diagnostics::{Decision, DecisionQuery, Verdict};
use xds::diagnostics::{self, Answers, Ring, micros};

use super::Agent;
use super::authorize::by_policy;
use super::record::{Ends, Failure, flags};

/// A connection.
#[derive(Debug)]
pub(crate) struct Decided {
    at: SystemTime,
    duration: Duration,
    reporter: Reporter,
    peer: SocketAddr,
    source: Option<Arc<Workload>>,
    source_identity: Option<Identity>,
    destination: Option<Arc<Workload>>,
    destination_identity: Option<Identity>,
    address: SocketAddr,
    service: Option<Arc<Service>>,
    flags: &'static str,
    failure: Option<Box<str>>,
}

impl Decided {
    /// A connection that took so long until now.
    pub(crate) fn new(peer: PeerAddress, ends: &Ends, took: Duration, failure: Option<&Failure>) -> Self {
        let delivered = ends.delivered.map(|delivered| delivered.addr());
        Self {
            at: SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH),
            duration: took,
            reporter: ends.reporter,
            peer: peer.addr(),
            source: ends.source.clone(),
            source_identity: ends.source_identity.clone(),
            destination: ends.destination.clone(),
            destination_identity: ends.destination_identity.clone(),
            address: delivered.unwrap_or(ends.next_hop.addr()),
            service: ends.service.clone(),
            flags: failure.map_or(flags::NONE, |failure| failure.flags),
            failure: failure.map(|failure| failure.error.as_str().into()),
        }
    }

    /// Whether it went as it was to go.
    pub(crate) fn went_well(&self) -> bool {
        self.failure.is_none()
    }

    fn verdict(&self) -> Verdict {
        match (&self.failure, self.flags) {
            (None, _) => Verdict::Passed,
            // What the far end refused by a policy comes with its words.
            (Some(_), flags::DENY) => Verdict::Denied,
            (Some(failure), _) if by_policy(failure).is_some() => Verdict::Denied,
            (Some(_), _) => Verdict::Failed,
        }
    }

    fn is_meant(&self, query: &DecisionQuery) -> bool {
        let ends = [&self.source, &self.destination].into_iter().flatten();
        let namespaces = ends.map(|workload| &**workload.namespace());
        let namespaces = namespaces.chain(self.service.as_ref().map(|service| service.key.namespace()));
        // Requests have ids, and none is seen here.
        diagnostics::is_meant(query, self.at, "", namespaces, self.went_well())
    }

    fn told(&self) -> Decision {
        let peer = |workload: &Option<Arc<Workload>>, identity: &Option<Identity>, address| {
            let identity = identity.as_ref().map(|identity| identity as &dyn fmt::Display);
            diagnostics::peer(workload.as_deref(), identity, address)
        };
        let failure = self.failure.as_deref().unwrap_or_default();
        let policy = match self.verdict() {
            Verdict::Denied => by_policy(failure).unwrap_or(failure),
            _ => "",
        };
        let direction = if self.reporter == Reporter::Source { "outbound" } else { "inbound" };
        Decision {
            begun_micros: micros(self.at),
            duration_micros: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            direction: direction.to_owned(),
            client: Some(peer(&self.source, &self.source_identity, self.peer)),
            server: Some(peer(&self.destination, &self.destination_identity, self.address)),
            service: self
                .service
                .as_ref()
                .map(|service| service.key.hostname().to_owned())
                .unwrap_or_default(),
            flags: self.flags.to_owned(),
            verdict: self.verdict().into(),
            policy: policy.to_owned(),
            detail: failure.to_owned(),
            ..Decision::default()
        }
    }
}

/// Answers questions of people.
pub(crate) struct Desk(pub(crate) Arc<Agent>);

impl Answers for Desk {
    fn decisions(&self, query: &DecisionQuery) -> Vec<Decision> {
        newest(&self.0.decisions, query)
    }
}

fn newest(ring: &Ring<Decided>, query: &DecisionQuery) -> Vec<Decision> {
    diagnostics::newest([ring], query, |one| one.is_meant(query).then(|| one.told()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::record::tests::arriving;

    #[test]
    fn what_a_policy_refused_is_told_from_what_failed() {
        let ring = Ring::new(10);
        let ends = arriving(Identity::new("cluster.local", "shop", "cart"));
        let peer = PeerAddress::new(SocketAddr::from(([10, 0, 0, 1], 4711)));
        for (flags, error) in [
            (
                flags::DENY,
                Some("connection closed due to policy rejection: explicitly denied by: a/b (rule 0)"),
            ),
            (flags::CONNECT, Some("http status: 401: connection closed due to policy rejection: no rule")),
            (flags::DENY, Some("connection closed due to policy change: no longer allowed")),
            (flags::CONNECT, Some("connection refused")),
            (flags::CONNECT, Some("the pod is gone")),
            (flags::NONE, None),
        ] {
            let failure = error.map(|error| Failure::new(flags, error));
            let one = Decided::new(peer, &ends, Duration::from_millis(1), failure.as_ref());
            let well = one.went_well();
            ring.push(one, well);
        }
        let told = |query: DecisionQuery| -> Vec<(Verdict, String)> {
            newest(&ring, &query).into_iter().map(|one| (one.verdict(), one.policy)).collect()
        };
        let refused = told(DecisionQuery { refused_only: true, ..DecisionQuery::default() });
        assert_eq!(refused.len(), 5);
        assert!(refused.contains(&(Verdict::Denied, "no longer allowed".into())));
        assert!(refused.contains(&(Verdict::Denied, "explicitly denied by: a/b (rule 0)".into())));
        assert!(refused.contains(&(Verdict::Denied, "no rule".into())));
        assert!(refused.contains(&(Verdict::Failed, String::new())));
        assert_eq!(told(DecisionQuery::default()).len(), 6);
        assert_eq!(told(DecisionQuery { request_id: "x".into(), ..DecisionQuery::default() }).len(), 0);
        assert_eq!(told(DecisionQuery { namespace: "other".into(), ..DecisionQuery::default() }).len(), 0);
    }
}
