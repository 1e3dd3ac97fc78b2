//! Answers of the waypoint's own. A call of gRPC is answered as such: status 200, and how it went in `grpc-status`. Pure.

use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::http::ResponseBody;

/// An answer with a text, in the form that the client understands.
pub(super) fn answer(method: &Method, status: StatusCode, text: &[u8], grpc: bool) -> Response<ResponseBody> {
    if !grpc {
        return plain(method, status, text);
    }
    let mut response = Response::new(ResponseBody::own(""));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(grpc_status(status)));
    let message = HeaderValue::from_str(&escaped(text)).ok().filter(|_| method != Method::HEAD);
    if let Some(message) = message {
        headers.insert("grpc-message", message);
    }
    response
}

/// What it is over HTTP: without the text where none may follow (RFC 9110, sections 9.3.2 and 15). hyper sees to that in
/// HTTP/1.1 alone; in HTTP/2 the client would reset the stream.
fn plain(method: &Method, status: StatusCode, text: &[u8]) -> Response<ResponseBody> {
    let head = method == Method::HEAD;
    let none = head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut response = Response::new(ResponseBody::own(if none { Vec::new() } else { text.to_vec() }));
    *response.status_mut() = status;
    if !text.is_empty() {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if head {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        }
    }
    response
}

/// The status of gRPC for one of HTTP (gRPC's own table of how they map).
pub(super) fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// A message as `grpc-message` wants it: visible ASCII, the rest escaped.
fn escaped(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.iter().copied() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use hyper::body::Body as _;

    use super::*;

    #[test]
    fn calls_of_grpc_are_answered_as_such() {
        let plain = answer(&Method::GET, StatusCode::FORBIDDEN, b"RBAC: access denied", false);
        assert_eq!(plain.status(), 403);
        let call = answer(&Method::POST, StatusCode::FORBIDDEN, b"100% sure\n", true);
        assert_eq!(call.status(), 200);
        assert_eq!(call.headers()["grpc-status"], "7");
        assert_eq!(call.headers()["grpc-message"], "100%25 sure%0A");
    }

    #[test]
    fn statuses_of_http_are_those_of_grpc_that_its_own_table_says() {
        // INTERNAL, UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED, UNAVAILABLE, and UNKNOWN for all else.
        for (status, expected) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (200, 2),
            (418, 2),
            (431, 2),
            (500, 2),
        ] {
            assert_eq!(grpc_status(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[test]
    fn no_text_follows_where_none_may() {
        for (method, status, length, follows) in [
            (Method::GET, StatusCode::FORBIDDEN, None, true),
            (Method::HEAD, StatusCode::FORBIDDEN, Some("4"), false),
            (Method::GET, StatusCode::NO_CONTENT, None, false),
            (Method::GET, StatusCode::NOT_MODIFIED, None, false),
        ] {
            let answered = answer(&method, status, b"text", false);
            let told = answered.headers().get(header::CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!((told, !answered.body().is_end_stream()), (length, follows), "{method} {status}");
        }
    }
}
