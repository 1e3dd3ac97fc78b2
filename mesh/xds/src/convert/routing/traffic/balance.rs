//! How an endpoint is chosen.

use model::traffic::{
    Algorithm, ConsistentHash, Distribute, Failover, HashAlgorithm, HashCookie, HashKey, LoadBalancer,
    LocalityLb, PriorityLabel, Warmup,
};
use proto::routing as wire;

use super::super::parts::{
    each, invalid, name, optional, optional_name, optional_time, percent, required, text, time, time_to_wire,
    unknown, within,
};
use super::{FieldError, Reason, Strings};

pub(super) fn load_balancer(
    strings: &mut Strings,
    wire: &wire::LoadBalancer,
) -> Result<LoadBalancer, FieldError> {
    use wire::load_balancer::Algorithm as Wire;
    let algorithm = match required("algorithm", wire.algorithm.as_ref())? {
        Wire::Simple(number) => simple(*number)?,
        Wire::ConsistentHash(one) => consistent_hash(strings, one)
            .map(Algorithm::ConsistentHash)
            .map_err(|error| error.within("consistent_hash"))?,
    };
    Ok(LoadBalancer {
        algorithm,
        locality: optional("locality", wire.locality.as_ref(), |one| locality(strings, one))?,
        warmup: optional("warmup", wire.warmup.as_ref(), warmup)?,
    })
}

fn simple(number: i32) -> Result<Algorithm, FieldError> {
    match wire::Simple::try_from(number) {
        Ok(wire::Simple::LeastRequest) => Ok(Algorithm::LeastRequest),
        Ok(wire::Simple::RoundRobin) => Ok(Algorithm::RoundRobin),
        Ok(wire::Simple::Random) => Ok(Algorithm::Random),
        Ok(wire::Simple::Passthrough) => Ok(Algorithm::Passthrough),
        Ok(wire::Simple::Unspecified) | Err(_) => Err(unknown("simple", number)),
    }
}

fn consistent_hash(strings: &mut Strings, wire: &wire::ConsistentHash) -> Result<ConsistentHash, FieldError> {
    use wire::consistent_hash::{Algorithm as Wire, Key};
    let key = match required("key", wire.key.as_ref())? {
        Key::Header(header) => HashKey::Header(name(strings, "header", header)?),
        Key::Cookie(one) => HashKey::Cookie(cookie(strings, one).map_err(|error| error.within("cookie"))?),
        Key::SourceIp(true) => HashKey::SourceIp,
        Key::SourceIp(false) => return Err(FieldError::new("source_ip", Reason::Missing)),
        Key::QueryParameter(parameter) => {
            HashKey::QueryParameter(name(strings, "query_parameter", parameter)?)
        }
    };
    let algorithm = match required("algorithm", wire.algorithm.as_ref())? {
        Wire::RingSize(minimum_size) => HashAlgorithm::Ring { minimum_size: *minimum_size },
        Wire::MaglevTableSize(table_size) => HashAlgorithm::Maglev { table_size: *table_size },
    };
    if !algorithm.is_valid() {
        return Err(invalid(
            "algorithm",
            "the ring is too large, or the table, or its length is no prime number",
        ));
    }
    Ok(ConsistentHash { key, algorithm })
}

fn cookie(strings: &mut Strings, wire: &wire::HashCookie) -> Result<HashCookie, FieldError> {
    Ok(HashCookie {
        name: name(strings, "name", &wire.name)?,
        path: optional_name(strings, "path", wire.path.as_ref())?,
        ttl: optional_time("ttl", wire.ttl.as_ref())?,
        attributes: each("attributes", &wire.attributes, |one| {
            let value = one.value.as_deref().map(|value| strings.get(value));
            Ok((name(strings, "name", &one.name)?, value))
        })?,
    })
}

fn locality(strings: &mut Strings, wire: &wire::LocalityLb) -> Result<LocalityLb, FieldError> {
    Ok(LocalityLb {
        enabled: wire.enabled,
        distribute: each("distribute", &wire.distribute, |one| distribute(strings, one))?,
        failover: each("failover", &wire.failover, |one| {
            Ok(Failover { from: name(strings, "from", &one.from)?, to: name(strings, "to", &one.to)? })
        })?,
        failover_priority: each("failover_priority", &wire.failover_priority, |one| {
            let value = one.value.as_deref().map(|value| strings.get(value));
            Ok(PriorityLabel { name: name(strings, "name", &one.name)?, value })
        })?,
    })
}

