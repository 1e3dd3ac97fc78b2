//! A routing for a reader that does not understand all of it. What only comes on top (mirrors, retries, limits) is left
//! out; where a request would go elsewhere or arrive otherwise than written, it is refused instead, by a rule that names
//! what is missing. Rules for connections are left out: who does not know them knows no refusal of them either, and the
//! status of their object says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::address::{NamespacedHostname, Str};
use model::route::{Action, Destination as To, Destinations, Forward, HttpRule, Routing};
use model::traffic::{
    Algorithm, ClientTls, ConnectionPool, Destination, HashKey, LoadBalancer, OutlierDetection, TrafficPolicy,
};
use prost::Message;

use super::{Feature, is_another_tls, of_forward, of_rule};
use crate::convert::Decoder;
use crate::delta::store::Resource;

/// What makes a request go elsewhere or arrive otherwise, if it is overlooked.
const ESSENTIAL: [Feature; 5] =
    [Feature::Redirect, Feature::DirectResponse, Feature::Rewrite, Feature::RegexRewrite, Feature::Headers];

/// The `requires` of a routing alone.
#[derive(Clone, PartialEq, Message)]
struct Requires {
    #[prost(string, repeated, tag = "1")]
    requires: Vec<String>,
}

/// The resource of a routing as it is sent to a reader that lacks some features; `None` where nothing of it needs them.
pub fn lesser(resource: &Resource, lacks: &[Feature]) -> Option<Resource> {
    let value: &Bytes = resource.value();
    let Requires { requires } = Requires::decode(value.clone()).ok()?;
    if !requires.iter().any(|name| lacks.iter().any(|feature| feature.name() == name)) {
        return None;
    }
    // What the controller wrote it can read.
    let routing = Decoder::default().routing(resource.name(), value.clone()).ok()?;
    Some(crate::convert::resource::routing(&without(&routing, lacks)))
}

/// A routing that requires nothing of what is lacking.
#[must_use]
pub fn without(routing: &Routing, lacks: &[Feature]) -> Routing {
    let lesser = Lesser { lacks, destinations: &routing.destinations };
    let destinations = match lesser.lacks(Feature::TrafficPolicy) {
        true => BTreeMap::new(),
        false => {
            routing.destinations.iter().map(|(host, one)| (host.clone(), lesser.policies(one))).collect()
        }
    };
    Routing {
        host: routing.host.clone(),
        http: lesser.list(Feature::Http, &routing.http, |rule| lesser.rule(rule)),
        tls: lesser.list(Feature::Tls, &routing.tls, Clone::clone),
        tcp: lesser.list(Feature::Tcp, &routing.tcp, Clone::clone),
        default: routing.default.as_deref().map(|forward| Box::new(lesser.forward(forward))),
        destinations,
    }
}

struct Lesser<'a> {
    lacks: &'a [Feature],
    destinations: &'a BTreeMap<NamespacedHostname, Arc<Destination>>,
}

