//! Which endpoint is chosen, in the model's words.

use manifest::istio;
use model::traffic::{
    Algorithm, ConsistentHash, Distribute, Failover, HashAlgorithm, HashCookie, HashKey, LoadBalancer,
    LocalityLb, PriorityLabel, Warmup,
};

use super::super::layer4;

/// A `loadBalancer`.
pub(super) fn load_balancer(written: &istio::LoadBalancer) -> LoadBalancer {
    let hash = written.consistent_hash.as_ref().and_then(consistent_hash);
    let algorithm = match (hash, written.simple) {
        (Some(hash), _) => Algorithm::ConsistentHash(hash),
        (None, Some(istio::SimpleLb::Random)) => Algorithm::Random,
        (None, Some(istio::SimpleLb::Passthrough)) => Algorithm::Passthrough,
        (None, Some(istio::SimpleLb::RoundRobin)) => Algorithm::RoundRobin,
        (
            None,
            None
            | Some(istio::SimpleLb::Unspecified | istio::SimpleLb::LeastConn | istio::SimpleLb::LeastRequest),
        ) => Algorithm::LeastRequest,
    };
    let old = written.warmup_duration_secs.map(|duration| Warmup::of(duration.0));
    LoadBalancer {
        algorithm,
        locality: written.locality_lb_setting.as_ref().map(locality),
        warmup: written.warmup.and_then(warmup).or(old),
    }
}

fn warmup(written: istio::Warmup) -> Option<Warmup> {
    let usual = Warmup::of(written.duration?.0);
    Some(Warmup {
        minimum_percent: written.minimum_percent.unwrap_or(usual.minimum_percent),
        aggression: written.aggression.unwrap_or(usual.aggression),
        ..usual
    })
}

/// `None` where no key is said, or `useSourceIp: false`.
fn consistent_hash(written: &istio::ConsistentHash) -> Option<ConsistentHash> {
    let header = written.http_header_name.as_deref().map(|name| HashKey::Header(name.into()));
    let cookie = || written.http_cookie.as_ref().map(|written| HashKey::Cookie(cookie(written)));
    let source = || (written.use_source_ip == Some(true)).then_some(HashKey::SourceIp);
    let query =
        || written.http_query_parameter_name.as_deref().map(|name| HashKey::QueryParameter(name.into()));
    let key = header.or_else(cookie).or_else(source).or_else(query)?;
    let algorithm = match (&written.maglev, &written.ring_hash, written.minimum_ring_size) {
        (Some(maglev), _, _) => HashAlgorithm::Maglev {
            table_size: maglev.table_size.unwrap_or(HashAlgorithm::DEFAULT_TABLE_SIZE),
        },
        (None, ring, old) => {
            let size = ring.and_then(|ring| ring.minimum_ring_size).or(old);
            let size = size.filter(|size| *size > 0).unwrap_or(HashAlgorithm::DEFAULT_RING_SIZE);
            HashAlgorithm::Ring { minimum_size: size.min(HashAlgorithm::LARGEST_RING) }
        }
    };
    Some(ConsistentHash { key, algorithm })
}

fn cookie(written: &istio::HttpCookie) -> HashCookie {
    let attribute = |one: &istio::CookieAttribute| (one.name.as_str().into(), layer4::word(&one.value));
    HashCookie {
        name: written.name.as_str().into(),
        path: layer4::word(&written.path),
        ttl: written.ttl.map(|ttl| ttl.0),
        attributes: written.attributes.iter().map(attribute).collect(),
    }
}

fn locality(written: &istio::LocalityLb) -> LocalityLb {
    let priority = |text: &String| match text.split_once('=') {
        Some((name, value)) => PriorityLabel { name: name.into(), value: Some(value.into()) },
        None => PriorityLabel { name: text.as_str().into(), value: None },
    };
    let distribute = |one: &istio::Distribute| Distribute {
        from: one.from.as_str().into(),
        to: one.to.iter().map(|(place, share)| (place.as_str().into(), *share)).collect(),
    };
    let failover =
        |one: &istio::Failover| Failover { from: one.from.as_str().into(), to: one.to.as_str().into() };
    LocalityLb {
        enabled: written.enabled.unwrap_or(true),
        distribute: written.distribute.iter().map(distribute).collect(),
        failover: written.failover.iter().map(failover).collect(),
        failover_priority: written.failover_priority.iter().map(priority).collect(),
    }
}
