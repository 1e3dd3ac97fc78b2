//! A request's head, read once: what it asks for in one canonical form, or why it is refused. Pure.

use http::request::Parts;
use http::{HeaderMap, Method, Version, header};
use model::path;
use model::request::{Forwarded, Request};
use model::route::timeout::is_grpc;
use thiserror::Error;

use crate::listen::Inbound;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Host and port as sent, in lower case.
    pub(crate) authority: String,
    /// The canonical path, without query.
    pub(crate) path: String,
    /// The query, as sent.
    pub(crate) query: Option<String>,
    /// What is to be spoken instead of HTTP afterwards, where the client asks for that.
    pub(crate) upgrade: Option<http::HeaderValue>,
    /// Whether the client waits before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether it is a call of gRPC.
    pub(crate) grpc: bool,
}

impl Asked {
    /// The request as routing and policy see it.
    pub(super) fn request<'a>(&'a self, head: &'a Parts, inbound: &'a Inbound) -> Request<'a> {
        Request {
            method: &head.method,
            scheme: "http",
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &head.headers,
            client: inbound.asking(),
            destination: inbound.target.destination,
            forwarded: Forwarded::default(),
        }
    }
}

/// Why a request is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BadRequest {
    /// The target can be read in two ways.
    #[error(transparent)]
    Target(#[from] path::Refusal),
    /// No host, or several.
    #[error("the request has no host, or more than one; send one Host")]
    Host,
    /// The host is no text that a host can be.
    #[error("the request's host has characters that no host has")]
    HostText,
    /// CONNECT is how tunnels are asked for, not requests.
    #[error("CONNECT is not carried")]
    Connect,
}

/// Reads a head.
///
/// # Errors
/// It cannot be read, or in more than one way.
pub(crate) fn read(head: &Parts) -> Result<Asked, BadRequest> {
    if head.method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let raw;
    let target = match (head.uri.scheme(), head.uri.path_and_query()) {
        // In HTTP/2 scheme and authority are fields of their own.
        (_, Some(path)) if head.version == Version::HTTP_2 => path.as_str(),
        (None, Some(path)) => path.as_str(),
        _ => {
            raw = head.uri.to_string();
            &raw
        }
    };
    let target = path::target(&head.method, target)?;
    let authority = match &target.absolute {
        Some(absolute) => absolute.authority,
        None => authority(head)?,
    };
    let visible = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]!$&'()*+,;=%".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(visible) {
        return Err(BadRequest::HostText);
    }
    Ok(Asked {
        authority: authority.to_ascii_lowercase(),
        path: target.path.into_owned(),
        query: target.query.map(str::to_owned),
        upgrade: upgrade(head),
        expects_continue: expects_continue(head),
        grpc: is_grpc(&head.headers),
    })
}

fn authority(head: &Parts) -> Result<&str, BadRequest> {
    if head.version == Version::HTTP_2
        && let Some(authority) = head.uri.authority()
    {
        return Ok(authority.as_str());
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| BadRequest::HostText),
        _ => Err(BadRequest::Host),
    }
}

/// What `Upgrade` asks for, where `Connection` names it; there is none in HTTP/2 (RFC 9113, section 8.6) nor in 1.0. HTTP in
/// another version or under TLS is left out: its requests would pass here unread, and nobody would judge them.
fn upgrade(head: &Parts) -> Option<http::HeaderValue> {
    let listed =
        || tokens(&head.headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if head.version != Version::HTTP_11 || !head.headers.contains_key(header::UPGRADE) || !listed() {
        return None;
    }
    let others: Vec<&str> = tokens(&head.headers, &header::UPGRADE).filter(|to| !carries_http(to)).collect();
    if others.is_empty() { None } else { http::HeaderValue::try_from(others.join(", ")).ok() }
}

/// Whether requests would be sent over what a client wants to speak instead (`NAME/VERSION`).
fn carries_http(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or(protocol).trim();
    ["h2c", "h2", "h3", "http", "tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn expects_continue(head: &Parts) -> bool {
    let expected = head.headers.get(header::EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The tokens of a list, however many fields it is spread over.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request as Built;

    use super::*;

    fn head(version: Version, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Built::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_host_is_where_the_version_has_it() {
        let one = Version::HTTP_11;
        for (version, target, headers, expected) in [
            (one, "/a", &[("host", "Reviews:9080")][..], Ok("reviews:9080")),
            (one, "/a", &[], Err(BadRequest::Host)),
            (one, "/a", &[("host", "a"), ("host", "a")], Err(BadRequest::Host)),
            (one, "http://b/a", &[("host", "a")], Ok("b")),
            (one, "/a", &[("host", "a/b")], Err(BadRequest::HostText)),
            (Version::HTTP_2, "http://b/a", &[("host", "a")], Ok("b")),
            (Version::HTTP_2, "/a", &[("host", "a")], Ok("a")),
        ] {
            let read = read(&head(version, target, headers)).map(|asked| asked.authority);
            assert_eq!(read.as_deref().map_err(|error| *error), expected, "{version:?} {target} {headers:?}");
        }
    }

    /// RFC 9113, section 8.3.1: the path is `*`, and the host a field of its own.
    #[test]
    fn what_is_asked_of_a_whole_server_is_asked_of_its_host() {
        let mut head = head(Version::HTTP_2, "http://h/", &[]);
        let whole = http::Uri::builder().scheme("http").authority("h").path_and_query("*");
        (head.method, head.uri) = (Method::OPTIONS, whole.build().unwrap());
        let asked = read(&head).unwrap();
        assert_eq!((asked.authority.as_str(), asked.path.as_str()), ("h", "*"));
    }

    #[test]
    fn path_and_query_are_read_once_and_canonically() {
        let asked = read(&head(Version::HTTP_11, "/a/./b?x=%2e", &[("host", "h")])).unwrap();
        assert_eq!((asked.path.as_str(), asked.query.as_deref()), ("/a/b", Some("x=%2e")));
        let refused = read(&head(Version::HTTP_11, "/a%2fb", &[("host", "h")]));
        assert_eq!(refused, Err(BadRequest::Target(path::Refusal::EscapedSlash)));
    }

    #[test]
    fn upgrades_are_asked_for_by_two_headers() {
        for (version, headers, expected) in [
            (
                Version::HTTP_11,
                &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..],
                Some("websocket"),
            ),
            (Version::HTTP_11, &[("upgrade", "websocket")], None),
            (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "h2c")], None),
            (
                Version::HTTP_11,
                &[("connection", "upgrade"), ("upgrade", "H2C, websocket")],
                Some("websocket"),
            ),
            (
                Version::HTTP_11,
                &[("connection", "upgrade"), ("upgrade", "shout/1"), ("upgrade", "h2c")],
                Some("shout/1"),
            ),
            (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "TLS/1.0, HTTP/1.1")], None),
            (Version::HTTP_10, &[("connection", "upgrade"), ("upgrade", "websocket")], None),
        ] {
            let all = [headers, &[("host", "h")]].concat();
            let asked = read(&head(version, "/", &all)).unwrap();
            assert_eq!(asked.upgrade.as_ref().map(|value| value.to_str().unwrap()), expected, "{headers:?}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let asked = read(&head(Version::HTTP_2, "http://h/", &[("content-type", kind)])).unwrap();
            assert_eq!(asked.grpc, expected, "{kind}");
        }
    }
}
