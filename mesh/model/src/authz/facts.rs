//! What an enforcer knows of what it judges: a connection, or a request on one.

use std::fmt;
use std::net::SocketAddr;

use super::Subject;
use crate::identity::Identity;
use crate::request::Request;

/// What is known of a connection or request when it is judged. What is not known counts as [`Unknown`](super::Truth).
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The original client's address.
    pub source: SocketAddr,
    /// Who the client is, by its certificate; `None` for plaintext.
    pub identity: Option<&'a Identity>,
    /// The application's address and port; `None` where nobody has chosen an endpoint yet.
    pub destination: Option<SocketAddr>,
    /// The server name of the client's own TLS.
    pub sni: Sni<'a>,
    /// The request; `None` where only its connection is seen.
    pub request: Option<&'a Request<'a>>,
}

/// The server name that a client's own TLS asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sni<'a> {
    /// Nobody has looked.
    Unseen,
    /// There is none: no TLS, or one that names no server.
    Absent,
    /// This one.
    Name(&'a str),
}

impl<'a> Facts<'a> {
    /// The same of a connection or request to another address: that of the endpoint chosen, if one is.
    #[must_use]
    pub fn to(self, destination: Option<SocketAddr>) -> Self {
        Self { destination, ..self }
    }

    /// The same with the server name that the client's TLS asks for; for connections whose TLS is passed on.
    #[must_use]
    pub fn with_sni(self, sni: Sni<'a>) -> Self {
        Self { sni, ..self }
    }

    /// Where it is seen from.
    pub fn layer(&self) -> Layer {
        if self.request.is_some() { Layer::Seven } else { Layer::Four }
    }
}

/// What layer 4 sees.
impl<'a> From<&Subject<'a>> for Facts<'a> {
    fn from(subject: &Subject<'a>) -> Self {
        let Subject { source, identity, destination } = *subject;
        Self { source, identity, destination: Some(destination), sni: Sni::Unseen, request: None }
    }
}

/// What layer 7 sees: the request in full, so no TLS of the client's own is around it.
impl<'a> From<&'a Request<'a>> for Facts<'a> {
    fn from(request: &'a Request<'a>) -> Self {
        Self {
            source: request.client.address,
            identity: request.client.identity,
            destination: Some(request.destination),
            sni: Sni::Absent,
            request: Some(request),
        }
    }
}

/// How much an enforcer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layer {
    /// A connection.
    #[default]
    Four,
    /// A request.
    Seven,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Four => "layer 4",
            Self::Seven => "the waypoint",
        })
    }
}
