//! Every condition of `retryOn` against every outcome; limits and pauses.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::conditions::InvalidRetryOn;
use super::{NoRetry, Outcome, RetryCondition, RetryOn, RetryPolicy, Verdict, retry};
use crate::route::fixtures::no_draw;

fn policy(on: &str) -> RetryPolicy {
    let (on, status_codes) = RetryOn::parse(on).unwrap();
    RetryPolicy { on, status_codes, ..RetryPolicy::default() }
}

/// How a try ended, by a short name: a status, `grpc N` (a 200 with that gRPC status), or what failed.
fn with_outcome<R>(name: &str, then: impl FnOnce(&Outcome<'_>) -> R) -> R {
    let mut headers = HeaderMap::new();
    let mut code = 200;
    match name.split_once(' ') {
        Some(("grpc", status)) => {
            headers.insert("grpc-status", status.parse().unwrap());
        }
        Some(("limited", status)) => {
            headers.insert("x-envoy-ratelimited", HeaderValue::from_static("true"));
            code = status.parse().unwrap();
        }
        Some(("header", header)) => {
            headers.insert(header.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
        }
        _ => {}
    }
    if let Ok(number) = name.parse() {
        code = number;
    }
    let outcome = match name {
        "connect" => Outcome::ConnectFailure,
        "refused" => Outcome::RefusedStream { sent: true },
        "unsent" => Outcome::Reset { sent: false },
        "reset" => Outcome::Reset { sent: true },
        "try" => Outcome::PerTryTimeout,
        "timeout" => Outcome::Timeout,
        "overflow" => Outcome::Overflow,
        _ => Outcome::Response { status: StatusCode::from_u16(code).unwrap(), headers: &headers },
    };
    then(&outcome)
}

/// All outcomes there are.
const OUTCOMES: [&str; 27] = [
    "200",
    "400",
    "404",
    "409",
    "425",
    "429",
    "500",
    "501",
    "502",
    "503",
    "504",
    "505",
    "grpc 0",
    "grpc 1",
    "grpc 2",
    "grpc 4",
    "grpc 8",
    "grpc 13",
    "grpc 14",
    "limited 503",
    "header x-again",
    "connect",
    "refused",
    "unsent",
    "reset",
    "try",
    "timeout",
];

#[test]
fn each_condition_asks_for_its_outcomes() {
    let none = ["connect", "refused", "unsent", "reset", "try"];
    let with_none =
        |more: &[&'static str]| -> Vec<&'static str> { more.iter().copied().chain(none).collect() };
    let table: [(&str, Vec<&str>); 18] = [
        ("5xx", with_none(&["500", "501", "502", "503", "504", "505"])),
        ("gateway-error", with_none(&["502", "503", "504"])),
        ("reset", none.into()),
        ("reset-before-request", vec!["connect", "unsent"]),
        ("connect-failure", vec!["connect"]),
        ("refused-stream", vec!["refused"]),
        ("retriable-4xx", vec!["409"]),
        ("envoy-ratelimited", vec!["limited 503"]),
        ("503", vec!["503"]),
        ("404,retriable-status-codes, 429", vec!["404", "429"]),
        ("retriable-status-codes", vec![]),
        ("retriable-headers", vec!["header x-again"]),
        ("http3-post-connect-failure", vec![]),
        ("cancelled", vec!["grpc 1"]),
        ("deadline-exceeded", vec!["grpc 4"]),
        ("internal", vec!["grpc 13"]),
        ("resource-exhausted", vec!["grpc 8"]),
        ("unavailable", vec!["grpc 14"]),
    ];
    for (on, expected) in table {
        let policy = RetryPolicy { headers: [HeaderName::from_static("x-again")].into(), ..policy(on) };
        for outcome in OUTCOMES {
            let verdict = with_outcome(outcome, |outcome| retry(Some(&policy), 0, outcome, &mut |_| 0));
            let again = matches!(verdict, Verdict::Again { .. });
            assert_eq!(again, expected.contains(&outcome), "{on} after {outcome}: {verdict:?}");
        }
    }
    // Nothing is tried again for a header that nobody lists.
    let unlisted = policy("retriable-headers");
    let verdict = with_outcome("header x-again", |outcome| retry(Some(&unlisted), 0, outcome, &mut no_draw));
    assert_eq!(verdict, Verdict::No(NoRetry::NotAsked));
}

#[test]
fn the_default_is_istios() {
    let default = RetryPolicy::default();
    let names: Vec<&str> = default.on.iter().map(RetryCondition::name).collect();
    assert_eq!(
        names,
        ["connect-failure", "refused-stream", "retriable-status-codes", "cancelled", "unavailable"]
    );
    assert_eq!((default.attempts, default.backoff), (2, Duration::from_millis(25)));
    let asked: Vec<&str> = OUTCOMES
        .into_iter()
        .filter(|name| {
            let verdict = with_outcome(name, |outcome| retry(Some(&default), 1, outcome, &mut |_| 0));
            matches!(verdict, Verdict::Again { .. })
        })
        .collect();
    assert_eq!(asked, ["grpc 1", "grpc 14", "connect", "refused"]);
    assert!(std::sync::Arc::ptr_eq(&RetryPolicy::shared_default(), &RetryPolicy::shared_default()));
}

#[test]
fn refusals_say_why() {
    let none = RetryPolicy { attempts: 0, ..policy("5xx") };
    let twice = policy("5xx");
    let table = [
        (None, 0, "503", NoRetry::Disabled),
        (Some(&none), 0, "503", NoRetry::Disabled),
        (Some(&twice), 2, "503", NoRetry::Exhausted(2)),
        (Some(&twice), 3, "503", NoRetry::Exhausted(2)),
        (Some(&twice), 0, "200", NoRetry::NotAsked),
        (Some(&twice), 2, "200", NoRetry::NotAsked),
        (Some(&twice), 0, "timeout", NoRetry::TimedOut),
        (Some(&twice), 0, "overflow", NoRetry::Overflow),
        (Some(&twice), 0, "limited 503", NoRetry::RateLimited),
        (Some(&twice), 0, "limited 200", NoRetry::RateLimited),
    ];
    for (policy, retries, outcome, expected) in table {
        let verdict = with_outcome(outcome, |outcome| retry(policy, retries, outcome, &mut no_draw));
        assert_eq!(verdict, Verdict::No(expected), "after {outcome} and {retries} retries");
    }
    assert_eq!(NoRetry::Exhausted(2).to_string(), "all 2 retries were made");
}

#[test]
fn the_reason_is_named() {
    for (on, outcome, expected) in [
        ("5xx,gateway-error", "503", RetryCondition::FiveXx),
        ("gateway-error,connect-failure", "connect", RetryCondition::GatewayError),
        ("connect-failure", "connect", RetryCondition::ConnectFailure),
        ("reset,reset-before-request", "unsent", RetryCondition::ResetBeforeRequest),
        ("unavailable", "grpc 14", RetryCondition::Unavailable),
    ] {
        let verdict = with_outcome(outcome, |outcome| retry(Some(&policy(on)), 0, outcome, &mut |_| 0));
        assert_eq!(
            verdict,
            Verdict::Again { because: expected, after: Duration::ZERO },
            "{on} after {outcome}"
        );
    }
    assert_eq!(RetryCondition::FiveXx.to_string(), "5xx");
}

#[test]
fn pauses_grow_up_to_ten_times() {
    // The bounds of the draws in milliseconds, by the number of retries before.
    for (backoff, bounds) in [
        (25, [25, 50, 100, 200, 250, 250]),
        (1, [1, 2, 4, 8, 10, 10]),
        (100, [100, 200, 400, 800, 1000, 1000]),
        (0, [1, 1, 1, 1, 1, 1]),
    ] {
        let policy = RetryPolicy { attempts: 10, backoff: Duration::from_millis(backoff), ..policy("5xx") };
        for (retries, expected) in (0..).zip(bounds) {
            let mut asked = 0;
            let verdict = with_outcome("503", |outcome| {
                retry(Some(&policy), retries, outcome, &mut |bound| {
                    asked = bound;
                    bound - 1
                })
            });
            assert_eq!(asked, expected, "{backoff} ms after {retries} retries");
            let after = Duration::from_millis(u64::from(expected) - 1);
            assert_eq!(verdict, Verdict::Again { because: RetryCondition::FiveXx, after });
        }
    }
    let endless = RetryPolicy { backoff: Duration::MAX, attempts: u32::MAX, ..policy("5xx") };
    let verdict =
        with_outcome("503", |outcome| retry(Some(&endless), 1_000_000, outcome, &mut |bound| bound - 1));
    assert!(matches!(verdict, Verdict::Again { .. }));
}

#[test]
fn retry_on_is_read_as_it_is_written() {
    let codes = |numbers: &[u16]| -> Box<[StatusCode]> {
        numbers.iter().map(|number| StatusCode::from_u16(*number).unwrap()).collect()
    };
    for condition in RetryCondition::ALL {
        let (on, none) = RetryOn::parse(condition.name()).unwrap();
        assert_eq!(on.iter().collect::<Vec<_>>(), [condition]);
        assert!(none.is_empty());
    }
    let (on, listed) = RetryOn::parse(" 5xx , 404,,503 ").unwrap();
    assert_eq!(on, [RetryCondition::FiveXx, RetryCondition::RetriableStatusCodes].into_iter().collect());
    assert_eq!(listed, codes(&[404, 503]));
    assert_eq!(RetryOn::parse(""), Ok((RetryOn::default(), codes(&[]))));
    for wrong in ["5XX", "gateway_error", "600", "99", "-1", "299", "5xx;reset", "retriable-status-code"] {
        assert_eq!(RetryOn::parse(wrong), Err(InvalidRetryOn(wrong.into())), "{wrong}");
    }
}

proptest! {
    /// However it ends, it is never tried more often than it may be, and what came out well is not tried again.
    #[test]
    fn retries_end(attempts in 0_u32..6, outcome in proptest::sample::select(&OUTCOMES[..])) {
        let policy = RetryPolicy { attempts, ..policy("5xx,reset,unavailable,409") };
        let mut retries = 0;
        while with_outcome(outcome, |outcome| {
            matches!(retry(Some(&policy), retries, outcome, &mut |_| 0), Verdict::Again { .. })
        }) {
            retries += 1;
            prop_assert!(retries <= attempts);
        }
        prop_assert!(retries == 0 || retries == attempts);
        prop_assert!(outcome != "200" || retries == 0);
    }
}
