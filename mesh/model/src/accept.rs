//! What an incoming CONNECT asks for, and whether this pod is the one to ask.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::address::AppAddress;
use crate::mesh::Mesh;
use crate::ports;
use crate::select::target_port;
use crate::workload::Workload;

/// The `:authority` of a CONNECT: an address and port, or a host name and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// `ip:port` or `[ip]:port`, the port never 0 and the address without a zone.
    Address(SocketAddr),
    /// `host:port`.
    Host {
        /// The host name.
        host: String,
        /// The port, never 0.
        port: u16,
    },
}

/// Why an `:authority` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an authority: expected IP:PORT, [IPV6]:PORT or HOST:PORT")]
pub struct InvalidAuthority(pub String);

/// Why a CONNECT is refused before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misdirected {
    /// It asks for another pod's address.
    #[error("asked for {asked}, but this pod is {own}")]
    OtherAddress {
        /// What was asked for.
        asked: IpAddr,
        /// The pod's address that the tunnel was opened to.
        own: IpAddr,
    },
    /// It names a service that is not known, or one without this port.
    #[error("no service {host} with port {port} is known here")]
    UnknownService {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
    /// It would call the proxy itself.
    #[error("port {0} is the proxy's own")]
    OwnPort(u16),
}

impl Misdirected {
    /// The status to refuse the CONNECT with.
    pub fn status(&self) -> u16 {
        match self {
            Self::OtherAddress { .. } => 400,
            Self::UnknownService { .. } | Self::OwnPort(_) => 503,
        }
    }
}

/// Decides where a CONNECT that reached the pod at `own` is to be delivered. The address is always the pod's own;
/// the authority gives the port.
///
/// # Errors
/// The CONNECT was meant for somebody else, or for nothing that is here.
pub fn accept(
    mesh: &Mesh,
    local: &Workload,
    own: IpAddr,
    authority: &Authority,
) -> Result<AppAddress, Misdirected> {
    let own = own.to_canonical();
    let port = match authority {
        Authority::Address(asked) if asked.ip().to_canonical() == own => asked.port(),
        Authority::Address(asked) => {
            return Err(Misdirected::OtherAddress { asked: asked.ip().to_canonical(), own });
        }
        Authority::Host { host, port } => mesh
            .service_named(host, local.namespace())
            .and_then(|service| target_port(service, local, *port))
            .ok_or_else(|| Misdirected::UnknownService { host: host.clone(), port: *port })?,
    };
    if ports::is_own(port) {
        return Err(Misdirected::OwnPort(port));
    }
    Ok(AppAddress::new(SocketAddr::new(own, port)))
}

/// The longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

impl FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAuthority(text.chars().take(300).collect());
        match text.parse() {
            // No application listens on port 0, and a zone names an interface of the sender's.
            Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => return Err(invalid()),
            Ok(address) if address.port() == 0 => return Err(invalid()),
            Ok(address) => return Ok(Self::Address(address)),
            Err(_) => {}
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*');
        if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(named) {
            return Err(invalid());
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Self::Host { host: host.to_ascii_lowercase(), port }),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests;
