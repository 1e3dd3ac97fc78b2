//! Ports that a process listens on. A machine without IPv6 has no `[::]`; all of its addresses are those of IPv4 then.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {error}")]
pub struct Taken {
    /// The address.
    address: SocketAddr,
    /// What the system says of it.
    error: io::Error,
}

/// Every address of this machine.
pub fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// Listens on an address.
///
/// # Errors
/// It is taken, or not ours.
pub fn listen(address: SocketAddr) -> Result<TcpListener, Taken> {
    take(address)?.listen(1024).map_err(|error| Taken { address, error })
}

/// Takes an address without listening there yet.
///
/// # Errors
/// It is taken, or not ours.
pub fn take(address: SocketAddr) -> Result<TcpSocket, Taken> {
    match bound(address) {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            bound(address).map_err(|error| Taken { address, error })
        }
        bound => bound.map_err(|error| Taken { address, error }),
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is left of connections of a process before does not hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let held = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = held.local_addr().unwrap();
        let error = listen(address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    }
}
