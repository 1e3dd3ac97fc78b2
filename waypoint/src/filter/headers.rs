//! What belongs to one connection and must not go over the next (RFC 9110, section 7.6.1). Pure.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::read::tokens;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes away what is about the connection that a message came on; what it is to be upgraded to stays.
pub(super) fn leave_connection(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
        for name in named.iter().filter(|name| !is_ours(name)) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    // The one word of it that goes on (RFC 9110, section 10.1.4): calls of gRPC need it.
    if headers.contains_key(header::TE) {
        let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
}

/// Headers that a client cannot have taken away by naming them in `Connection`: what they say is said to the endpoint,
/// and it may trust in it.
fn is_ours(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::CONTENT_LENGTH
        || *name == header::TE
        // The body is held back until the endpoint answers to it.
        || *name == header::EXPECT
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str() == "x-request-id"
}

/// Makes several `Cookie` fields one (RFC 9113, section 8.2.3): clients of HTTP/2 may part them, applications put them
/// together, and rules read what applications will.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // What was fit for a field each is so together.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_one_field() {
        for (before, after) in [
            (
                &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")][..],
                &[("cookie", "a=1; b=2"), ("x", "y")][..],
            ),
            (&[("cookie", "a=1")], &[("cookie", "a=1")]),
            (&[], &[]),
        ] {
            let mut headers = map(before);
            join_cookies(&mut headers);
            assert_eq!(headers, map(after));
        }
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_what_goes_from_end_to_end_stays() {
        for (before, upgrade, after) in [
            (
                &[("connection", "close, X-Own"), ("x-own", "1"), ("x-other", "2"), ("keep-alive", "5")][..],
                None,
                &[("x-other", "2")][..],
            ),
            (&[("te", "gzip, trailers")], None, &[("te", "trailers")]),
            (&[("te", "gzip")], None, &[]),
            (&[("connection", "te"), ("te", "trailers")], None, &[("te", "trailers")]),
            (
                &[("connection", "x-forwarded-for, host"), ("x-forwarded-for", "a"), ("host", "h")],
                None,
                &[("x-forwarded-for", "a"), ("host", "h")],
            ),
            (&[("connection", "expect"), ("expect", "100-continue")], None, &[("expect", "100-continue")]),
            // Without its length the body would be the next request.
            (
                &[
                    ("connection", "content-length, x-request-id"),
                    ("content-length", "5"),
                    ("x-request-id", "a"),
                ],
                None,
                &[("content-length", "5"), ("x-request-id", "a")],
            ),
            (
                &[("connection", "upgrade"), ("upgrade", "websocket")],
                Some("websocket"),
                &[("connection", "upgrade"), ("upgrade", "websocket")],
            ),
            (
                &[("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "x")],
                None,
                &[("http2-settings", "x")],
            ),
            (&[("transfer-encoding", "chunked"), ("proxy-connection", "close")], None, &[]),
        ] {
            let mut headers = map(before);
            leave_connection(&mut headers, upgrade.map(HeaderValue::from_static));
            assert_eq!(headers, map(after), "{before:?}");
        }
    }
}
