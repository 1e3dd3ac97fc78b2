//! What header operations come to, and in which order.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    CONTROL_HEADERS, Edit, FRAMING, Operations, in_turn, is_framing, is_taken_for, is_taken_for_framing,
    leave_framing, may_change, together,
};
use crate::route::fixtures::{Sent, get, operations};
use crate::route::template::Message;

type Edits = fn(&[&Operations], &Message<'_>) -> Vec<Edit>;

fn turns(stages: &[&Operations], message: &Message<'_>) -> Vec<Edit> {
    in_turn(stages.iter().map(|stage| Some(*stage)), message)
}

/// The headers after the edits, one line each, sorted by name; values of a name in their order.
fn after(edits: Edits, stages: &[&Operations], sent: &Sent) -> Vec<String> {
    let request = sent.request();
    let message = Message { request: &request, response: None, removed: &[] };
    let mut headers: HeaderMap = request.headers.clone();
    edits(stages, &message).into_iter().for_each(|edit| edit.apply(&mut headers));
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort_by(|one, two| one.split(':').next().cmp(&two.split(':').next()));
    lines
}

#[test]
fn one_list() {
    let old = || get("/").header("a", "old1").header("a", "old2").header("b", "keep");
    type Row<'a> = (Operations, Sent, &'a [&'a str]);
    let table: [Row<'_>; 10] = [
        (operations("", "", ""), old(), &["a: old1", "a: old2", "b: keep"]),
        (operations("a", "", ""), old(), &["b: keep"]),
        (operations("none", "", ""), old(), &["a: old1", "a: old2", "b: keep"]),
        (operations("", "a=new", ""), old(), &["a: new", "b: keep"]),
        (operations("", "c=new", ""), old(), &["a: old1", "a: old2", "b: keep", "c: new"]),
        (operations("", "", "a=new"), old(), &["a: old1", "a: old2", "a: new", "b: keep"]),
        // Removed first, then set, then added.
        (operations("a", "a=set", "a=added"), old(), &["a: set", "a: added", "b: keep"]),
        (operations("a", "", "a=added"), old(), &["a: added", "b: keep"]),
        // Empty values change nothing.
        (operations("", "a=", "b="), old(), &["a: old1", "a: old2", "b: keep"]),
        // All values are worked out before anything is set, and after what is removed has gone.
        (
            operations("b", "a=%REQ(c)%,c=%REQ(a)%,d=%REQ(b)%", ""),
            old().header("c", "3"),
            &["a: 3", "c: old1"],
        ),
    ];
    for (operations, sent, expected) in table {
        assert_eq!(after(together, &[&operations], &sent), expected, "{operations:?}");
        assert_eq!(after(turns, &[&operations], &sent), expected, "{operations:?}");
    }
}

#[test]
fn two_lists_as_one_or_in_turn() {
    // First list, second list, the headers as one list, and in turn.
    type Row<'a> = (Operations, Operations, &'a [&'a str], &'a [&'a str]);
    let table: [Row<'_>; 5] = [
        (operations("", "a=1", ""), operations("", "a=2", ""), &["a: 2"], &["a: 2"]),
        (
            operations("", "", "a=1"),
            operations("", "", "a=2"),
            &["a: 0", "a: 1", "a: 2"],
            &["a: 0", "a: 1", "a: 2"],
        ),
        // As one, all removals come first; in turn, the second takes away what the first has set.
        (operations("", "a=1", ""), operations("a", "", ""), &["a: 1"], &[]),
        // As one, all settings come before all additions.
        (operations("", "", "a=1"), operations("", "a=2", ""), &["a: 2", "a: 1"], &["a: 2"]),
        (operations("a", "", ""), operations("", "", "a=2"), &["a: 2"], &["a: 2"]),
    ];
    for (first, second, as_one, in_turn) in table {
        let sent = get("/").header("a", "0");
        assert_eq!(after(together, &[&first, &second], &sent), as_one, "{first:?} {second:?} as one");
        assert_eq!(after(turns, &[&first, &second], &sent), in_turn, "{first:?} {second:?} in turn");
    }
}

#[test]
fn framing_is_not_for_rules() {
    for name in [
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "host",
        "keep-alive",
    ] {
        assert!(!may_change(&HeaderName::from_static(name)), "{name}");
        // The host has a rewrite of its own.
        assert_eq!(is_framing(name), name != "host", "{name}");
        assert_eq!(is_framing(&name.to_ascii_uppercase()), name != "host", "{name}");
    }
    for name in ["x-user", "content-type", "authorization", "cookie", "x-forwarded-host"] {
        assert!(may_change(&HeaderName::from_static(name)), "{name}");
        assert!(!is_framing(name), "{name}");
    }
}

#[test]
fn names_are_taken_for_others_by_case_and_underscores() {
    for (name, own, taken) in [
        ("x-forwarded-for", "x-forwarded-for", true),
        ("X_Forwarded-For", "x-forwarded-for", true),
        ("x_forwarded_for", "x-forwarded-for", true),
        ("x-forwarded-fob", "x-forwarded-for", false),
        ("x-forwarded-for-", "x-forwarded-for", false),
        ("x-forwarded", "x-forwarded-for", false),
        ("x-forwarded.for", "x-forwarded-for", false),
        // Nobody reads `-` as `_`.
        ("a-b", "a_b", false),
        ("", "", true),
    ] {
        assert_eq!(is_taken_for(name, own), taken, "{name} {own}");
    }
    assert!(is_taken_for_framing("Transfer_Encoding") && !is_taken_for_framing("transfer.encoding"));
}

#[test]
fn trailers_frame_nothing() {
    let mut trailers = HeaderMap::new();
    for name in
        FRAMING.iter().chain([&HeaderName::from_static("x-sum"), &HeaderName::from_static("grpc-status")])
    {
        trailers.append(name, HeaderValue::from_static("1"));
        trailers.append(name, HeaderValue::from_static("2"));
    }
    leave_framing(&mut trailers);
    let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["grpc-status", "x-sum"]);
}

#[test]
fn what_steers_envoy_is_known() {
    let names: Vec<&str> = CONTROL_HEADERS.iter().map(HeaderName::as_str).collect();
    for name in ["x-envoy-upstream-rq-timeout-ms", "x-envoy-max-retries", "x-envoy-retry-on"] {
        assert!(names.contains(&name), "{name}");
    }
}
