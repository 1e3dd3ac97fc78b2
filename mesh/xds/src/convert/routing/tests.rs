//! What is read of the wire and written to it, field by field, and what is refused.

pub(in crate::convert::routing) mod full;
mod policies;
mod rules;

use bytes::Bytes;
use model::address::Str;
use model::route::{RetryOn, RetryPolicy, Routing};
use model::traffic::Probe;
use proptest::prelude::*;
use prost::Message;
use proto::routing as wire;
use proto::type_url;

use self::full::{full, health_check, host};
use super::{FieldError, Reason, Strings, features, read, to_wire};
use crate::convert::{Decoder, resource};

const NAME: &str = "default/reviews.default.svc.cluster.local";

fn read_back(wire: &wire::Routing) -> Result<Routing, FieldError> {
    read(&mut Strings::default(), NAME, wire.encode_to_vec().into())
}

fn bare() -> Routing {
    Routing {
        host: full().host,
        http: Box::default(),
        tls: Box::default(),
        tcp: Box::default(),
        default: None,
        destinations: std::collections::BTreeMap::new(),
    }
}

#[test]
fn reads_what_it_writes() {
    assert_eq!(read_back(&to_wire(&full())), Ok(full()));
    assert_eq!(read_back(&to_wire(&bare())), Ok(bare()));
    // One rule at a time, so that none hides what another lost.
    for rule in full().http {
        let one = Routing { http: [rule].into(), ..bare() };
        assert_eq!(read_back(&to_wire(&one)), Ok(one));
    }
}

#[test]
fn retries_of_each_condition_come_back() {
    for condition in model::route::retry::RetryCondition::ALL {
        let mut routing = Routing { default: full().default, ..bare() };
        let policy =
            RetryPolicy { on: [condition].into_iter().collect::<RetryOn>(), ..RetryPolicy::default() };
        let forward = routing.default.as_mut().unwrap();
        forward.retry = Some(policy.into());
        let wire = to_wire(&routing);
        assert_eq!(read_back(&wire), Ok(routing));
        // The number on the wire has the same name.
        let number = wire.default.unwrap().retry.unwrap().on[0];
        let name = wire::RetryCondition::try_from(number).unwrap().as_str_name();
        assert_eq!(name.to_lowercase().replace('_', "-"), condition.name().replace("5xx", "five-xx"));
    }
    // The default is shared.
    let read = read_back(&to_wire(&full())).unwrap();
    let shared = read.default.unwrap().retry.unwrap();
    assert!(std::sync::Arc::ptr_eq(&shared, &RetryPolicy::shared_default()));
}

#[test]
fn probes_of_each_kind_come_back() {
    for probe in [
        Probe::Tcp { port: 1 },
        Probe::Grpc { port: 65_535, service: "".into() },
        Probe::Grpc { port: 9000, service: "shop.Cart".into() },
        Probe::Http { port: 80, path: "/".into(), headers: Box::default() },
    ] {
        let destination =
            model::traffic::Destination { health_check: Some(health_check(probe)), ..Default::default() };
        let routing =
            Routing { destinations: [(host("reviews"), std::sync::Arc::new(destination))].into(), ..bare() };
        assert_eq!(to_wire(&routing).requires[1..], ["lateen.dev/routing.health-check"]);
        assert_eq!(read_back(&to_wire(&routing)), Ok(routing));
    }
}

#[test]
fn equal_routings_have_equal_versions() {
    let (one, two) = (resource::routing(&full()), resource::routing(&full()));
    assert_eq!(one, two);
    assert_ne!(one, resource::routing(&bare()));
    // Also after having been read, by whoever.
    assert_eq!(resource::routing(&read_back(&to_wire(&full())).unwrap()), one);
}

#[test]
fn objects_are_named_once() {
    let wire = to_wire(&full());
    let names: Vec<&str> = wire.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["reviews", "reviews-more", "reviews-tcp"]);
    assert_eq!(wire.http[1].source.unwrap(), wire::Source { resource: 1, index: 0 });
    assert_eq!(wire.http[4].source.unwrap(), wire::Source { resource: 0, index: 4 });
}

#[test]
fn says_what_it_requires() {
    assert_eq!(to_wire(&bare()).requires, [""; 0]);
    assert_eq!(to_wire(&full()).requires, features::Feature::ALL.map(features::Feature::name));
    let default = Routing { default: full().default, ..bare() };
    assert_eq!(to_wire(&default).requires, ["lateen.dev/routing.retry"]);
    let mut wire = to_wire(&bare());
    wire.requires.push("lateen.dev/routing.rate-limit".into());
    let refused = read_back(&wire).unwrap_err();
    assert_eq!(refused.reason, Reason::Required("lateen.dev/routing.rate-limit".into()));
    assert!(refused.reason.to_string().contains("upgrade this proxy"));
}

