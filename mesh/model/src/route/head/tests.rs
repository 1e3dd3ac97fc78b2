//! What is sent on and what goes back: paths, authorities and headers.

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::{HeadChanges, InvalidHead};
use crate::address::Str;
use crate::path;
use crate::route::action::{Action, DirectResponse, Forward, PathRewrite};
use crate::route::fixtures::{Sent, acting, get, no_draw, operations, reviews, routing, split};
use crate::route::headers::CONTROL_HEADERS;
use crate::route::regex::{Regex, Substitution};
use crate::route::{
    Destination, Destinations, HeaderChanges, HttpMatch, HttpRule, Operations, Outcome, PathMatch, select,
};

/// What becomes of a request by a rule that takes it.
fn changes(rule: HttpRule, sent: &Sent) -> Result<HeadChanges, InvalidHead> {
    let routing = routing([rule]);
    match select(&routing, &sent.request(), &mut |_| 0).outcome {
        Outcome::Forward(forwarding) => forwarding.changes(&sent.request()),
        other => panic!("{other:?}"),
    }
}

fn forwarding(path: Option<PathMatch>, forward: Forward) -> HttpRule {
    let matches: Box<[HttpMatch]> = match path {
        None => Box::default(),
        path => [HttpMatch { path, ..HttpMatch::default() }].into(),
    };
    let destinations = Destinations::One(reviews("v1"));
    acting(0, matches, Action::Forward(Box::new(Forward { destinations, ..forward })))
}

fn rewriting(path: Option<PathMatch>, rewrite: PathRewrite) -> HttpRule {
    forwarding(path, Forward { rewrite_path: Some(rewrite), ..Forward::default() })
}

fn target(changes: &HeadChanges) -> Option<&str> {
    changes.path_and_query.as_ref().map(|path| path.as_str())
}

#[test]
fn paths_are_rewritten() {
    let prefix = |text: &str| Some(PathMatch::Prefix(text.into()));
    let exact = |text: &str| Some(PathMatch::Exact(text.into()));
    let regex = |text: &str| Some(PathMatch::Regex(Regex::new(text).unwrap()));
    let to = |text: &str| PathRewrite::Replace(text.into());
    let by = |pattern: &str, text: &str| PathRewrite::Regex(Substitution::new(pattern, text).unwrap());
    let table = [
        // The prefix that matched, and no more.
        (prefix("/api"), to("/v2"), "/api/x?y=1", Some("/v2/x?y=1")),
        (prefix("/api"), to("/v2"), "/apix", Some("/v2x")),
        (prefix("/api/"), to("/"), "/api/x", Some("/x")),
        (prefix("/api"), to("/"), "/api/x", Some("//x")),
        (prefix("/api"), to("/"), "/api", Some("/")),
        (prefix("/"), to("/v2"), "/x", Some("/v2x")),
        (prefix("/"), to("/v2/"), "/x", Some("/v2/x")),
        (prefix(""), to("/v2"), "/x", Some("/v2/x")),
        // All of it, where it matched exactly or by a regex.
        (exact("/api"), to("/v2"), "/api?y", Some("/v2?y")),
        (regex("/a.*"), to("/v2"), "/api/x?y", Some("/v2?y")),
        // Where nothing was asked of the path, Istio asks for the prefix `/`.
        (None, to("/v2/"), "/x/y", Some("/v2/x/y")),
        // A rewrite may bring a query.
        (prefix("/api"), to("/v2?k=v&"), "/api", Some("/v2?k=v&")),
        // Also to what it was, which the endpoint is told.
        (prefix("/api"), to("/api"), "/api/x?y", Some("/api/x?y")),
        // By a pattern, wherever it is, apart from the query.
        (
            prefix("/"),
            by("^/service/([^/]+)(/.*)$", r"\2/instance/\1"),
            "/service/foo/v1?s=/service/a/b",
            Some("/v1/instance/foo?s=/service/a/b"),
        ),
        (prefix("/"), by("/+", "/"), "//a///b?c=//", Some("/a/b?c=//")),
        (prefix("/"), by("z", "y"), "/a", Some("/a")),
        // What is escaped stays as it is.
        (prefix("/a%2F"), to("/b/"), "/a%2Fc%C3", Some("/b/c%C3")),
        // Dots that are part of a name.
        (prefix("/static"), to("/files/"), "/static..a/.b", Some("/files/..a/.b")),
    ];
    for (path, rewrite, sent, expected) in table {
        let rule = rewriting(path.clone(), rewrite.clone());
        let changes = changes(rule, &get(sent)).unwrap();
        assert_eq!(target(&changes), expected, "{path:?} {rewrite:?} of {sent}");
        // The endpoint is told what it was.
        let mut headers = HeaderMap::new();
        changes.apply(&mut headers);
        let original = headers.get("x-envoy-original-path").map(|value| value.to_str().unwrap());
        assert_eq!(original, expected.map(|_| sent));
    }
    let sent = get("/API/x");
    let mut rule = rewriting(prefix("/api"), to("/v2"));
    rule.matches[0].ignore_path_case = true;
    assert_eq!(target(&changes(rule, &sent).unwrap()), Some("/v2/x"));
}

