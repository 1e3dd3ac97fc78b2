//! Which origins may call, and what they are told.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Cors, CorsDecision, UnmatchedPreflights};
use crate::route::Regex;
use crate::route::fixtures::{Sent, get};
use crate::route::text::TextMatch;

fn full() -> Cors {
    let list = |text: &'static str| Some(HeaderValue::from_static(text));
    Cors {
        allow_origins: [TextMatch::Exact("https://shop.example".into())].into(),
        allow_methods: list("GET,POST"),
        allow_headers: list("x-user,content-type"),
        expose_headers: list("x-total"),
        max_age: Some(86_400),
        allow_credentials: true,
        unmatched_preflights: UnmatchedPreflights::Forward,
    }
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

/// What becomes of a request: the status, if it is answered, and the headers of answer or response.
fn decided(cors: &Cors, sent: &Sent) -> (Option<StatusCode>, Vec<String>) {
    match cors.decide(&sent.request()) {
        CorsDecision::Pass => (None, Vec::new()),
        CorsDecision::Answer(status, headers) => (Some(status), lines(&headers)),
        CorsDecision::Allow(edits) => {
            let mut headers = HeaderMap::new();
            // What the application says of it does not count.
            headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
            edits.into_iter().for_each(|edit| edit.apply(&mut headers));
            (None, lines(&headers))
        }
    }
}

fn from(origin: &str) -> Sent {
    get("/").header("origin", origin)
}

fn preflight(origin: &str) -> Sent {
    from(origin).method("OPTIONS").header("access-control-request-method", "PUT")
}

const GOOD: &str = "https://shop.example";
const BAD: &str = "https://evil.example";

#[test]
fn preflights_are_answered() {
    let all = [
        "access-control-allow-credentials: true",
        "access-control-allow-headers: x-user,content-type",
        "access-control-allow-methods: GET,POST",
        "access-control-allow-origin: https://shop.example",
        "access-control-expose-headers: x-total",
        "access-control-max-age: 86400",
    ];
    assert_eq!(decided(&full(), &preflight(GOOD)), (Some(StatusCode::OK), all.map(Into::into).into()));
    // Only what is set is said.
    let bare = Cors { allow_origins: full().allow_origins, ..Cors::default() };
    let only = vec!["access-control-allow-origin: https://shop.example".to_owned()];
    assert_eq!(decided(&bare, &preflight(GOOD)), (Some(StatusCode::OK), only));
    let none = Cors { max_age: Some(0), ..bare };
    assert!(decided(&none, &preflight(GOOD)).1.contains(&"access-control-max-age: 0".to_owned()));
}

#[test]
fn preflights_of_others_go_on_or_are_ignored() {
    assert_eq!(decided(&full(), &preflight(BAD)), (None, Vec::new()));
    let ignoring = Cors { unmatched_preflights: UnmatchedPreflights::Ignore, ..full() };
    let without_origin = [
        "access-control-allow-credentials: true",
        "access-control-allow-headers: x-user,content-type",
        "access-control-allow-methods: GET,POST",
        "access-control-max-age: 86400",
    ];
    let answer = (Some(StatusCode::OK), without_origin.map(Into::into).into());
    assert_eq!(decided(&ignoring, &preflight(BAD)), answer);
    assert_eq!(decided(&ignoring, &from(BAD)), (None, Vec::new()));
    assert_eq!(decided(&ignoring, &preflight(GOOD)).1.len(), 6);
}

#[test]
fn other_requests_go_on_and_their_responses_get_headers() {
    let told = [
        "access-control-allow-credentials: true",
        "access-control-allow-origin: https://shop.example",
        "access-control-expose-headers: x-total",
    ];
    let allowed = (None, Vec::from(told.map(Into::into)));
    let passed = (None, Vec::new());
    let table = [
        (from(GOOD), &allowed),
        (from(GOOD).method("POST"), &allowed),
        // No preflight: the application's own OPTIONS.
        (from(GOOD).method("OPTIONS"), &allowed),
        (from(GOOD).method("OPTIONS").header("access-control-request-method", ""), &allowed),
        (from(BAD), &passed),
        (get("/"), &passed),
        (from(""), &passed),
        (get("/").method("OPTIONS").header("access-control-request-method", "PUT"), &passed),
    ];
    for (sent, expected) in table {
        assert_eq!(&decided(&full(), &sent), expected, "{sent:?}");
    }
}

#[test]
fn origins() {
    let regex = |pattern: &str| TextMatch::Regex(Regex::new(pattern).unwrap());
    let exact = |text: &str| TextMatch::Exact(text.into());
    let table: [(&[TextMatch], &str, bool); 10] = [
        (&[], GOOD, false),
        (&[exact(GOOD)], GOOD, true),
        (&[exact(GOOD)], "https://shop.example.evil", false),
        (&[exact(GOOD)], "HTTPS://shop.example", false),
        (&[TextMatch::Prefix("https://shop".into())], "https://shop.evil", true),
        (&[regex(r"https://[a-z]+\.example")], GOOD, true),
        (&[regex(r"https://[a-z]+\.example")], "https://x.evil/https://a.example", false),
        (&[exact("no"), exact("*")], BAD, true),
        (&[regex(".*")], BAD, true),
        (&[exact("null")], "null", true),
    ];
    for (origins, origin, expected) in table {
        let cors = Cors { allow_origins: origins.into(), ..full() };
        let (_, headers) = decided(&cors, &from(origin));
        let expected = expected.then(|| format!("access-control-allow-origin: {origin}"));
        assert_eq!(headers.get(1).cloned(), expected, "{origins:?} for {origin}");
    }
}