/// A way to spoil a routing.
type Spoil = fn(&mut wire::Routing);

/// Spoils a routing in each way and finds the field blamed.
fn refused(cases: &[(&str, Spoil)]) {
    for (place, (field, spoil)) in cases.iter().enumerate() {
        let mut wire = to_wire(&full());
        spoil(&mut wire);
        let found = read_back(&wire).map_err(|error| error.field.into_owned());
        assert_eq!(found, Err((*field).to_owned()), "case {place}");
    }
}

fn no_time() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: -1, nanos: 0 })
}

#[test]
fn refuses_what_it_does_not_know() {
    const UNKNOWN: [u8; 4] = [0xa2, 0x06, 0x01, b'x']; // field 100: "x"
    let bytes = to_wire(&full()).encode_to_vec();
    let read =
        |bytes: Vec<u8>| read(&mut Strings::default(), NAME, bytes.into()).map_err(|error| error.reason);
    assert!(read(bytes.clone()).is_ok());
    // Beside the others, within a rule, and what is said twice, of which a decoder keeps the last.
    assert_eq!(read([&bytes[..], &UNKNOWN].concat()), Err(Reason::UnknownFields));
    let rule = [&[0x2a, 4][..], &UNKNOWN].concat();
    let source = wire::Routing { http: vec![wire::HttpRule::default()], ..wire::Routing::default() };
    assert_eq!(source.encode_to_vec(), [0x2a, 0]);
    assert_eq!(read([&bytes[..], &rule].concat()), Err(Reason::UnknownFields));
    let twice = wire::Routing { hostname: "reviews".into(), ..wire::Routing::default() }.encode_to_vec();
    assert_eq!(read([&twice[..], &bytes[..]].concat()), Err(Reason::UnknownFields));
    assert!(matches!(read(bytes[..bytes.len() - 1].to_vec()), Err(Reason::Malformed(_))));
}

/// A resource that a waypoint has room for is bounded in what becomes of it: each of these patterns may be there.
#[test]
fn patterns_that_are_too_large_together_refuse_the_resource() {
    let pattern = |count: usize| "[0-9]{1000}".repeat(count);
    let with = |patterns: usize| {
        let one = |number| wire::HttpMatch {
            path: Some(wire::PathMatch {
                kind: Some(wire::path_match::Kind::Regex(format!("/{number}{}", pattern(10)))),
            }),
            ..wire::HttpMatch::default()
        };
        let mut wire = to_wire(&bare());
        let full = to_wire(&full());
        let rule = wire::HttpRule { matches: (0..patterns).map(one).collect(), ..full.http[4].clone() };
        (wire.sources, wire.http) = (full.sources, vec![rule]);
        read_back(&wire)
    };
    assert_eq!(with(4).map(|routing| routing.http[0].matches.len()), Ok(4));
    let refused = with(200).unwrap_err();
    assert!(refused.field.starts_with("http[0].matches["), "{}", refused.field);
    assert!(refused.reason.to_string().contains("too large together"), "{}", refused.reason);
}

#[test]
fn the_decoder_reads_it_and_its_removal() {
    let mut decoder = Decoder::default();
    let name = Str::from(NAME);
    let value = Bytes::from(to_wire(&full()).encode_to_vec());
    assert_eq!(decoder.routing(&name, value.clone()), Ok(full()));
    assert_eq!(decoder.routing_removal(&name), Some(host("reviews.default.svc.cluster.local")));
    let refused = decoder.routing(&"default/other".into(), value.clone()).unwrap_err();
    assert_eq!(refused.error.resource, "default/other");
    assert_eq!(refused.instead, None);
    // It is no part of the mesh that agents know, and nothing that they are to take.
    assert!(decoder.decode(type_url::ROUTING, &name, value).is_err());
    assert_eq!(decoder.routing_removal(&"reviews".into()), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Bytes that went wrong are refused or are another routing; nothing else happens, and what is read is what was sent.
    #[test]
    fn spoilt_bytes_break_nothing(at in any::<proptest::sample::Index>(), bits in 1_u8.., cut in any::<proptest::sample::Index>()) {
        let mut bytes = to_wire(&full()).encode_to_vec();
        let place = at.index(bytes.len());
        bytes[place] ^= bits;
        let mut strings = Strings::default();
        if let Ok(routing) = read(&mut strings, NAME, bytes.clone().into()) {
            prop_assert_eq!(read_back(&to_wire(&routing)), Ok(routing));
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = read(&mut strings, NAME, bytes.into());
    }
}