#[test]
fn a_rewrite_that_leaves_no_path_is_an_error() {
    let prefix = || Some(PathMatch::Prefix("/".into()));
    let by = |pattern: &str, text: &str| PathRewrite::Regex(Substitution::new(pattern, text).unwrap());
    let table = [
        (by("^/.*$", ""), ""),
        (by("^/", ""), "a/b"),
        (by("^/", "http://evil/"), "http://evil/a/b"),
        (by("/b", "#b"), "/a#b"),
        (PathRewrite::Replace("v2/".into()), "v2/a/b"),
    ];
    for (rewrite, left) in table {
        let rule = rewriting(prefix(), rewrite);
        assert_eq!(changes(rule, &get("/a/b?q")), Err(InvalidHead::Path(left.into())));
    }
}

#[test]
fn nobody_is_led_out_of_where_a_rewrite_leads() {
    let prefix = |text: &str| Some(PathMatch::Prefix(text.into()));
    let to = |text: &str| PathRewrite::Replace(text.into());
    let by = |pattern: &str, text: &str| PathRewrite::Regex(Substitution::new(pattern, text).unwrap());
    let user = || by("^/u-(.+)$", r"/users/\1");
    let table = [
        (prefix("/static"), to("/files/"), "/static../admin?q", "/files/../admin"),
        (prefix("/static"), to("/files/"), "/static.", "/files/."),
        (prefix("/static"), to("/files/"), "/static..;x/admin", "/files/..;x/admin"),
        (prefix("/static"), to("/files/"), "/static;x/admin", "/files/;x/admin"),
        (prefix("/static"), to("/files/%2e"), "/static./admin", "/files/%2e./admin"),
        (prefix("/"), user(), "/u-../admin", "/users/../admin"),
        (prefix("/"), user(), "/u-..;x", "/users/..;x"),
        (prefix("/"), by("/b", r"\\b"), "/a/b", "/a\\b"),
        (prefix("/"), by("/b", " b"), "/a/b", "/a b"),
        (prefix("/"), by("/b", "\r\nx: y"), "/a/b", "/a\r\nx: y"),
    ];
    for (path, rewrite, sent, left) in table {
        let error = changes(rewriting(path, rewrite), &get(sent)).unwrap_err();
        assert_eq!(error, InvalidHead::Astray(left.into()), "{sent}");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}

fn named(authority: &str) -> HeaderChanges {
    let operations = Operations { authority: Some(authority.into()), ..Operations::default() };
    HeaderChanges { request: Some(Box::new(operations)), response: None }
}

#[test]
fn the_authority_is_the_rules_else_the_destinations() {
    // What the rule rewrites to, what its headers set, what the destination's set; and what is sent.
    type Row<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>);
    let table: [Row<'_>; 7] = [
        (None, None, None, None),
        (Some("a"), None, None, Some("a")),
        (Some("a"), Some("b"), Some("c"), Some("a")),
        (None, Some("b"), Some("c"), Some("b")),
        (None, None, Some("c:81"), Some("c:81")),
        (Some("reviews:9080"), None, None, Some("reviews:9080")),
        (Some("[fd00::1]:80"), None, None, Some("[fd00::1]:80")),
    ];
    for (rewrite, of_rule, of_destination, expected) in table {
        let destination =
            Destination { headers: of_destination.map(named).unwrap_or_default(), ..reviews("v1") };
        for destinations in [Destinations::One(destination.clone()), {
            Destinations::Split(
                [crate::route::Weighted { weight: 1, destination: destination.clone() }].into(),
            )
        }] {
            let forward =
                Forward { destinations, rewrite_authority: rewrite.map(Str::from), ..Forward::default() };
            let mut rule = acting(0, [], Action::Forward(Box::new(forward)));
            rule.headers = of_rule.map(named).unwrap_or_default();
            let changes = changes(rule, &get("/")).unwrap();
            assert_eq!(changes.authority.as_ref().map(|authority| authority.as_str()), expected);
            let mut headers = HeaderMap::new();
            changes.apply(&mut headers);
            let original = headers.get("x-envoy-original-host").map(|value| value.to_str().unwrap());
            assert_eq!(original, expected.map(|_| "reviews:9080"));
        }
    }
    for wrong in ["a b", "", "a/b", "a\r\n"] {
        let forward = Forward { rewrite_authority: Some(wrong.into()), ..Forward::default() };
        assert_eq!(changes(forwarding(None, forward), &get("/")), Err(InvalidHead::Authority(wrong.into())));
    }
}

