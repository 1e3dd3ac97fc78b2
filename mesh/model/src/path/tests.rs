//! What becomes of request targets: tables, and what holds of any.

use std::borrow::Cow;

use http::Method;
use proptest::prelude::{ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::{Absolute, Refusal, canonical, pattern, target};

/// Nearly all paths come in their one form; no memory is taken for these.
#[test]
fn a_path_that_is_as_it_should_be_is_not_copied() {
    for path in ["/", "/a/b", "/a/", "/~_-1", "/a.b/c:d@e,f=g!"] {
        assert!(matches!(canonical(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
    }
}

#[test]
fn each_path_has_one_form() {
    let table = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        // Dot segments, escaped or not.
        ("/.", "/"),
        ("/..", "/"),
        ("/../..", "/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/../b", "/b"),
        ("/a/b/../../c", "/c"),
        ("/../a", "/a"),
        ("/a/./b/.", "/a/b/"),
        ("/%2e%2E/a/%2e/b", "/a/b"),
        ("/a/.%2e/b", "/b"),
        ("/...", "/..."),
        ("/.well-known/a", "/.well-known/a"),
        ("/a../b", "/a../b"),
        // Empty segments.
        ("//", "/"),
        ("//a", "/a"),
        ("/a///b//", "/a/b/"),
        ("/a//./b", "/a/b"),
        ("/a/..//b", "/b"),
        // Escapes.
        ("/%41%7e%2D%5f", "/A~-_"),
        ("/%c3%a9", "/%C3%A9"),
        ("/é", "/%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a%3bb", "/a%3Bb"),
        ("/a%40b@c", "/a%40b@c"),
        ("/{a}|\"<>^`[]", "/%7Ba%7D%7C%22%3C%3E%5E%60%5B%5D"),
        ("/%3F%23%25", "/%3F%23%25"),
        // Twice escaped is escaped once.
        ("/%252e%252e/%252F", "/%252e%252e/%252F"),
        ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
        ("/a;v=1/b", "/a;v=1/b"),
    ];
    for (raw, expected) in table {
        assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn what_has_two_readings_is_refused() {
    use Refusal::*;
    let table = [
        ("", Form),
        ("a", Form),
        ("*", Form),
        ("/%", Escape),
        ("/%2", Escape),
        ("/%zz", Escape),
        ("/%+1", Escape),
        ("/%é", Escape),
        ("/a%2Fb", EscapedSlash),
        ("/a%2fb", EscapedSlash),
        ("/a%5Cb", EscapedSlash),
        ("/..%5c", EscapedSlash),
        ("/a\\b", Backslash),
        ("/a#b", Fragment),
        ("/a b", Control),
        ("/a\tb", Control),
        ("/a\0", Control),
        ("/a\u{7f}", Control),
        ("/a%00", Control),
        ("/a%0a", Control),
        ("/a%1F", Control),
        ("/a%7f", Control),
        ("/a//../b", ParentOfNothing),
        ("//..", ParentOfNothing),
        ("/a//./%2e./b", ParentOfNothing),
        ("/..;/a", ParameterOfNothing),
        ("/.;x=1/a", ParameterOfNothing),
        ("/a/;x/b", ParameterOfNothing),
        ("/%2e%2E;a", ParameterOfNothing),
    ];
    for (raw, expected) in table {
        assert_eq!(canonical(raw), Err(expected), "{raw:?}");
        assert!(!expected.to_string().is_empty());
    }
}

#[test]
fn a_target_is_path_and_query_in_each_form() {
    let get = Method::GET;
    let seen = |method: &Method, raw| {
        target(method, raw).map(|target| {
            let absolute = target.absolute.map(|Absolute { scheme, authority }| (scheme, authority));
            (target.path.into_owned(), target.query, absolute)
        })
    };
    let plain = |path: &str, query| Ok((path.to_owned(), query, None));
    assert_eq!(seen(&get, "/a/../b?x=/../y?z"), plain("/b", Some("x=/../y?z")));
    assert_eq!(seen(&get, "/?"), plain("/", Some("")));
    assert_eq!(seen(&get, "/a?%00\\"), plain("/a", Some("%00\\")));
    let host = Some(("http", "a.example:80"));
    assert_eq!(seen(&get, "http://a.example:80"), Ok(("/".into(), None, host)));
    assert_eq!(seen(&get, "http://a.example:80?q"), Ok(("/".into(), Some("q"), host)));
    assert_eq!(seen(&get, "http://a.example:80//b"), Ok(("/b".into(), None, host)));
    assert_eq!(seen(&get, "HTTPS://A/%7e"), Ok(("/~".into(), None, Some(("HTTPS", "A")))));
    assert_eq!(seen(&Method::OPTIONS, "*"), plain("*", None));
    assert_eq!(seen(&Method::OPTIONS, "http://a.example:80"), Ok(("*".into(), None, host)));
    for (raw, expected) in [
        ("*", Refusal::Form),
        ("", Refusal::Form),
        ("a.example:443", Refusal::Form),
        ("ftp://a/", Refusal::Form),
        ("http:/a", Refusal::Form),
        ("http:///a", Refusal::Authority),
        ("http://u:p@a/", Refusal::Authority),
        ("http://a b/", Refusal::Authority),
        ("http://a\\b/", Refusal::Authority),
        ("http://a#/", Refusal::Fragment),
        ("/a?b#c", Refusal::Fragment),
        ("/a?b c", Refusal::Control),
        ("/a?b\r\nc", Refusal::Control),
    ] {
        assert_eq!(seen(&get, raw), Err(expected), "{raw:?}");
    }
}

#[test]
fn a_rules_path_is_spelt_as_canonical_ones_are() {
    for (written, expected) in [
        ("/a/b", "/a/b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/%7euser", "/~user"),
        (".html", ".html"),
        // No canonical path has it, so nothing is like it.
        ("/a%2fb", "/a%2fb"),
    ] {
        assert_eq!(pattern(written), expected, "{written}");
    }
}

fn piece() -> impl Strategy<Value = String> {
    const COMMON: &[&str] =
        &["/", "//", ".", "..", "a", "B", ";", "%2e", "%2E", "%41", "%c3%a9", "%25", "2f", "é", "{", "@"];
    prop_oneof![9 => select(COMMON).prop_map(str::to_owned), 1 => "[ -~]{0,3}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn a_canonical_path_stays_as_it_is(pieces in proptest::collection::vec(piece(), 0..12)) {
        let raw = format!("/{}", pieces.concat());
        let Ok(path) = canonical(&raw) else { return Ok(()) };
        let again = canonical(&path);
        prop_assert_eq!(again.as_deref(), Ok(&*path), "of {}", &raw);
        prop_assert!(path.starts_with('/') && path.is_ascii(), "{}", path);
        let segments: Vec<&str> = path[1..].split('/').collect();
        let (last, inner) = segments.split_last().unwrap();
        prop_assert!(inner.iter().all(|segment| !matches!(*segment, "" | "." | "..")), "{}", path);
        prop_assert!(!matches!(*last, "." | ".."), "{}", path);
        prop_assert_eq!(pattern(&path), &*path);
    }

    #[test]
    fn no_target_is_read_without_its_path_being_canonical(raw in "\\PC{0,24}") {
        for method in [Method::GET, Method::OPTIONS] {
            let Ok(read) = target(&method, &raw) else { continue };
            if read.path != "*" {
                let again = canonical(&read.path);
                prop_assert_eq!(again.as_deref(), Ok(&*read.path));
            }
        }
    }
}
