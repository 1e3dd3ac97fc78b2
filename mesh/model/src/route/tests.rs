//! What things are called, and shares of all requests.

use super::fixtures::{host, source};
use super::{Cause, Forward, Fraction, Routing, RuleList, RuleSource};

#[test]
fn causes_name_the_rule() {
    let source = |list, index| RuleSource { list, ..source(index) };
    let rules = [(RuleList::Http, "http[3]"), (RuleList::Tls, "tls[3]"), (RuleList::Tcp, "tcp[3]")];
    for (list, expected) in rules {
        let said = Cause::Rule(&source(list, 3)).to_string();
        assert_eq!(said, format!("VirtualService default/reviews {expected}"));
    }
    let host = host("reviews.default.svc.cluster.local");
    let said = Cause::Default(&host).to_string();
    assert_eq!(said, "default routing of default/reviews.default.svc.cluster.local");
    let said = Cause::NoRule(&host).to_string();
    assert_eq!(said, "no rule for default/reviews.default.svc.cluster.local matched");
}

#[test]
fn percentages_become_millionths() {
    let table = [
        (0.0, Some(0)),
        (100.0, Some(1_000_000)),
        (1.0, Some(10_000)),
        (0.1, Some(1_000)),
        (0.0001, Some(1)),
        // Cut off, as Istio does.
        (0.00019, Some(1)),
        (0.00001, Some(0)),
        (33.3333, Some(333_333)),
        (-0.1, None),
        (100.1, None),
        (f64::NAN, None),
        (f64::INFINITY, None),
    ];
    for (percent, expected) in table {
        assert_eq!(Fraction::percent(percent).map(Fraction::as_millionths), expected, "{percent}");
    }
    assert_eq!(Fraction::millionths(2_000_000), Fraction::ALL);
}

#[test]
fn a_share_is_drawn_exactly() {
    let table = [
        (1, 0, true),
        (1, 1, false),
        (10_000, 9_999, true),
        (10_000, 10_000, false),
        (999_999, 999_999, false),
    ];
    for (share, drawn, expected) in table {
        let mut draw = |bound| {
            assert_eq!(bound, 1_000_000);
            drawn
        };
        assert_eq!(Fraction::millionths(share).drawn(&mut draw), expected, "{share} at {drawn}");
    }
    let mut never = |_| panic!("there is nothing to draw");
    assert!(Fraction::ALL.drawn(&mut never));
    assert!(!Fraction::NONE.drawn(&mut never));
}

#[test]
fn only_what_says_nothing_is_by_default() {
    let (reviews, ratings) = (host("reviews"), host("ratings"));
    assert!(Routing::by_default(reviews.clone()).is_by_default());
    let elsewhere = Forward::to_service(ratings.clone());
    let without_retries = Forward { retry: None, ..Forward::to_service(reviews.clone()) };
    for default in [None, Some(elsewhere), Some(without_retries)] {
        let routing = Routing { default: default.map(Box::new), ..Routing::by_default(reviews.clone()) };
        assert!(!routing.is_by_default(), "{routing:?}");
    }
    let traffic = std::sync::Arc::new(crate::traffic::Destination::default());
    let destinations = [(reviews.clone(), traffic)].into();
    assert!(!Routing { destinations, ..Routing::by_default(reviews) }.is_by_default());
}
