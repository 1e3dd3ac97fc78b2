//! What the endpoint is told of the original client, as Envoy words it. Pure but for the id that is drawn.

use std::net::IpAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use model::route::headers::is_taken_for;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What endpoints are told of who asks, as was proved to us: put together once a client.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Its address; none is what no header can say.
    address: Option<HeaderValue>,
    /// Its certificate, and whom it was shown to.
    certificate: Option<HeaderValue>,
}

impl Asker {
    /// A client by its address, its identity as a URI and the SHA-256 of its certificate; `own` is our identity.
    pub(crate) fn new(address: IpAddr, principal: &str, fingerprint: &str, own: &str) -> Self {
        let certificate = format!("By={own};Hash={fingerprint};Subject=\"\";URI={principal}");
        let value = |text: String| HeaderValue::try_from(text).ok();
        Self { address: value(address.to_string()), certificate: value(certificate) }
    }
}

/// Gives a request an id where it has none: the access log, traces and decision records know it by that.
pub(super) fn identify(headers: &mut HeaderMap, id: impl FnOnce() -> [u8; 16]) {
    if !headers.contains_key(REQUEST_ID) {
        set(headers, REQUEST_ID, HeaderValue::from_bytes(&uuid(id())).ok());
    }
}

/// Puts the certificate of who asks where rules and endpoints look for it. What an application says of its own is taken
/// away, unless it `is_proxy` of the mesh, whose word on whom it asks for counts; so are names that some applications
/// take for ours.
pub(super) fn certify(headers: &mut HeaderMap, asker: &Asker, is_proxy: bool) {
    let alike: Vec<HeaderName> = headers.keys().filter(|name| is_look_alike(name)).cloned().collect();
    for name in alike {
        headers.remove(name);
    }
    let before = joined(headers, &CERTIFICATE).filter(|_| is_proxy);
    set(headers, CERTIFICATE, behind(before, asker.certificate.as_ref()));
}

/// Puts the certificate of who asks back where a rule has changed it, under any name that is taken for ours: what was proved is
/// not for rules to say. They may keep it from endpoints.
pub(super) fn uphold(headers: &mut HeaderMap, proved: &HeaderMap) {
    let alike: Vec<HeaderName> =
        headers.keys().filter(|name| is_taken_for(name.as_str(), CERTIFICATE.as_str())).cloned().collect();
    for name in alike {
        let proved = proved.get(&name).cloned();
        set(headers, name, proved);
    }
}

/// Whether a name is taken for one of ours without being it.
fn is_look_alike(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.contains('_')
        && [FOR, CERTIFICATE, PROTO, REQUEST_ID].iter().any(|own| is_taken_for(name, own.as_str()))
}

/// Adds the address of who asks, behind those already there.
pub(super) fn tell(headers: &mut HeaderMap, asker: &Asker) {
    let before = joined(headers, &FOR);
    set(headers, FOR, behind(before, asker.address.as_ref()));
    if !headers.contains_key(PROTO) {
        headers.insert(PROTO, HeaderValue::from_static("http"));
    }
}

/// All values of a list field in one text; none where it is not text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// An element of a list, behind those that are there.
fn behind(before: Option<String>, element: Option<&HeaderValue>) -> Option<HeaderValue> {
    let Some(before) = before else { return element.cloned() };
    HeaderValue::try_from(format!("{before},{}", element?.to_str().ok()?)).ok()
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => {
            headers.insert(name, value);
        }
        // Never what somebody else has put there.
        None => {
            headers.remove(name);
        }
    }
}

/// A random UUID (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (number, byte) in bytes.into_iter().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
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
        let (client, own) = ("spiffe://t/ns/n/sa/a", "spiffe://t/ns/n/sa/w");
        let asker = Asker::new([10, 0, 0, 1].into(), client, "ab", own);
        identify(&mut headers, || std::array::from_fn(|at| at as u8));
        certify(&mut headers, &asker, is_proxy);
        tell(&mut headers, &asker);
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn nobody_is_taken_for_us_by_an_underscore() {
        let told = told(
            &[
                ("x_forwarded_client_cert", "By=x"),
                ("x-forwarded_for", "1.1.1.1"),
                ("x_request-id", "mine"),
                // As long as one of ours, or like the beginning of one.
                ("x_forwarded_far", "1"),
                ("x_forwarded", "1"),
                ("x_other", "1"),
            ],
            true,
        );
        let mut names: Vec<&str> =
            told.iter().map(|(name, _)| name.as_str()).filter(|name| name.contains('_')).collect();
        names.sort_unstable();
        assert_eq!(names, ["x_forwarded", "x_forwarded_far", "x_other"]);
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
