//! Where redirects lead.

use http::StatusCode;

use super::{Redirect, RedirectPath, RedirectPort, split_port};
use crate::route::fixtures::{Sent, get};

fn redirect() -> Redirect {
    Redirect { path: None, authority: None, port: None, scheme: None, code: StatusCode::MOVED_PERMANENTLY }
}

fn whole(path: &str) -> Redirect {
    Redirect { path: Some(RedirectPath::Whole(path.into())), ..redirect() }
}

fn instead(prefix: &str) -> Redirect {
    Redirect { path: Some(RedirectPath::Prefix(prefix.into())), ..redirect() }
}

fn to(authority: &str) -> Redirect {
    Redirect { authority: Some(authority.into()), ..redirect() }
}

fn port(port: RedirectPort) -> Redirect {
    Redirect { port: Some(port), ..redirect() }
}

fn https(redirect: Redirect) -> Redirect {
    Redirect { scheme: Some("https".into()), ..redirect }
}

fn location(redirect: &Redirect, sent: &Sent, matched: usize) -> String {
    let location = redirect.location(&sent.request(), matched).unwrap();
    location.to_str().unwrap().to_owned()
}

#[test]
fn what_is_not_replaced_stays() {
    use RedirectPort::{Number, OfRequest};
    let at = |authority: &str| get("/a/b?c=d").authority(authority);
    let table = [
        (redirect(), at("h"), "http://h/a/b?c=d"),
        (redirect(), at("h:8080"), "http://h:8080/a/b?c=d"),
        (to("g"), at("h:8080"), "http://g/a/b?c=d"),
        (to("g:1"), at("h:8080"), "http://g:1/a/b?c=d"),
        // The query stays, unless the new path has one.
        (whole("/x"), at("h"), "http://h/x?c=d"),
        (whole("/x?y"), at("h"), "http://h/x?y"),
        (whole("/x?"), at("h"), "http://h/x?"),
        (whole("/x"), get("/a").authority("h"), "http://h/x"),
        // Another scheme: a port that only the old one implied goes.
        (https(redirect()), at("h"), "https://h/a/b?c=d"),
        (https(redirect()), at("h:80"), "https://h/a/b?c=d"),
        (https(redirect()), at("h:8080"), "https://h:8080/a/b?c=d"),
        (https(redirect()), at("h:80").scheme("https"), "https://h:80/a/b?c=d"),
        (
            Redirect { scheme: Some("http".into()), ..redirect() },
            at("h:443").scheme("https"),
            "http://h/a/b?c=d",
        ),
        // A port; none where the scheme implies it.
        (port(Number(81)), at("h"), "http://h:81/a/b?c=d"),
        (port(Number(81)), at("h:8080"), "http://h:81/a/b?c=d"),
        (port(Number(80)), at("h:8080"), "http://h/a/b?c=d"),
        (https(port(Number(443))), at("h:8080"), "https://h/a/b?c=d"),
        (https(port(Number(80))), at("h"), "https://h:80/a/b?c=d"),
        (port(OfRequest), at("h:1"), "http://h:9080/a/b?c=d"),
        (port(OfRequest), at("h:1").port(80), "http://h/a/b?c=d"),
        (https(port(OfRequest)), at("h").port(80), "https://h:80/a/b?c=d"),
        (Redirect { port: Some(Number(81)), ..to("g") }, at("h"), "http://g:81/a/b?c=d"),
        // IPv6.
        (redirect(), at("[fd00::1]"), "http://[fd00::1]/a/b?c=d"),
        (port(Number(81)), at("[fd00::1]"), "http://[fd00::1]:81/a/b?c=d"),
        (port(Number(81)), at("[fd00::1]:80"), "http://[fd00::1]:81/a/b?c=d"),
        (https(redirect()), at("[fd00::1]:80"), "https://[fd00::1]/a/b?c=d"),
    ];
    for (redirect, sent, expected) in table {
        assert_eq!(location(&redirect, &sent, 0), expected, "{redirect:?} for {sent:?}");
    }
}

#[test]
fn a_prefix_may_be_replaced() {
    let table = [
        ("/a", 2, "/x", "/x/b?c"),
        ("/a/", 3, "/x/", "/x/b?c"),
        ("/a/b", 4, "/x", "/x?c"),
        ("", 0, "/x", "/x/a/b?c"),
    ];
    for (prefix, matched, by, expected) in table {
        let sent = get("/a/b?c").authority("h");
        assert_eq!(location(&instead(by), &sent, matched), format!("http://h{expected}"), "{prefix} by {by}");
    }
}

#[test]
fn a_path_that_looks_like_a_host_stays_a_path() {
    let sent = get("//evil.example/a").authority("h");
    assert_eq!(location(&redirect(), &sent, 0), "http://h//evil.example/a");
    // What no header may have makes no location.
    let broken = get("/").authority("h\r\nset-cookie: a");
    assert_eq!(redirect().location(&broken.request(), 0), None);
}

#[test]
fn ports_are_found() {
    let table = [
        ("h", None),
        ("h:1", Some(("h", "1"))),
        ("[fd00::1]", None),
        ("[fd00::1]:1", Some(("[fd00::1]", "1"))),
        ("fd00::1", None),
        ("", None),
        (":1", Some(("", "1"))),
    ];
    for (authority, expected) in table {
        assert_eq!(split_port(authority), expected, "{authority}");
    }
}
