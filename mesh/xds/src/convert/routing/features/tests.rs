//! What is required, and what is left of a routing for who lacks some of it.

use std::sync::Arc;

use model::route::{HttpMatch, PathMatch, Routing};
use model::traffic::{ConnectionPool, OutlierDetection, TlsMode, TrafficPolicy};

use super::*;
use crate::convert::resource;
use crate::convert::routing::tests::full::{full, host};

fn missing(action: &Action) -> Vec<String> {
    let Action::Forward(forward) = action else { return Vec::new() };
    forward.missing.iter().map(ToString::to_string).collect()
}

#[test]
fn names_are_distinct_and_lead_back() {
    for feature in Feature::ALL {
        assert_eq!(Feature::named(feature.name()), Some(feature));
    }
    assert_eq!(Feature::named("lateen.dev/routing"), None);
    assert_eq!(Feature::carried().count() + NOT_CARRIED.len(), Feature::ALL.len(), "one is there twice");
}

#[test]
fn nothing_is_left_that_is_lacking_and_nothing_else_is_added() {
    let whole = required(&full());
    for feature in Feature::ALL {
        let left = required(&without(&full(), &[feature]));
        assert!(!left.contains(&feature), "{feature}: {left:?}");
        assert!(left.iter().all(|one| whole.contains(one)), "{feature}: {left:?}");
    }
    assert_eq!(required(&without(&full(), &Feature::ALL)), []);
    assert_eq!(without(&full(), &[]), full());
}

#[test]
fn what_comes_on_top_is_left_out() {
    let lesser = without(&full(), &[Feature::Mirror, Feature::HashCookie, Feature::OutlierDetection]);
    let (Action::Forward(before), Action::Forward(after)) = (&full().http[0].action, &lesser.http[0].action)
    else {
        panic!("the first rule forwards")
    };
    assert_eq!(**after, Forward { mirrors: Box::default(), ..Forward::clone(before) });
    assert_eq!(lesser.http[1..], full().http[1..]);
    let policy = |routing: &Routing| routing.destinations.values().last().unwrap().policy.clone();
    assert!(policy(&full()).outlier_detection.is_some() && policy(&lesser).outlier_detection.is_none());
    assert_eq!(policy(&lesser).connection_pool, policy(&full()).connection_pool);
    assert!(!makes_cookies(policy(&lesser).load_balancer.as_ref().unwrap()));
}

/// A rule keeps what it applies to, so that what it would have taken goes nowhere else.
#[test]
fn what_would_go_elsewhere_is_refused_by_name() {
    for (rule, feature) in [
        (0, Feature::Rewrite),
        (0, Feature::Headers),
        (1, Feature::Redirect),
        (3, Feature::RegexRewrite),
        (4, Feature::DirectResponse),
    ] {
        let lesser = without(&full(), &[feature]);
        let (before, after) = (&full().http[rule], &lesser.http[rule]);
        assert_eq!((&after.source, &after.matches), (&before.source, &before.matches), "{feature}");
        let said = format!("{}, which this waypoint does not understand", feature.name());
        assert_eq!(missing(&after.action), [said]);
    }
}

#[test]
fn who_cannot_speak_as_an_endpoint_wants_does_not_go_there() {
    let to = |port| model::route::Destination { port, ..model::route::Destination::of(host("a")) };
    let rule = |port| HttpRule {
        matches: [HttpMatch { path: Some(PathMatch::Exact("/".into())), ..HttpMatch::default() }].into(),
        action: Action::Forward(Box::new(Forward {
            destinations: model::route::Destinations::One(to(port)),
            ..Forward::default()
        })),
        ..full().http[4].clone()
    };
    let tls = ClientTls { mode: TlsMode::Simple, ..ClientTls::default() };
    let of_port = model::traffic::PortPolicy { port: 443, tls: Some(tls), ..Default::default() };
    let policy = TrafficPolicy { ports: [of_port].into(), ..TrafficPolicy::default() };
    let routing = Routing {
        http: [rule(Some(443)), rule(Some(80)), rule(None)].into(),
        destinations: [(host("a"), Arc::new(Destination { policy, ..Destination::default() }))].into(),
        ..full()
    };
    let lesser = without(&routing, &[Feature::EndpointTls]);
    let refused: Vec<bool> = lesser.http.iter().map(|rule| !missing(&rule.action).is_empty()).collect();
    assert_eq!(refused, [true, false, true]);
    assert_eq!(
        missing(&lesser.http[0].action),
        ["lateen.dev/routing.endpoint-tls, which this waypoint does not understand, for default/a"]
    );
}

#[test]
fn only_what_is_lacking_is_another_resource() {
    let policy = TrafficPolicy {
        connection_pool: Some(ConnectionPool::default()),
        outlier_detection: Some(OutlierDetection::default()),
        ..TrafficPolicy::default()
    };
    let destination = Arc::new(Destination { policy, ..Destination::default() });
    let routing = Routing {
        http: Box::default(),
        tls: Box::default(),
        tcp: Box::default(),
        destinations: [(host("a"), destination)].into(),
        ..full()
    };
    let whole = resource::routing(&routing);
    assert_eq!(lesser(&whole, &[Feature::Mirror, Feature::Tcp]), None);
    let fits = lesser(&whole, &[Feature::ConnectionPool]).unwrap();
    assert_ne!(fits.version(), whole.version());
    assert_eq!(fits, resource::routing(&without(&routing, &[Feature::ConnectionPool])));
}
