//! Answers of the waypoint's own. A call of gRPC is answered as such: status 200, and how it went in `grpc-status`. Pure.

use http::{HeaderValue, Response, StatusCode, header};

use crate::http::ResponseBody;

/// An answer with a text, in the form that the client understands.
pub(super) fn answer(status: StatusCode, text: &[u8], grpc: bool) -> Response<ResponseBody> {
    if !grpc {
        let mut response = Response::new(ResponseBody::own(text.to_vec()));
        *response.status_mut() = status;
        if !text.is_empty() {
            let plain = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
        }
        return response;
    }
    let mut response = Response::new(ResponseBody::own(""));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(grpc_status(status)));
    if let Ok(message) = HeaderValue::from_str(&escaped(text)) {
        headers.insert("grpc-message", message);
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
    use super::*;

    #[test]
    fn calls_of_grpc_are_answered_as_such() {
        let plain = answer(StatusCode::FORBIDDEN, b"RBAC: access denied", false);
        assert_eq!(plain.status(), 403);
        let call = answer(StatusCode::FORBIDDEN, b"100% sure\n", true);
        assert_eq!(call.status(), 200);
        assert_eq!(call.headers()["grpc-status"], "7");
        assert_eq!(call.headers()["grpc-message"], "100%25 sure%0A");
    }
}
