//! Every kind of condition, on requests that fulfil it and that do not.

use proptest::prelude::*;

use super::{HeaderKey, HeaderMatch, HttpMatch, PathMatch, QueryMatch, Scope};
use crate::route::Regex;
use crate::route::fixtures::{Sent, get};
use crate::route::text::TextMatch;

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

fn starting(text: &str) -> TextMatch {
    TextMatch::Prefix(text.into())
}

fn regex(pattern: &str) -> TextMatch {
    TextMatch::Regex(Regex::new(pattern).unwrap())
}

fn path(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn by_regex(pattern: &str) -> HttpMatch {
    path(PathMatch::Regex(Regex::new(pattern).unwrap()))
}

fn is(text: &str) -> HttpMatch {
    path(PathMatch::Exact(text.into()))
}

fn begins(text: &str) -> HttpMatch {
    path(PathMatch::Prefix(text.into()))
}

fn ignoring_case(one: HttpMatch) -> HttpMatch {
    HttpMatch { ignore_path_case: true, ..one }
}

fn check(table: impl IntoIterator<Item = (HttpMatch, Sent, bool)>) {
    for (condition, sent, expected) in table {
        assert_eq!(condition.holds(&sent.request()), expected, "{condition:?} on {sent:?}");
    }
}

#[test]
fn paths() {
    check([
        (HttpMatch::default(), get("/anything"), true),
        (is("/a"), get("/a"), true),
        (is("/a"), get("/a?x=1"), true),
        (is("/a"), get("/a/"), false),
        (is("/a"), get("/A"), false),
        (begins("/a"), get("/a"), true),
        // Text, not segments.
        (begins("/a"), get("/abc"), true),
        (begins("/a/"), get("/a"), false),
        (begins("/a"), get("/A"), false),
        (begins(""), get("/a"), true),
        (begins("/a?x"), get("/a?x=1"), false),
        // The whole path, without the query.
        (by_regex("/a"), get("/ab"), false),
        (by_regex("/a.*"), get("/ab?c"), true),
        (by_regex("b"), get("/ab"), false),
        (by_regex("/a|/b"), get("/bc"), false),
        (by_regex("/a|/b"), get("/b"), true),
        (by_regex("/users/[0-9]+/x"), get("/users/17/x"), true),
        (by_regex("/users/[0-9]+/x"), get("/users/17/x/y"), false),
        // ignoreUriCase is for text only.
        (ignoring_case(is("/Ab")), get("/aB"), true),
        (ignoring_case(is("/Ab")), get("/aBc"), false),
        (ignoring_case(begins("/Ab")), get("/aBc"), true),
        (ignoring_case(begins("/Ab")), get("/a"), false),
        (ignoring_case(by_regex("/Ab")), get("/aB"), false),
        (by_regex("(?i)/Ab"), get("/aB"), true),
        // Letters beyond ASCII have one case.
        (ignoring_case(is("/\u{e4}")), get("/\u{c4}"), false),
        (ignoring_case(begins("/\u{e4}")), get("/a"), false),
        // What the canonical path may still have in it.
        (begins("/a%2F"), get("/a%2Fb"), true),
        (begins("/a%2F"), get("/a/b"), false),
        (begins("//"), get("/a"), false),
    ]);
}

#[test]
fn method_scheme_and_authority() {
    let method = |value| HttpMatch { method: Some(value), ..HttpMatch::default() };
    let scheme = |value| HttpMatch { scheme: Some(value), ..HttpMatch::default() };
    let authority = |value| HttpMatch { authority: Some(value), ..HttpMatch::default() };
    let insensitive = || TextMatch::Regex(Regex::ignoring_case(r"Rev.*\.Example\.com").unwrap());
    check([
        (method(exact("GET")), get("/"), true),
        (method(exact("get")), get("/"), false),
        (method(exact("POST")), get("/").method("POST"), true),
        (method(regex("GET|POST")), get("/").method("PUT"), false),
        (method(starting("P")), get("/").method("PUT"), true),
        (method(TextMatch::Present), get("/").method("BREW"), true),
        (scheme(exact("https")), get("/"), false),
        (scheme(exact("https")), get("/").scheme("https"), true),
        (authority(exact("reviews:9080")), get("/"), true),
        (authority(exact("reviews")), get("/"), false),
        (authority(exact("Reviews:9080")), get("/"), true),
        (authority(starting("REV")), get("/"), true),
        (authority(regex("reviews(:[0-9]+)?")), get("/"), true),
        (authority(insensitive()), get("/").authority("reviews.example.com"), true),
        (authority(insensitive()), get("/").authority("reviews.example.org"), false),
    ]);
}

fn headers(conditions: &[(&str, TextMatch)]) -> Box<[HeaderMatch]> {
    let one = |(name, value): &(&str, TextMatch)| HeaderMatch {
        key: HeaderKey::parse(name).unwrap(),
        value: value.clone(),
    };
    conditions.iter().map(one).collect()
}

fn with(conditions: &[(&str, TextMatch)]) -> HttpMatch {
    HttpMatch { headers: headers(conditions), ..HttpMatch::default() }
}

fn without(conditions: &[(&str, TextMatch)]) -> HttpMatch {
    HttpMatch { without_headers: headers(conditions), ..HttpMatch::default() }
}

#[test]
fn headers_each_value_for_itself() {
    let user = |value: &str| get("/").header("end-user", value);
    let two = || user("a").header("end-user", "b");
    check([
        (with(&[("end-user", exact("jason"))]), user("jason"), true),
        (with(&[("End-User", exact("jason"))]), user("jason"), true),
        (with(&[("end-user", exact("jason"))]), user("Jason"), false),
        (with(&[("end-user", exact("jason"))]), get("/"), false),
        (with(&[("end-user", starting("ja"))]), user("jason"), true),
        (with(&[("end-user", regex("j.*n"))]), user("jason"), true),
        (with(&[("end-user", regex("ja"))]), user("jason"), false),
        // `.*` does not make a header that is missing.
        (with(&[("end-user", regex(".*"))]), get("/"), false),
        (with(&[("end-user", regex(".*"))]), user(""), true),
        (with(&[("end-user", TextMatch::Present)]), user(""), true),
        (with(&[("end-user", TextMatch::Present)]), get("/"), false),
        (with(&[("end-user", exact(""))]), user(""), true),
        (with(&[("end-user", exact(""))]), get("/"), false),
        // Repeated: any of them, and never their sum.
        (with(&[("end-user", exact("a"))]), two(), true),
        (with(&[("end-user", exact("b"))]), two(), true),
        (with(&[("end-user", exact("a,b"))]), two(), false),
        (with(&[("end-user", exact("a, b"))]), two(), false),
        // Several conditions, all of them.
        (with(&[("end-user", exact("a")), ("x", TextMatch::Present)]), user("a"), false),
        (with(&[("end-user", exact("a")), ("x", TextMatch::Present)]), user("a").header("x", "1"), true),
        // No UTF-8.
        (with(&[("end-user", starting("\u{ff}"))]), user("\u{ff}x"), true),
        // Pseudo-headers.
        (with(&[(":path", exact("/a?b=1"))]), get("/a?b=1"), true),
        (with(&[(":path", exact("/a"))]), get("/a?b=1"), false),
        (with(&[(":method", exact("GET"))]), get("/"), true),
        (with(&[(":scheme", exact("https"))]), get("/"), false),
        (with(&[(":authority", exact("reviews:9080"))]), get("/"), true),
        (with(&[("host", starting("reviews"))]), get("/"), true),
        (with(&[("Host", exact("ratings"))]), get("/"), false),
    ]);
}

#[test]
fn headers_that_must_not_be() {
    let user = |value: &str| get("/").header("end-user", value);
    let jason = || without(&[("end-user", exact("jason"))]);
    check([
        (jason(), get("/"), true),
        (jason(), user("anna"), true),
        (jason(), user("jason"), false),
        // One of several values suffices; a second does not hide it.
        (jason(), user("anna").header("end-user", "jason"), false),
        (without(&[("end-user", TextMatch::Present)]), get("/"), true),
        (without(&[("end-user", TextMatch::Present)]), user(""), false),
        // What is not there counts as empty.
        (without(&[("end-user", regex(".*"))]), get("/"), false),
        (without(&[("end-user", regex(".+"))]), get("/"), true),
        (without(&[("end-user", exact(""))]), get("/"), false),
        (without(&[("end-user", exact(""))]), user("x"), true),
        (without(&[("a", exact("1")), ("b", exact("2"))]), get("/").header("b", "2"), false),
        (without(&[(":method", exact("GET"))]), get("/"), false),
    ]);
}

#[test]
fn what_is_no_header_has_no_name() {
    for (name, expected) in [
        ("x-user", Some("x-user")),
        ("X-User", Some("x-user")),
        ("HOST", Some(":authority")),
        (":Path", Some(":path")),
        (":status", None),
        ("a b", None),
        ("", None),
        ("@request.auth.claims.sub", None),
        ("a:b", None),
    ] {
        assert_eq!(HeaderKey::parse(name).as_ref().map(HeaderKey::as_str), expected, "{name:?}");
    }
}

#[test]
fn query_parameters() {
    let with = |name: &str, value| HttpMatch {
        query: [QueryMatch { name: name.into(), value }].into(),
        ..HttpMatch::default()
    };
    check([
        (with("v", exact("1")), get("/?v=1"), true),
        (with("v", exact("1")), get("/?a=2&v=1"), true),
        (with("v", exact("1")), get("/?v=12"), false),
        (with("v", exact("1")), get("/?w=1"), false),
        (with("v", exact("1")), get("/?V=1"), false),
        (with("v", exact("1")), get("/"), false),
        (with("v", exact("1")), get("/?"), false),
        // The first of a name counts.
        (with("v", exact("1")), get("/?v=2&v=1"), false),
        (with("v", exact("2")), get("/?v=2&v=1"), true),
        (with("v", TextMatch::Present), get("/?v"), true),
        (with("v", TextMatch::Present), get("/?v="), true),
        (with("v", TextMatch::Present), get("/?vv=1"), false),
        (with("v", exact("")), get("/?v"), true),
        (with("v", exact("a=b")), get("/?v=a=b"), true),
        (with("v", starting("a")), get("/?v=abc"), true),
        (with("v", regex("[0-9]+")), get("/?v=17"), true),
        (with("v", regex("[0-9]+")), get("/?v=17a"), false),
        // As sent: nothing is decoded.
        (with("v", exact("a b")), get("/?v=a%20b"), false),
        (with("v", exact("a%20b")), get("/?v=a%20b"), true),
        (with("v", exact("1")), get("/?&&v=1&"), true),
        (with("v", exact("1")), get("/?%76=1"), false),
    ]);
}

#[test]
fn clients_and_ports() {
    let port = |port| Scope { port: Some(port), ..Scope::default() };
    let namespace = |name: &str| Scope { source_namespace: Some(name.into()), ..Scope::default() };
    let labels = |labels: &[(&str, &str)]| Scope {
        source_labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..Scope::default()
    };
    let table = [
        (Scope::default(), get("/"), true),
        (Scope::default(), get("/").anonymous(), true),
        (port(9080), get("/"), true),
        (port(9080), get("/").port(80), false),
        (namespace("shop"), get("/"), true),
        (namespace("default"), get("/"), false),
        (namespace("shop"), get("/").anonymous(), false),
        (labels(&[("app", "productpage")]), get("/"), true),
        (labels(&[("app", "batch")]), get("/"), false),
        (labels(&[("app", "productpage"), ("version", "v1")]), get("/"), false),
        (labels(&[("app", "productpage")]), get("/").anonymous(), false),
        (Scope { port: Some(80), ..namespace("shop") }, get("/"), false),
    ];
    for (scope, sent, expected) in table {
        let request = sent.request();
        assert_eq!(scope.covers(&request.client, request.destination), expected, "{scope:?} for {sent:?}");
    }
}

#[test]
fn all_of_a_condition_must_hold() {
    let all = HttpMatch {
        path: Some(PathMatch::Prefix("/a".into())),
        method: Some(exact("GET")),
        scheme: Some(exact("http")),
        authority: Some(exact("reviews:9080")),
        headers: headers(&[("x", exact("1"))]),
        without_headers: headers(&[("y", TextMatch::Present)]),
        query: [QueryMatch { name: "q".into(), value: TextMatch::Present }].into(),
        ..HttpMatch::default()
    };
    let good = || get("/a?q").header("x", "1");
    let one_wrong = [
        get("/b?q").header("x", "1"),
        good().method("POST"),
        good().scheme("https"),
        good().authority("other"),
        get("/a?q"),
        good().header("y", "1"),
        get("/a").header("x", "1"),
    ];
    assert!(all.holds(&good().request()));
    for sent in one_wrong {
        assert!(!all.holds(&sent.request()), "{sent:?}");
    }
}

proptest! {
    /// A request with or without a header is always either with or without it.
    #[test]
    fn with_and_without_exclude_each_other(
        values in proptest::collection::vec("[ab]{0,2}", 1..4),
        wanted in "[ab]{0,2}",
    ) {
        let sent = values.iter().fold(get("/"), |sent, value| sent.header("x", value));
        for condition in [exact(&wanted), starting(&wanted), TextMatch::Present] {
            let with = with(&[("x", condition.clone())]).holds(&sent.request());
            let without = without(&[("x", condition)]).holds(&sent.request());
            prop_assert_ne!(with, without);
        }
    }
}
