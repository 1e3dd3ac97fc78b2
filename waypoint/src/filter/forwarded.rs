//! What the endpoint is told of the original client, as Envoy words it. Pure but for the id that is drawn.

use std::net::IpAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who asks, as was proved to us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// Its address.
    pub(super) address: IpAddr,
    /// Its identity, as a URI.
    pub(super) principal: &'a str,
    /// SHA-256 of its certificate.
    pub(super) fingerprint: &'a str,
    /// Whether it is a proxy of the mesh, whose word on whom it asks for counts.
    pub(super) is_proxy: bool,
}

/// Adds what is known of who asks: its address behind those already there, its certificate, and an id where there is
/// none. What an application says of its own certificate is taken away: it has none to show.
pub(super) fn tell(headers: &mut HeaderMap, asker: &Asker<'_>, own: &str, id: impl FnOnce() -> [u8; 16]) {
    let before = joined(headers, &FOR);
    set(
        headers,
        FOR,
        &match before {
            Some(before) => format!("{before},{}", asker.address),
            None => asker.address.to_string(),
        },
    );
    let element = format!("By={own};Hash={};Subject=\"\";URI={}", asker.fingerprint, asker.principal);
    let before = joined(headers, &CERTIFICATE).filter(|_| asker.is_proxy);
    set(
        headers,
        CERTIFICATE,
        &match before {
            Some(before) => format!("{before},{element}"),
            None => element,
        },
    );
    if !headers.contains_key(PROTO) {
        headers.insert(PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(REQUEST_ID) {
        set(headers, REQUEST_ID, &uuid(id()));
    }
}

/// All values of a list field in one text; none where it is not text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        // Never what somebody else has put there.
        Err(_) => {
            headers.remove(name);
        }
    }
}

/// A random UUID (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    use std::fmt::Write as _;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00010203-0405-4607-8809-0a0b0c0d0e0f";

    fn told(before: &[(&'static str, &'static str)], is_proxy: bool) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let asker = Asker {
            address: [10, 0, 0, 1].into(),
            principal: "spiffe://t/ns/n/sa/a",
            fingerprint: "ab",
            is_proxy,
        };
        tell(&mut headers, &asker, "spiffe://t/ns/n/sa/w", || std::array::from_fn(|at| at as u8));
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn the_endpoint_is_told_who_asks() {
        let own = "By=spiffe://t/ns/n/sa/w;Hash=ab;Subject=\"\";URI=spiffe://t/ns/n/sa/a";
        for (before, is_proxy, address, certificate, proto, id) in [
            (&[][..], false, "10.0.0.1", own.to_owned(), "http", ID),
            (
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2"), ("x-request-id", "mine")],
                false,
                "1.1.1.1,2.2.2.2,10.0.0.1",
                own.to_owned(),
                "http",
                "mine",
            ),
            (&[("x-forwarded-client-cert", "By=x")], false, "10.0.0.1", own.to_owned(), "http", ID),
            (
                &[("x-forwarded-client-cert", "By=x"), ("x-forwarded-proto", "https")],
                true,
                "10.0.0.1",
                format!("By=x,{own}"),
                "https",
                ID,
            ),
        ] {
            let told = told(before, is_proxy);
            let value = |name: &str| {
                let values: Vec<_> = told.iter().filter(|(known, _)| known == name).collect();
                assert_eq!(values.len(), 1, "{name} in {told:?}");
                values[0].1.clone()
            };
            assert_eq!(value("x-forwarded-for"), address);
            assert_eq!(value("x-forwarded-client-cert"), certificate);
            assert_eq!(value("x-forwarded-proto"), proto);
            assert_eq!(value("x-request-id"), id);
        }
    }
}
