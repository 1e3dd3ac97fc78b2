//! What becomes of an endpoint after which history of answers.

use std::time::Duration;

use proptest::prelude::*;

use super::{HealthCheck, Probe, Standing, is_path, may_have_header};

fn check(failure_threshold: u32, success_threshold: u32) -> HealthCheck {
    HealthCheck { failure_threshold, success_threshold, ..HealthCheck::of(Probe::Tcp { port: 80 }) }
}

/// After each of a row of checks (`+` passed, `-` not): `u` it is used, `x` left out.
fn course(check: &HealthCheck, answers: &str) -> String {
    let mut standing = Standing::default();
    let after = |answer| {
        standing = standing.after(answer == '+', check);
        if standing.failing { 'x' } else { 'u' }
    };
    answers.chars().map(after).collect()
}

#[test]
fn thresholds_are_exact() {
    #[rustfmt::skip]
    let table = [
        // Failures, successes, answers, what becomes of it.
        (3, 1, "", ""),
        (3, 1, "++++", "uuuu"),
        (3, 1, "--", "uu"),
        (3, 1, "---", "uux"),
        (3, 1, "-----", "uuxxx"),
        // One that passes in between begins the row anew.
        (3, 1, "--+--", "uuuuu"),
        (3, 1, "--+---", "uuuuux"),
        (3, 1, "---+", "uuxu"),
        (3, 1, "---+--", "uuxuuu"),
        (3, 1, "---+---", "uuxuuux"),
        (1, 1, "-+-+", "xuxu"),
        (1, 3, "-+++", "xxxu"),
        (1, 3, "-++-++", "xxxxxx"),
        (1, 3, "-++-+++", "xxxxxxu"),
        // What was counted on the way out does not count on the way back.
        (2, 2, "--+-+", "uxxxx"),
        (2, 2, "--++-", "uxxuu"),
        (2, 2, "--++--", "uxxuux"),
        // No threshold is none.
        (0, 0, "-+", "xu"),
        (u32::MAX, 1, "----", "uuuu"),
    ];
    for (failures, successes, answers, expected) in table {
        let found = course(&check(failures, successes), answers);
        assert_eq!(found, expected, "{failures} {successes} {answers}");
    }
}

#[test]
fn another_check_begins_its_rows_anew_and_lets_nobody_in_by_itself() {
    let out = Standing { failing: true, against: 1 };
    assert_eq!(out.under_another(), Standing { failing: true, against: 0 });
    assert!(out.under_another().after(true, &check(1, 2)).failing);
    assert!(!out.after(true, &check(1, 2)).failing);
    // A threshold that was lowered meanwhile is reached by the next.
    let almost = Standing { failing: false, against: 7 };
    assert!(almost.after(false, &check(3, 1)).failing);
}

#[test]
fn nobody_is_waited_for_longer_than_a_check_may_take() {
    for (timeout, expected) in [(1, 1), (10_000, 10_000), (10_001, 10_000), (3_600_000, 10_000)] {
        let check = HealthCheck { timeout: Duration::from_millis(timeout), ..check(1, 1) };
        assert_eq!(check.limit(), Duration::from_millis(expected));
    }
}

#[test]
fn what_is_asked_is_told_in_the_words_of_the_annotation() {
    let http = Probe::Http { port: 8080, path: "/healthz".into(), headers: Box::default() };
    for (probe, expected) in [
        (http, "httpGet :8080/healthz"),
        (Probe::Tcp { port: 5432 }, "tcpSocket :5432"),
        (Probe::Grpc { port: 9000, service: "".into() }, "grpc :9000"),
        (Probe::Grpc { port: 9000, service: "shop.Cart".into() }, "grpc :9000 shop.Cart"),
    ] {
        assert_eq!(probe.to_string(), expected);
        assert!(expected.contains(&format!(":{}", probe.port())));
    }
}

proptest! {
    /// An endpoint changes sides exactly when the last so many answers all speak for the other one, and so many have come
    /// since it changed last.
    #[test]
    fn it_changes_sides_by_the_last_answers_alone(
        failures in 1u32..6,
        successes in 1u32..6,
        answers in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let check = check(failures, successes);
        let mut standing = Standing::default();
        let mut since = Vec::new();
        for passed in answers {
            since.push(passed);
            let threshold = if standing.failing { successes } else { failures } as usize;
            let wanted = standing.failing;
            let turns = since.len() >= threshold
                && since[since.len() - threshold..].iter().all(|passed| *passed == wanted);
            let before = standing;
            standing = standing.after(passed, &check);
            prop_assert_eq!(standing.failing != before.failing, turns);
            if turns {
                since.clear();
            }
        }
    }
}

#[test]
fn a_check_asks_for_paths_and_says_of_itself_what_it_may() {
    for (path, is) in
        [("/healthz?deep=1", true), ("healthz", false), ("/a b", false), ("/a`b", false), ("/%20", true)]
    {
        assert_eq!(is_path(path), is, "{path}");
    }
    for (name, may) in [
        ("Host", true),
        ("x-forwarded", true),
        ("Transfer-Encoding", false),
        ("proxy-connection", false),
        ("X-Forwarded-Client-Cert", false),
        ("x_forwarded_for", false),
    ] {
        assert_eq!(may_have_header(name), may, "{name}");
    }
}