/// A rule and its destination, both with operations on requests and responses, sole or one of two.
fn operating(of_rule: Operations, of_destination: Operations, sole: bool) -> HttpRule {
    let both = |one: Operations| HeaderChanges {
        request: Some(Box::new(one.clone())),
        response: Some(Box::new(one)),
    };
    let destination = Destination { headers: both(of_destination), ..reviews("v1") };
    let destinations = if sole {
        Destinations::One(destination)
    } else {
        let mut split = split(&[(1, "v1"), (1, "v2")]);
        if let Destinations::Split(all) = &mut split {
            all[0].destination = destination;
        }
        split
    };
    let mut rule = acting(0, [], Action::Forward(Box::new(Forward { destinations, ..Forward::default() })));
    rule.headers = both(of_rule);
    rule
}

#[test]
fn headers_of_rule_and_destination_meet_as_in_istio() {
    // The rule's, the destination's; what is left where it is the only one, and where it is one of several.
    let table = [
        (operations("", "a=rule", ""), operations("", "a=destination", ""), "destination", "rule"),
        (operations("", "a=rule", ""), operations("", "", "a=destination"), "rule, destination", "rule"),
        (
            operations("", "", "a=rule"),
            operations("", "a=destination", ""),
            "destination, rule",
            "destination, rule",
        ),
        (operations("a", "", ""), operations("", "", "a=destination"), "destination", ""),
        (operations("", "", "a=rule"), operations("a", "", ""), "rule", "rule"),
    ];
    for (of_rule, of_destination, sole, split) in table {
        for (is_sole, expected) in [(true, sole), (false, split)] {
            let routing = routing([operating(of_rule.clone(), of_destination.clone(), is_sole)]);
            let sent = get("/").header("a", "client");
            let request = sent.request();
            let decision = select(&routing, &request, &mut |_| 0);
            let Outcome::Forward(forwarding) = decision.outcome else { panic!("{decision:?}") };
            let mut headers = request.headers.clone();
            forwarding.changes(&request).unwrap().apply(&mut headers);
            let values = |headers: &HeaderMap| {
                let all: Vec<_> = headers.get_all("a").iter().map(|value| value.to_str().unwrap()).collect();
                all.join(", ")
            };
            assert_eq!(values(&headers), expected, "{of_rule:?} {of_destination:?} sole: {is_sole}");
            // And the same on the way back.
            let mut response = request.headers.clone();
            for edit in decision.response_edits(&request, StatusCode::OK, &request.headers.clone()) {
                edit.apply(&mut response);
            }
            assert_eq!(values(&response), expected, "{of_rule:?} {of_destination:?} sole: {is_sole}");
        }
    }
}

#[test]
fn answers_get_the_rules_response_headers() {
    let answer = Action::Respond(Box::new(DirectResponse { status: StatusCode::OK, body: None }));
    let mut rule = acting(0, [], answer);
    rule.headers.response = Some(Box::new(operations("", "x-code=%RESPONSE_CODE%", "")));
    let routing = routing([rule]);
    let sent = get("/");
    let decision = select(&routing, &sent.request(), &mut no_draw);
    let mut headers = HeaderMap::new();
    for edit in decision.response_edits(&sent.request(), StatusCode::OK, &HeaderMap::new()) {
        edit.apply(&mut headers);
    }
    assert_eq!(headers.get("x-code").unwrap(), "200");
}

#[test]
fn clients_do_not_steer() {
    let sent = CONTROL_HEADERS
        .iter()
        .fold(get("/").header("x-user", "a"), |sent, name| sent.header(name.as_str(), "1"));
    let changes = changes(forwarding(None, Forward::default()), &sent).unwrap();
    let mut headers = sent.request().headers.clone();
    changes.apply(&mut headers);
    let left: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(left, ["x-user"]);
}

proptest! {
    /// A rewritten prefix keeps the rest of the path and the query, byte by byte.
    #[test]
    fn a_prefix_rewrite_keeps_the_rest(
        prefix in "(/[a-z0-9]{0,4}){1,3}",
        rest in "[a-zA-Z0-9/%._~-]{0,12}",
        query in proptest::option::of("[a-z=&?/%0-9]{0,10}"),
        by in "(/[a-z0-9]{1,4}){1,3}/?",
    ) {
        let tail = query.map(|query| format!("?{query}")).unwrap_or_default();
        let rule = rewriting(Some(PathMatch::Prefix(prefix.as_str().into())), PathRewrite::Replace(by.as_str().into()));
        let sent = format!("{prefix}{rest}{tail}");
        let changes = changes(rule, &get(&sent));
        let rewritten = format!("{by}{rest}");
        if path::is_straight(&rewritten) {
            let expected = format!("{rewritten}{tail}");
            let changes = changes.unwrap();
            prop_assert_eq!(target(&changes), Some(expected.as_str()));
        } else {
            prop_assert_eq!(changes, Err(InvalidHead::Astray(rewritten)));
        }
    }
}
