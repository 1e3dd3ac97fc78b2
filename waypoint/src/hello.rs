//! The server's name in a ClientHello (RFC 6066, section 3), of TLS that is passed on unopened. Pure.

use model::authz::Sni;
use rustls::server::Acceptor;

/// What of a connection's beginning is the client's own TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// Nobody has looked, or it cannot be read.
    Unseen,
    /// It is none.
    NoTls,
    /// It names no server.
    Nameless,
    /// It names this one, in lower case.
    Name(String),
}

/// A ClientHello longer than this is not waited for. Those of browsers have about 2 KiB.
const LONGEST: usize = 16 << 10;

impl Hello {
    /// The name, for rules.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Unseen | Self::NoTls | Self::Nameless => None,
        }
    }

    /// The same, for policies: what nobody could see is neither there nor not there.
    pub(crate) fn sni(&self) -> Sni<'_> {
        match self {
            Self::Unseen => Sni::Unseen,
            Self::NoTls | Self::Nameless => Sni::Absent,
            Self::Name(name) => Sni::Name(name),
        }
    }

    /// Whether the client speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Nameless | Self::Name(_))
    }
}

/// What the first bytes of a connection that begins like TLS say; `None` while more are needed.
pub(crate) fn read(bytes: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(Hello::Unseen);
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => Some(match accepted.client_hello().server_name() {
            Some(name) => Hello::Name(name.to_ascii_lowercase()),
            None => Hello::Nameless,
        }),
        Ok(None) if bytes.len() < LONGEST => None,
        Ok(None) | Err(_) => Some(Hello::Unseen),
    }
}

#[cfg(test)]
pub(crate) mod tests;
