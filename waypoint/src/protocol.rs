//! What is spoken on a connection: what is declared of its port, or else what its first bytes look like. Pure.

use http::Version;
use model::service::AppProtocol;
use model::traffic::{H2UpgradePolicy, HttpSettings};

/// How a connection is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// As requests.
    Http,
    /// As bytes.
    Tcp,
    /// As bytes, of which the first are a ClientHello.
    Tls,
    /// Nobody says; see what comes.
    NotSaid,
}

/// The version of HTTP that is spoken with somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Http {
    /// HTTP/1.1, or 1.0.
    One,
    /// HTTP/2.
    Two,
}

/// How a port is handled by what is declared of it.
pub(crate) fn spoken(declared: AppProtocol) -> Spoken {
    match declared {
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => Spoken::Http,
        AppProtocol::Tcp => Spoken::Tcp,
        AppProtocol::Tls => Spoken::Tls,
        AppProtocol::Unknown => Spoken::NotSaid,
    }
}

/// What an endpoint is spoken to: what its port is declared to be, whatever the client speaks; where nothing is
/// declared, what the client speaks (as Istio).
pub(crate) fn to_endpoint(declared: AppProtocol, client: Version) -> Http {
    match declared {
        AppProtocol::Http2 | AppProtocol::Grpc => Http::Two,
        AppProtocol::Http11 => Http::One,
        _ if client == Version::HTTP_2 => Http::Two,
        _ => Http::One,
    }
}

/// The same where a DestinationRule may say otherwise: `useClientProtocol`, else `h2UpgradePolicy`. Who wants to speak
/// something else than HTTP gets a connection of HTTP/1.1, which can become that.
pub(crate) fn by_rules(declared: AppProtocol, client: Version, upgrades: bool, rules: &HttpSettings) -> Http {
    if rules.use_client_protocol {
        return if client == Version::HTTP_2 { Http::Two } else { Http::One };
    }
    if rules.h2_upgrade_policy == H2UpgradePolicy::Upgrade && !upgrades {
        return Http::Two;
    }
    to_endpoint(declared, client)
}

/// What first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// Like HTTP.
    Http(Http),
    /// Like a ClientHello.
    Tls,
    /// Like something else.
    Other,
    /// More bytes are needed.
    Open,
}

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method that is taken for one.
const METHOD: usize = 24;
/// A record of a TLS handshake, of version 3.x (RFC 8446, section 5.1).
const HANDSHAKE: [u8; 2] = [0x16, 3];
/// A first line longer than this, and like HTTP so far, is taken for a request with a long path.
pub(crate) const LINE: usize = 4096;

/// What a connection's first bytes look like; they may be few. A request's line has to end in `HTTP/1.x`: other
/// protocols have lines of a word and more words too (`get key`).
pub(crate) fn look(bytes: &[u8]) -> Looks {
    let shared = bytes.len().min(PREFACE.len());
    if bytes[..shared] == PREFACE[..shared] {
        return if shared == PREFACE.len() { Looks::Http(Http::Two) } else { Looks::Open };
    }
    if bytes.starts_with(&HANDSHAKE[..bytes.len().min(HANDSHAKE.len())]) {
        return if bytes.len() < HANDSHAKE.len() { Looks::Open } else { Looks::Tls };
    }
    let Some(end) = bytes.iter().position(|byte| !is_token(*byte)) else {
        return if bytes.len() > METHOD { Looks::Other } else { Looks::Open };
    };
    if bytes[end] != b' ' || end == 0 || end > METHOD {
        return Looks::Other;
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(line) => {
            let line = bytes[..line].strip_suffix(b"\r").unwrap_or(&bytes[..line]);
            let version = line.strip_suffix(b"0").or_else(|| line.strip_suffix(b"1"));
            match version.is_some_and(|line| line.ends_with(b" HTTP/1.")) {
                true => Looks::Http(Http::One),
                false => Looks::Other,
            }
        }
        None if bytes.iter().any(|byte| !matches!(byte, b' '..=b'~' | b'\r' | 0x80..)) => Looks::Other,
        None if bytes.len() > LINE => Looks::Http(Http::One),
        None => Looks::Open,
    }
}

/// The version of a connection that is known to be HTTP, from its first bytes; `None` while it may be either.
pub(crate) fn version(bytes: &[u8]) -> Option<Http> {
    let shared = bytes.len().min(PREFACE.len());
    match bytes[..shared] == PREFACE[..shared] {
        true if shared == PREFACE.len() => Some(Http::Two),
        true => None,
        false => Some(Http::One),
    }
}

