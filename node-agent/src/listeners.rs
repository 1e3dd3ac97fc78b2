//! The sockets that stand inside each captured pod's namespace: where the rules lead its traffic. The
//! redirecting role opens and keeps them, so that no queue is lost when the proxy is replaced; a proxy without
//! such a partner opens them itself, by the same function.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use model::ports;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    netns::{NetnsFd, in_namespace},
    socket::PROXY_MARK,
};

/// Connections that may wait to be accepted (the kernel caps it by `net.core.somaxconn`, 4096): enough for a
/// burst during the milliseconds in which a proxy is replaced.
const BACKLOG: i32 = 4096;

/// Which socket of a pod. The numbers are those of the private socket's messages and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Slot {
    /// TCP 15001: captured outbound connections.
    Outbound = 1,
    /// TCP 15006: captured inbound plaintext.
    Inbound = 2,
    /// TCP 15008: tunnels.
    Hbone = 3,
    /// UDP 127.0.0.1:15053.
    DnsUdpV4 = 4,
    /// TCP 127.0.0.1:15053.
    DnsTcpV4 = 5,
    /// UDP `[::1]`:15053.
    DnsUdpV6 = 6,
    /// TCP `[::1]`:15053.
    DnsTcpV6 = 7,
}

impl Slot {
    /// Every slot, in the order of their numbers.
    pub const ALL: [Slot; 7] = [
        Slot::Outbound,
        Slot::Inbound,
        Slot::Hbone,
        Slot::DnsUdpV4,
        Slot::DnsTcpV4,
        Slot::DnsUdpV6,
        Slot::DnsTcpV6,
    ];

    /// The slot of a number on the wire, if this version knows it.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| *slot as i32 == number)
    }

    fn is_dns(self) -> bool {
        matches!(self, Slot::DnsUdpV4 | Slot::DnsTcpV4 | Slot::DnsUdpV6 | Slot::DnsTcpV6)
    }

    fn address(self) -> SocketAddr {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        match self {
            Slot::Outbound => SocketAddr::new(any, ports::OUTBOUND),
            Slot::Inbound => SocketAddr::new(any, ports::INBOUND_PLAINTEXT),
            Slot::Hbone => SocketAddr::new(any, ports::HBONE),
            Slot::DnsUdpV4 | Slot::DnsTcpV4 => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::DNS),
            Slot::DnsUdpV6 | Slot::DnsTcpV6 => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), ports::DNS),
        }
    }

    fn kind(self) -> (Type, Protocol) {
        match self {
            Slot::DnsUdpV4 | Slot::DnsUdpV6 => (Type::DGRAM, Protocol::UDP),
            _ => (Type::STREAM, Protocol::TCP),
        }
    }
}

/// The open sockets of one pod; non-blocking. The IPv6 name server is absent where loopback has no IPv6.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: Vec<(Slot, OwnedFd)>,
}

/// A socket could not be opened in a pod.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The namespace could not be entered.
    #[error("cannot enter the pod's network namespace: {0}")]
    Enter(#[source] io::Error),
    /// The address is taken, mostly by the application itself.
    #[error("cannot listen on {address} inside the pod: {source}; does the application use that port?")]
    Listen {
        /// The address tried.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Listeners {
    /// Opens all sockets inside `namespace`; those for DNS only if `dns`.
    ///
    /// # Errors
    /// When one cannot be opened; none is left open then.
    pub fn open(namespace: &NetnsFd, dns: bool) -> Result<Self, ListenError> {
        in_namespace(namespace, || Self::open_here(dns)).map_err(ListenError::Enter)?
    }

    fn open_here(dns: bool) -> Result<Self, ListenError> {
        let mut sockets = Vec::with_capacity(Slot::ALL.len());
        for slot in Slot::ALL.into_iter().filter(|slot| dns || !slot.is_dns()) {
            match open_slot(slot) {
                Ok(socket) => sockets.push((slot, socket.into())),
                Err(error) if no_ipv6(&error) && matches!(slot, Slot::DnsUdpV6 | Slot::DnsTcpV6) => {}
                Err(source) => return Err(ListenError::Listen { address: slot.address(), source }),
            }
        }
        Ok(Self { sockets })
    }

    /// Puts sockets together that came over the private socket.
    #[must_use]
    pub fn from_parts(sockets: Vec<(Slot, OwnedFd)>) -> Self {
        Self { sockets }
    }

    /// Takes one socket out.
    pub fn take(&mut self, slot: Slot) -> Option<OwnedFd> {
        let index = self.sockets.iter().position(|(name, _)| *name == slot)?;
        Some(self.sockets.swap_remove(index).1)
    }

    /// Takes a TCP listener out, for the current runtime.
    ///
    /// # Errors
    /// When the runtime refuses the socket.
    pub fn take_tcp(&mut self, slot: Slot) -> io::Result<Option<tokio::net::TcpListener>> {
        self.take(slot).map(|fd| tokio::net::TcpListener::from_std(fd.into())).transpose()
    }

    /// Takes a UDP socket out, for the current runtime.
    ///
    /// # Errors
    /// When the runtime refuses the socket.
    pub fn take_udp(&mut self, slot: Slot) -> io::Result<Option<tokio::net::UdpSocket>> {
        self.take(slot).map(|fd| tokio::net::UdpSocket::from_std(fd.into())).transpose()
    }

    /// Whether name servers are among them.
    #[must_use]
    pub fn has_dns(&self) -> bool {
        self.sockets.iter().any(|(slot, _)| slot.is_dns())
    }

    /// Names and descriptors, for sending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, BorrowedFd<'_>)> {
        self.sockets.iter().map(|(slot, fd)| (*slot, fd.as_fd()))
    }
}

fn open_slot(slot: Slot) -> io::Result<Socket> {
    match open_address(slot, slot.address()) {
        // A kernel without IPv6 at all: the IPv4 half of the dual-stack listener.
        Err(error) if no_ipv6(&error) && slot.address().ip().is_unspecified() => {
            open_address(slot, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), slot.address().port()))
        }
        other => other,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn open_address(slot: Slot, address: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = slot.kind();
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_reuse_address(true)?;
    // A successor of the whole agent may listen before we have closed.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if address.ip().is_unspecified() {
        set_transparent(&socket, address)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Replies may leave under addresses that are not the pod's. A dual-stack socket needs both options: the IPv4
/// one governs the mapped connections.
fn set_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_ip_transparent_v4(true)
}