impl Lesser<'_> {
    fn lacks(&self, feature: Feature) -> bool {
        self.lacks.contains(&feature)
    }

    fn list<T>(&self, of: Feature, rules: &[T], each: impl Fn(&T) -> T) -> Box<[T]> {
        if self.lacks(of) { Box::default() } else { rules.iter().map(each).collect() }
    }

    fn rule(&self, rule: &HttpRule) -> HttpRule {
        let mut needed = Vec::new();
        of_rule(rule, &mut needed);
        let mut rule = rule.clone();
        if let Some(missing) = self.essential(&needed) {
            rule.action =
                Action::Forward(Box::new(Forward { missing: [missing].into(), ..Forward::default() }));
            rule.headers = model::route::HeaderChanges::default();
        } else if let Action::Forward(forward) = &rule.action {
            rule.action = Action::Forward(Box::new(self.forward(forward)));
        }
        rule.fault = rule.fault.filter(|_| !self.lacks(Feature::Fault));
        rule.cors = rule.cors.filter(|_| !self.lacks(Feature::Cors));
        rule
    }

    /// What a rule needs that may not be overlooked, in words.
    fn essential(&self, needed: &[Feature]) -> Option<Str> {
        let feature = needed.iter().find(|one| ESSENTIAL.contains(one) && self.lacks(**one))?;
        Some(refusal(*feature))
    }

    fn forward(&self, forward: &Forward) -> Forward {
        let mut needed = Vec::new();
        of_forward(forward, &mut needed);
        if let Some(missing) = self.essential(&needed) {
            return Forward { missing: [missing].into(), ..Forward::default() };
        }
        let mut forward = forward.clone();
        forward.retry = forward.retry.filter(|_| !self.lacks(Feature::Retry));
        let mirrors = forward
            .mirrors
            .iter()
            .filter(|mirror| !self.lacks(Feature::Mirror) && self.unreachable(&mirror.destination).is_none());
        forward.mirrors = mirrors.cloned().collect();
        let mut missing = forward.missing.to_vec();
        forward.destinations = self.reachable(&forward.destinations, &mut missing);
        forward.missing = missing.into();
        forward
    }

    /// The destinations that can be reached as written.
    fn reachable(&self, destinations: &Destinations, missing: &mut Vec<Str>) -> Destinations {
        let mut refused = |to: &To| {
            let feature = self.unreachable(to)?;
            missing.push(format!("{}, for {}", refusal(feature), to.service).into());
            Some(feature)
        };
        match destinations {
            Destinations::One(one) if refused(one).is_some() => Destinations::default(),
            Destinations::One(one) => Destinations::One(one.clone()),
            Destinations::Split(all) => {
                let kept = all.iter().filter(|one| refused(&one.destination).is_none());
                Destinations::Split(kept.cloned().collect())
            }
        }
    }

    /// What of a destination's policy says how it is spoken to, and is lacking.
    fn unreachable(&self, to: &To) -> Option<Feature> {
        if to.subset.is_some() && self.lacks(Feature::TrafficPolicy) {
            return Some(Feature::TrafficPolicy);
        }
        let rule = self.destinations.get(&to.service)?;
        let subset = to.subset.as_deref().and_then(|name| rule.subset(name));
        // Without a port it is the one that the client wants: any that something is said of.
        let policies = [Some(&rule.policy), subset.and_then(|subset| subset.policy.as_ref())];
        let said =
            policies.into_iter().flatten().flat_map(|policy| policy.ports.iter().map(|port| port.port));
        let ports: Vec<u16> = to.port.map_or_else(|| said.chain([0]).collect(), |port| vec![port]);
        ports.into_iter().find_map(|port| {
            let policy = rule.effective(subset, port);
            let tls = policy.tls.as_ref().is_some_and(is_another_tls).then_some(Feature::EndpointTls);
            let proxy = policy.proxy_protocol.map(|_| Feature::ProxyProtocol);
            tls.into_iter().chain(proxy).find(|feature| self.lacks(*feature))
        })
    }

    fn policies(&self, destination: &Arc<Destination>) -> Arc<Destination> {
        let mut lesser = Destination::clone(destination);
        lesser.health_check.take_if(|_| self.lacks(Feature::HealthCheck));
        self.policy(&mut lesser.policy);
        lesser
            .subsets
            .iter_mut()
            .filter_map(|subset| subset.policy.as_mut())
            .for_each(|one| self.policy(one));
        Arc::new(lesser)
    }

    fn policy(&self, policy: &mut TrafficPolicy) {
        let TrafficPolicy {
            load_balancer,
            connection_pool,
            outlier_detection,
            tls,
            retry_budget,
            proxy_protocol,
            ports,
        } = policy;
        self.sections(load_balancer, connection_pool, outlier_detection, tls);
        retry_budget.take_if(|_| self.lacks(Feature::RetryBudget));
        proxy_protocol.take_if(|_| self.lacks(Feature::ProxyProtocol));
        for port in ports {
            self.sections(
                &mut port.load_balancer,
                &mut port.connection_pool,
                &mut port.outlier_detection,
                &mut port.tls,
            );
        }
    }

    /// What can stand for all ports and for one.
    fn sections(
        &self,
        balancer: &mut Option<LoadBalancer>,
        pool: &mut Option<ConnectionPool>,
        outliers: &mut Option<OutlierDetection>,
        tls: &mut Option<ClientTls>,
    ) {
        pool.take_if(|_| self.lacks(Feature::ConnectionPool));
        outliers.take_if(|_| self.lacks(Feature::OutlierDetection));
        tls.take_if(|tls| self.lacks(Feature::EndpointTls) && is_another_tls(tls));
        if self.lacks(Feature::HashCookie)
            && let Some(LoadBalancer { algorithm: Algorithm::ConsistentHash(hash), .. }) = balancer
            && let HashKey::Cookie(cookie) = &mut hash.key
        {
            cookie.ttl = None;
        }
    }
}

/// What is said in the place of what was written.
fn refusal(feature: Feature) -> Str {
    format!("{feature}, which this waypoint does not understand").into()
}