fn distribute(strings: &mut Strings, wire: &wire::Distribute) -> Result<Distribute, FieldError> {
    let to = each("to", &wire.to, |one| {
        Ok((name(strings, "locality", &one.locality)?, percent("percent", one.percent)?))
    })?;
    let sum: u32 = to.iter().fold(0, |sum, (_, percent)| sum.saturating_add(*percent));
    if sum != 100 {
        return Err(invalid("to", format_args!("the portions add up to {sum} percent, not to 100")));
    }
    Ok(Distribute { from: name(strings, "from", &wire.from)?, to })
}

fn warmup(wire: &wire::Warmup) -> Result<Warmup, FieldError> {
    Ok(Warmup {
        duration: time("duration", wire.duration.as_ref())?,
        minimum_percent: within("minimum_percent", wire.minimum_percent, 0.0, 100.0)?,
        aggression: within("aggression", wire.aggression, 1.0, f64::MAX)?,
    })
}

pub(super) fn load_balancer_to_wire(one: &LoadBalancer) -> wire::LoadBalancer {
    use wire::load_balancer::Algorithm as Wire;
    let simple = |simple: wire::Simple| Wire::Simple(simple.into());
    wire::LoadBalancer {
        algorithm: Some(match &one.algorithm {
            Algorithm::LeastRequest => simple(wire::Simple::LeastRequest),
            Algorithm::RoundRobin => simple(wire::Simple::RoundRobin),
            Algorithm::Random => simple(wire::Simple::Random),
            Algorithm::Passthrough => simple(wire::Simple::Passthrough),
            Algorithm::ConsistentHash(hash) => Wire::ConsistentHash(consistent_hash_to_wire(hash)),
        }),
        locality: one.locality.as_ref().map(locality_to_wire),
        warmup: one.warmup.map(|one| wire::Warmup {
            duration: Some(time_to_wire(one.duration)),
            minimum_percent: one.minimum_percent,
            aggression: one.aggression,
        }),
    }
}

fn consistent_hash_to_wire(one: &ConsistentHash) -> wire::ConsistentHash {
    use wire::consistent_hash::{Algorithm as Wire, Key};
    wire::ConsistentHash {
        key: Some(match &one.key {
            HashKey::Header(header) => Key::Header(text(header)),
            HashKey::Cookie(cookie) => Key::Cookie(cookie_to_wire(cookie)),
            HashKey::SourceIp => Key::SourceIp(true),
            HashKey::QueryParameter(parameter) => Key::QueryParameter(text(parameter)),
        }),
        algorithm: Some(match one.algorithm {
            HashAlgorithm::Ring { minimum_size } => Wire::RingSize(minimum_size),
            HashAlgorithm::Maglev { table_size } => Wire::MaglevTableSize(table_size),
        }),
    }
}

fn cookie_to_wire(one: &HashCookie) -> wire::HashCookie {
    let attributes = one
        .attributes
        .iter()
        .map(|(name, value)| wire::CookieAttribute { name: text(name), value: value.as_ref().map(text) });
    wire::HashCookie {
        name: text(&one.name),
        path: one.path.as_ref().map(text),
        ttl: one.ttl.map(time_to_wire),
        attributes: attributes.collect(),
    }
}

fn locality_to_wire(one: &LocalityLb) -> wire::LocalityLb {
    let distribute = |one: &Distribute| wire::Distribute {
        from: text(&one.from),
        to: one
            .to
            .iter()
            .map(|(place, percent)| wire::Portion { locality: text(place), percent: *percent })
            .collect(),
    };
    let failover = |one: &Failover| wire::Failover { from: text(&one.from), to: text(&one.to) };
    let label = |one: &PriorityLabel| wire::PriorityLabel {
        name: text(&one.name),
        value: one.value.as_ref().map(text),
    };
    wire::LocalityLb {
        enabled: one.enabled,
        distribute: one.distribute.iter().map(distribute).collect(),
        failover: one.failover.iter().map(failover).collect(),
        failover_priority: one.failover_priority.iter().map(label).collect(),
    }
}
