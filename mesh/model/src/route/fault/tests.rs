//! What is injected, and how often.

use std::time::Duration;

use http::StatusCode;

use super::{Abort, AbortWith, Delay, Fault, GRPC_STATUS, Injected, grpc_status};
use crate::fixtures::draws;
use crate::route::Fraction;

const SECOND: Duration = Duration::from_secs(1);

fn fault(delay: Option<Fraction>, abort: Option<Fraction>) -> Fault {
    Fault {
        delay: delay.map(|share| Delay { after: SECOND, share }),
        abort: abort.map(|share| Abort { with: AbortWith::Http(StatusCode::IM_A_TEAPOT), share }),
    }
}

#[test]
fn delay_and_abort_are_drawn_each_for_itself() {
    let half = Fraction::percent(50.0).unwrap();
    let teapot = Some(AbortWith::Http(StatusCode::IM_A_TEAPOT));
    // The shares, what is drawn in turn, and what is injected.
    type Row<'a> = (Option<Fraction>, Option<Fraction>, &'a [u32], Option<Duration>, Option<AbortWith>);
    let table: [Row<'_>; 9] = [
        (None, None, &[], None, None),
        (Some(Fraction::ALL), None, &[], Some(SECOND), None),
        (None, Some(Fraction::ALL), &[], None, teapot),
        (Some(Fraction::ALL), Some(Fraction::ALL), &[], Some(SECOND), teapot),
        (Some(Fraction::NONE), Some(Fraction::NONE), &[], None, None),
        (Some(half), Some(half), &[499_999, 499_999], Some(SECOND), teapot),
        (Some(half), Some(half), &[500_000, 499_999], None, teapot),
        (Some(half), Some(half), &[499_999, 500_000], Some(SECOND), None),
        (Some(half), Some(half), &[500_000, 500_000], None, None),
    ];
    for (delay, abort, drawn, after, with) in table {
        let mut drawn = drawn.iter().copied();
        let injected = fault(delay, abort).inject(&mut |_| drawn.next().unwrap());
        assert_eq!(injected, Injected { delay: after, abort: with }, "{delay:?} {abort:?}");
        assert_eq!(drawn.next(), None);
    }
}

#[test]
fn one_percent_is_one_percent() {
    let fault = fault(None, Fraction::percent(1.0));
    let mut draw = draws(11);
    let count = (0..100_000).filter(|_| fault.inject(&mut draw).abort.is_some()).count();
    assert!((800..1200).contains(&count), "{count} of 100,000");
}

#[test]
fn grpc_statuses_have_names() {
    let table =
        [("OK", Some(0)), ("NOT_FOUND", Some(5)), ("UNAVAILABLE", Some(14)), ("UNAUTHENTICATED", Some(16))];
    for (name, expected) in table {
        assert_eq!(grpc_status(name), expected, "{name}");
    }
    assert_eq!(grpc_status("ok"), None);
    assert_eq!(grpc_status(""), None);
    assert_eq!(GRPC_STATUS.len(), 17);
}
