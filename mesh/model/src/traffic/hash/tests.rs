//! What is hashed of which request.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Hashed, xxh64};
use crate::fixtures::socket;
use crate::request::{Client, Forwarded, Request};
use crate::traffic::{HashCookie, HashKey};

const CLIENT: &str = "10.244.0.7:40000";

type Headers = &'static [(&'static str, &'static str)];

fn hash(key: &HashKey, headers: &[(&str, &str)], query: Option<&str>, client: &str) -> Hashed {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    key.of_request(&Request {
        method: &Method::GET,
        scheme: "http",
        authority: "reviews",
        path: "/",
        query,
        headers: &map,
        client: Client { address: socket(client), identity: None, labels: None },
        destination: socket("10.96.0.1:80"),
        forwarded: Forwarded::default(),
    })
}

fn of(text: &str) -> Hashed {
    Hashed::Hash(xxh64(text.as_bytes(), 0))
}

fn cookie(ttl: Option<u64>, path: Option<&str>) -> HashCookie {
    HashCookie {
        name: "user".into(),
        path: path.map(Into::into),
        ttl: ttl.map(Duration::from_secs),
        attributes: Box::default(),
    }
}

#[test]
fn the_key_is_hashed_and_what_has_none_is_missing() {
    let header = HashKey::Header("X-User".into());
    let by_cookie = HashKey::Cookie(cookie(None, None));
    let query = HashKey::QueryParameter("user".into());
    let ip = HashKey::SourceIp;
    let (none, missing) = (None, Hashed::Missing);
    #[rustfmt::skip]
    let table: Vec<(&HashKey, Headers, Option<&str>, Hashed)> = vec![
        (&header, &[("x-user", "anna")], none, of("anna")),
        (&header, &[("x-user", "")], none, of("")),
        (&header, &[("x-other", "anna")], none, missing.clone()),
        (&by_cookie, &[("cookie", "user=anna")], none, of("anna")),
        (&by_cookie, &[("cookie", "a=b; user=anna; c=d")], none, of("anna")),
        (&by_cookie, &[("cookie", "a=b"), ("cookie", "user=\"anna\"")], none, of("anna")),
        (&by_cookie, &[("cookie", "user=anna; user=bert")], none, of("anna")),
        (&by_cookie, &[("cookie", "superuser=anna; user")], none, missing.clone()),
        (&by_cookie, &[("cookie", "user=")], none, missing.clone()),
        (&by_cookie, &[], none, missing.clone()),
        (&query, &[], Some("user=anna"), of("anna")),
        (&query, &[], Some("a=b&user=anna&user=bert"), of("anna")),
        (&query, &[], Some("user=an%20na"), of("an%20na")),
        (&query, &[], Some("user"), of("")),
        (&query, &[], Some("USER=anna"), missing.clone()),
        (&query, &[], none, missing.clone()),
        (&ip, &[], none, of("10.244.0.7")),
    ];
    for (key, headers, query, expected) in table {
        assert_eq!(hash(key, headers, query, CLIENT), expected, "{key:?} of {headers:?} {query:?}");
    }
}

#[test]
fn repeated_headers_count_whatever_their_order() {
    let key = HashKey::Header("x-user".into());
    let there = hash(&key, &[("x-user", "anna"), ("x-user", "bert")], None, CLIENT);
    let back = hash(&key, &[("x-user", "bert"), ("x-user", "anna")], None, CLIENT);
    assert_eq!(there, back);
    assert_eq!(there, Hashed::Hash(xxh64(b"bert", xxh64(b"anna", 0))));
    assert_ne!(there, of("anna"));
}

#[test]
fn the_clients_address_counts_and_not_its_port() {
    let ip = HashKey::SourceIp;
    let one = hash(&ip, &[], None, CLIENT);
    assert_eq!(one, hash(&ip, &[], None, "10.244.0.7:50000"));
    assert_eq!(one, hash(&ip, &[], None, "[::ffff:10.244.0.7]:50000"));
    assert_eq!(one, ip.of_connection(socket(CLIENT)));
    assert_ne!(one, hash(&ip, &[], None, "10.244.0.8:40000"));
    assert_eq!(hash(&ip, &[], None, "[fd00::1]:1"), of("fd00::1"));
    // Of a connection nothing else is known.
    for key in [
        HashKey::Header("x".into()),
        HashKey::QueryParameter("x".into()),
        HashKey::Cookie(cookie(Some(1), None)),
    ] {
        assert_eq!(key.of_connection(socket(CLIENT)), Hashed::Missing, "{key:?}");
    }
}

#[test]
fn a_client_without_a_cookie_is_given_one_that_leads_it_back() {
    let attributes = [("SameSite".into(), Some("Strict".into())), ("Secure".into(), None)].into();
    #[rustfmt::skip]
    let table = [
        (cookie(Some(0), None), "; HttpOnly"),
        (cookie(Some(3600), None), "; Max-Age=3600; HttpOnly"),
        (cookie(Some(0), Some("/shop")), "; Path=/shop; HttpOnly"),
        (cookie(Some(0), Some("")), "; HttpOnly"),
        (HashCookie { attributes, ..cookie(Some(5), Some("/")) }, "; Max-Age=5; Path=/; SameSite=Strict; Secure; HttpOnly"),
    ];
    for (cookie, expected) in table {
        let key = HashKey::Cookie(cookie);
        let first = hash(&key, &[("cookie", "user=")], None, CLIENT);
        let Hashed::NewCookie { hash: made, set_cookie } = &first else { panic!("{first:?}") };
        let (pair, rest) = set_cookie.split_at(set_cookie.find(';').unwrap());
        assert_eq!(rest, expected);
        let value = pair.strip_prefix("user=\"").unwrap().strip_suffix('"').unwrap();
        assert!(value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
        assert_eq!(hash(&key, &[("cookie", pair)], None, CLIENT), Hashed::Hash(*made));
        // The same connection is given the same, another one another.
        assert_eq!(hash(&key, &[], None, CLIENT), first);
        assert_ne!(hash(&key, &[], None, "10.244.0.7:40001").hash(), first.hash());
    }
}
