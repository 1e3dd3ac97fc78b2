//! How long requests may take, and what endpoints are told.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{Timeouts, is_grpc, to_grpc_timeout};
use crate::route::RetryPolicy;
use crate::route::action::Forward;
use crate::route::headers::CONTROL_HEADERS;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn forward(timeout: Option<u64>, per_try: Option<u64>) -> Forward {
    let policy = RetryPolicy { per_try_timeout: per_try.map(ms), ..RetryPolicy::default() };
    Forward { timeout: timeout.map(ms), retry: Some(Arc::new(policy)), ..Forward::default() }
}

fn grpc(timeout: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    if let Some(timeout) = timeout {
        headers.insert("grpc-timeout", timeout.parse().unwrap());
    }
    headers
}

#[test]
fn the_rule_says_how_long() {
    // Of the rule: in all and each try; what counts.
    let table = [
        (None, None, None, None),
        (Some(0), None, None, None),
        (Some(1000), None, Some(1000), None),
        (Some(1000), Some(300), Some(1000), Some(300)),
        // As long as the whole or longer says nothing.
        (Some(1000), Some(1000), Some(1000), None),
        (Some(1000), Some(2000), Some(1000), None),
        (None, Some(300), None, Some(300)),
        (None, Some(0), None, None),
    ];
    for (total, per_try, expected, expected_per_try) in table {
        let limits = Timeouts::of(&forward(total, per_try), &HeaderMap::new());
        assert_eq!((limits.total, limits.per_try), (expected.map(ms), expected_per_try.map(ms)));
    }
    let never = Forward { retry: None, ..forward(Some(5), Some(1)) };
    assert_eq!(Timeouts::of(&never, &HeaderMap::new()).per_try, None);
}

#[test]
fn grpc_clients_may_ask_for_less() {
    let table = [
        // No limit of the rule's: the client's.
        (None, Some("500m"), Some(500)),
        (None, None, None),
        (None, Some("0m"), None),
        // The shorter of the two.
        (Some(1000), Some("500m"), Some(500)),
        (Some(1000), Some("5S"), Some(1000)),
        (Some(1000), Some("0S"), Some(1000)),
        (Some(1000), None, Some(1000)),
        // Units, rounded up to milliseconds.
        (None, Some("2H"), Some(7_200_000)),
        (None, Some("3M"), Some(180_000)),
        (None, Some("1S"), Some(1000)),
        (None, Some("1001u"), Some(2)),
        (None, Some("1000001n"), Some(2)),
        (None, Some("99999999H"), Some(99_999_999 * 3_600_000)),
        // What is none counts as not there.
        (Some(1000), Some("1"), Some(1000)),
        (None, Some("1"), None),
        (None, Some("m"), None),
        (None, Some("123456789m"), None),
        (None, Some("12345678m"), Some(12_345_678)),
        (None, Some("-1m"), None),
        (None, Some("1x"), None),
        (None, Some("1 m"), None),
        (None, Some(""), None),
    ];
    for (of_rule, asked, expected) in table {
        let limits = Timeouts::of(&forward(of_rule, None), &grpc(asked));
        assert_eq!(limits.total, expected.map(ms), "{of_rule:?} and {asked:?}");
    }
    // Only where it is gRPC.
    let mut plain = grpc(Some("1m"));
    plain.insert("content-type", HeaderValue::from_static("application/grpc-web"));
    assert_eq!(Timeouts::of(&forward(None, None), &plain).total, None);
}

#[test]
fn other_headers_of_clients_do_not_count() {
    let mut headers = HeaderMap::new();
    for name in &CONTROL_HEADERS {
        headers.insert(name, HeaderValue::from_static("1"));
    }
    let plain = Timeouts::of(&forward(Some(1000), Some(300)), &HeaderMap::new());
    assert_eq!(Timeouts::of(&forward(Some(1000), Some(300)), &headers), plain);
    assert_eq!(Timeouts::of(&forward(None, None), &headers), Timeouts::default());
}

#[test]
fn endpoints_are_told_their_time() {
    // Of the rule, in all and each try; how much has passed; gRPC or not; the headers.
    type Row = (Option<u64>, Option<u64>, u64, bool, Option<&'static str>, Option<&'static str>);
    let table: [Row; 8] = [
        (None, None, 0, false, None, None),
        (None, None, 0, true, None, None),
        (Some(1000), None, 0, false, Some("1000"), None),
        (Some(1000), None, 400, false, Some("600"), None),
        (Some(1000), None, 400, true, Some("600"), Some("600m")),
        (Some(1000), Some(300), 400, true, Some("300"), Some("300m")),
        (Some(1000), Some(300), 900, true, Some("100"), Some("100m")),
        // Nothing is left: 0 would mean that there is no limit.
        (Some(1000), None, 1500, true, Some("1"), Some("1m")),
    ];
    for (total, per_try, passed, is_grpc, expected, grpc_timeout) in table {
        let mut headers = if is_grpc { grpc(None) } else { HeaderMap::new() };
        let limits = Timeouts::of(&forward(total, per_try), &headers);
        limits.headers(ms(passed)).into_iter().for_each(|edit| edit.apply(&mut headers));
        let get = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(get("x-envoy-expected-rq-timeout-ms"), expected);
        assert_eq!(get("grpc-timeout"), grpc_timeout);
    }
}

#[test]
fn what_is_grpc() {
    for (kind, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/json", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        assert_eq!(is_grpc(&headers), expected, "{kind}");
    }
    assert!(!is_grpc(&HeaderMap::new()));
}

#[test]
fn eight_digits_hold_every_time() {
    for (time, expected) in [
        (ms(1), "1m"),
        (ms(99_999_999), "99999999m"),
        (ms(100_000_000), "100000S"),
        (Duration::from_secs(100_000_000), "1666666M"),
        (Duration::MAX, "99999999H"),
    ] {
        assert_eq!(to_grpc_timeout(time), expected);
    }
}