/// A byte of a method (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_look_like_what_they_are() {
        let long = format!("GET /{}", "a".repeat(LINE));
        // As long as a method, and a line that is not read to its end, may be; and longer.
        let method = "M".repeat(METHOD);
        let [longest, too_long] = ["", "M"].map(|more| format!("{method}{more} / HTTP/1.1\r\n"));
        let cases: &[(&[u8], Looks)] = &[
            (b"", Looks::Open),
            (b"P", Looks::Open),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Looks::Open),
            (PREFACE, Looks::Http(Http::Two)),
            (b"GET", Looks::Open),
            (b"GET / HTTP/1.1", Looks::Open),
            (b"GET / HTTP/1.1\r\n", Looks::Http(Http::One)),
            (b"POST /a?b HTTP/1.0\nHost", Looks::Http(Http::One)),
            (b"M-SEARCH * HTTP/1.1\r\n", Looks::Http(Http::One)),
            (long.as_bytes(), Looks::Http(Http::One)),
            (&long.as_bytes()[..LINE], Looks::Open),
            (method.as_bytes(), Looks::Open),
            (longest.as_bytes(), Looks::Http(Http::One)),
            (too_long.as_bytes(), Looks::Other),
            (b"GET\t/ HTTP/1.1\r\n", Looks::Other),
            (b"get key\r\n", Looks::Other),
            (b"GET / HTTP/2\r\n", Looks::Other),
            (b"GET / HTTP/1.12\r\n", Looks::Other),
            (b"\x16", Looks::Open),
            (b"\x16\x03", Looks::Tls),
            (b"\x16\x03\x01", Looks::Tls),
            (b"\x16\x04", Looks::Other),
            (b"*3\r\n$3\r\nSET", Looks::Other),
            (b" / HTTP/1.1\r\n", Looks::Other),
            (b"GET \x00", Looks::Other),
            (b"AVERYLONGWORDTHATISNOMETHODATALL", Looks::Other),
            (b"AVERYLONGWORDTHATISNOMETHODATALL / HTTP/1.1\r\n", Looks::Other),
        ];
        for (bytes, looks) in cases {
            assert_eq!(look(bytes), *looks, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn rules_may_ask_for_another_version_than_the_port_is_declared_to_have() {
        use H2UpgradePolicy::{Default, DoNotUpgrade, Upgrade};
        const TWO: Version = Version::HTTP_2;
        const ONE: Version = Version::HTTP_11;
        // Declared, the client's, whether it wants to leave HTTP, policy, `useClientProtocol`.
        #[rustfmt::skip]
        let table = [
            (AppProtocol::Http11, TWO, false, Default, false, Http::One),
            (AppProtocol::Http11, TWO, false, Default, true, Http::Two),
            (AppProtocol::Http2, ONE, false, Default, true, Http::One),
            (AppProtocol::Http11, ONE, false, Upgrade, false, Http::Two),
            (AppProtocol::Http11, ONE, true, Upgrade, false, Http::One),
            (AppProtocol::Http11, ONE, false, Upgrade, true, Http::One),
            (AppProtocol::Http11, ONE, false, DoNotUpgrade, false, Http::One),
            (AppProtocol::Grpc, TWO, false, DoNotUpgrade, false, Http::Two),
        ];
        for (declared, client, upgrades, h2_upgrade_policy, use_client_protocol, expected) in table {
            let rules = HttpSettings { h2_upgrade_policy, use_client_protocol, ..HttpSettings::default() };
            assert_eq!(by_rules(declared, client, upgrades, &rules), expected, "{declared:?} {rules:?}");
        }
    }

    #[test]
    fn a_declared_connection_is_of_one_version_or_the_other() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"PRI *", None),
            (b"PRX", Some(Http::One)),
            (b"\x16", Some(Http::One)),
            (PREFACE, Some(Http::Two)),
        ] {
            assert_eq!(version(bytes), expected);
        }
    }

    #[test]
    fn what_is_declared_decides() {
        use AppProtocol::{Grpc, Http2, Http11, Tcp, Tls, Unknown};
        for (declared, how) in [
            (Http11, Spoken::Http),
            (Http2, Spoken::Http),
            (Grpc, Spoken::Http),
            (Tcp, Spoken::Tcp),
            (Tls, Spoken::Tls),
            (Unknown, Spoken::NotSaid),
        ] {
            assert_eq!(spoken(declared), how);
        }
        for (declared, client, endpoint) in [
            (Http11, Version::HTTP_2, Http::One),
            (Http2, Version::HTTP_11, Http::Two),
            (Grpc, Version::HTTP_11, Http::Two),
            (Unknown, Version::HTTP_2, Http::Two),
            (Unknown, Version::HTTP_10, Http::One),
        ] {
            assert_eq!(to_endpoint(declared, client), endpoint, "{declared:?} {client:?}");
        }
    }
}
