//! Raw socket work that the standard library has no word for: descriptors beside a datagram, marked and
//! transparent sockets, the original destination of a redirected connection, a child that dies with its parent.
//! Beside `code`, the only module of this library that may hold `unsafe`, item by item.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    ops::RangeInclusive,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::sys::{
    prctl,
    signal::Signal,
    socket::{setsockopt, sockopt::IpBindAddressNoPort},
};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::unix::AsyncFd;

/// Mark of everything the proxy sends: rules leave packets with it alone (`0x539`, 1337).
pub const PROXY_MARK: u32 = 0x539;
/// Mark of what an application answers to a connection that the proxy opened to it under a stranger's address
/// (`0x111`): it is routed back to the proxy.
pub const RETURN_MARK: u32 = 0x111;
/// Bits of a packet's or connection's mark that belong to redirection; the others are left as they are.
pub const MARK_MASK: u32 = 0xfff;

/// A datagram and the descriptors that came with it.
#[derive(Debug)]
pub struct Packet {
    /// The payload.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order sent.
    pub fds: Vec<OwnedFd>,
}

/// Receives one datagram of at most `limit` bytes with its descriptors; `None` when the peer has closed.
///
/// # Errors
/// What the kernel says; `InvalidData` when payload or descriptors were cut off. Descriptors that did arrive are
/// closed then: a peer must not be able to fill our table.
pub(crate) fn receive(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0u8; limit];
    let (length, flags, fds) = receive_into(socket, &mut bytes)?;
    if flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors of a datagram were cut off: raise the limit of open files (ulimit -n)",
        ));
    }
    if flags & libc::MSG_TRUNC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("datagram larger than {limit} bytes"),
        ));
    }
    if length == 0 && fds.is_empty() {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some(Packet { bytes, fds }))
}

/// `recvmsg` with every descriptor taken into ownership before anything is judged.
#[allow(unsafe_code)]
fn receive_into(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, i32, Vec<OwnedFd>)> {
    // Room for one SCM_RIGHTS of the largest size (253 descriptors), aligned as control messages must be.
    let mut control = [MaybeUninit::<u64>::uninit(); 160];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is plain data for which all zeros is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` points at live buffers of the stated lengths; the descriptor is borrowed, hence open.
    let length = unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT)
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel wrote well-formed control messages into `control` and set `msg_controllen`; each
    // descriptor in an SCM_RIGHTS is new in this process and owned by nobody else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                for index in 0..count {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((length, message.msg_flags, fds))
}

/// Puts a non-blocking socket under the runtime's watch.
#[allow(unsafe_code)]
pub(crate) fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: `Socket` owns its descriptor and always names the same one; it is closed only when the `AsyncFd`
    // that holds it is dropped, which takes it off the watch first.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Makes the child that `command` starts die with the thread that starts it (start it from the main thread).
#[allow(unsafe_code)]
pub(crate) fn die_with_parent(command: &mut tokio::process::Command) {
    // SAFETY: the closure runs between fork and exec and makes one prctl call: async-signal-safe, no allocation.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
    }
}

/// A TCP socket for `ip`'s family with this mark, unbound and non-blocking. Make it inside the pod's namespace
/// ([`in_namespace`](crate::netns::in_namespace)).
///
/// # Errors
/// What the kernel says; without `CAP_NET_ADMIN` the mark is refused.
pub fn marked_tcp(ip: IpAddr, mark: u32) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), kind, Some(Protocol::TCP))?;
    socket.set_mark(mark)?;
    Ok(socket)
}

/// A UDP socket for `ip`'s family with the proxy's mark, unbound and non-blocking.
///
/// # Errors
/// What the kernel says; without `CAP_NET_ADMIN` the mark is refused.
pub fn marked_udp(ip: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(PROXY_MARK)?;
    Ok(socket)
}

/// No delay, and keepalive after 180 s, every 180 s, nine times. What a listener accepts has what the listener has.
///
/// # Errors
/// What the kernel says.
pub fn tune_tcp(socket: &SockRef<'_>) -> io::Result<()> {
    const KEEPALIVE: Duration = Duration::from_secs(180);
    socket.set_tcp_nodelay(true)?;
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(9))
}

/// The congestion control of what never leaves this host (`docs/decisions/0008`): every kernel has it, and it
/// paces nothing.
const WITHIN_HOST: &str = "reno";

/// Tells a socket that its peer is on this host: nothing between them can be congested.
///
/// # Errors
/// What the kernel says.
pub fn stays_on_host(socket: &SockRef<'_>) -> io::Result<()> {
    set_congestion_control(socket, WITHIN_HOST)
}

/// Sets the congestion control by its name; an empty one leaves the host's. What a listener accepts has what the
/// listener has.
///
/// # Errors
/// What the kernel says of a name that it does not know, or that this process may not use.
pub fn set_congestion_control(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    if name.is_empty() { Ok(()) } else { socket.set_tcp_congestion(name.as_bytes()) }
}

/// Asks the kernel, before anything depends on it, whether a congestion control can be had.
///
/// # Errors
/// What the kernel says, with the names that it would take.
pub fn check_congestion_control(name: &str) -> io::Result<()> {
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let probe = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    set_congestion_control(&SockRef::from(&probe), name).map_err(|error| {
        let allowed = fs::read_to_string(ALLOWED).unwrap_or_default();
        io::Error::new(
            error.kind(),
            format!("the kernel refuses `{name}` ({error}); {ALLOWED} has: {}", allowed.trim()),
        )
    })
}

/// Binds `socket` to `source`, an address that need not be ours: how the application sees its real peer. The
/// port is chosen at connect time, against the whole 4-tuple, or ports run out early.
///
/// # Errors
/// What the kernel says; without `CAP_NET_ADMIN` the option is refused.
pub fn bind_transparent(socket: &Socket, source: IpAddr) -> io::Result<()> {
    allow_any_address(socket, source)?;
    setsockopt(socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// As [`bind_transparent`], from a port by chance instead of the kernel's choice: one among those that the namespace this
/// thread is in has for outgoing connections. Call it inside the pod's namespace
/// ([`in_namespace`](crate::netns::in_namespace)).
///
/// # Errors
/// What the kernel says: `EADDRINUSE` where every port that was looked at is taken.
pub fn bind_transparent_by_chance(socket: &Socket, source: IpAddr) -> io::Result<()> {
    const LOOKED_AT: u32 = 64;
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let range =
        port_range(&text).ok_or_else(|| io::Error::other(format!("{text:?} is no range of ports")))?;
    allow_any_address(socket, source)?;
    // A hasher of the standard library begins with a number by chance.
    let chance = RandomState::new().build_hasher().finish() as u32;
    let (first, many) = (u32::from(*range.start()), range.len() as u32);
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..many.min(LOOKED_AT) {
        let port = first + chance.wrapping_add(step) % many;
        match socket.bind(&SocketAddr::new(source, port as u16).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
            done => return done,
        }
    }
    Err(taken)
}

/// Has the kernel let `socket` be bound to an address of this family that is nobody's here.
fn allow_any_address(socket: &Socket, source: IpAddr) -> io::Result<()> {
    match source {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// The text of `ip_local_port_range`: the first and the last port.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_ascii_whitespace().map(|port| port.parse().ok());
    let (first, last) = (ports.next()??, ports.next()??);
    (first <= last).then_some(first..=last)
}

/// Where a redirected connection was going before the rules caught it; its local address if they did not.
/// Asks IPv4 first, since a dual-stack listener hands out IPv4 connections as mapped addresses.
///
/// # Errors
/// When the socket is not an internet socket.
pub fn original_destination(socket: &SockRef<'_>) -> io::Result<SocketAddr> {
    let found = socket.original_dst_v4().or_else(|_| socket.original_dst_v6());
    let address = match found {
        Ok(address) => address,
        Err(_) => socket.local_addr()?,
    };
    address.as_socket().map(canonical).ok_or_else(|| io::Error::other("not an internet socket"))
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is; others without flow and scope.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

/// Takes one connection from a listener, non-blocking and closed on exec from the start.
///
/// # Errors
/// What the kernel says; `WouldBlock` when none waits.
pub fn accept_stream(listener: BorrowedFd<'_>) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    // SAFETY: storage and length are this call's own and of the size they say; the kernel fills both or fails, and
    // what it returns then is a new descriptor that nobody else owns.
    #[allow(unsafe_code)]
    let accepted = unsafe {
        SockAddr::try_init(|storage, length| {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            match libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags) {
                -1 => Err(io::Error::last_os_error()),
                socket => Ok(OwnedFd::from_raw_fd(socket)),
            }
        })
    };
    let (socket, peer) = accepted?;
    let peer = peer.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))?;
    Ok((socket.into(), peer))
}

/// Watches a listener for connections, without a wrapper that would register what it accepts.
///
/// # Errors
/// When the runtime refuses the descriptor.
pub fn watch_listener(listener: std::net::TcpListener) -> io::Result<AsyncFd<std::net::TcpListener>> {
    // SAFETY: the listener owns its descriptor and stays inside the AsyncFd, which gives it out by reference only.
    #[allow(unsafe_code)]
    let watched = unsafe { AsyncFd::register_with_interest(listener, tokio::io::Interest::READABLE) };
    Ok(watched?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn congestion_control(socket: &Socket) -> String {
        let name = socket.tcp_congestion().unwrap();
        String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned()
    }

    #[test]
    fn congestion_control_is_the_hosts_but_where_it_is_chosen() {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let hosts = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        let left = socket();
        set_congestion_control(&SockRef::from(&left), "").unwrap();
        assert_eq!(congestion_control(&left), hosts.trim());
        let chosen = socket();
        stays_on_host(&SockRef::from(&chosen)).unwrap();
        assert_eq!(congestion_control(&chosen), "reno");
    }

    #[test]
    fn ports_are_those_of_the_range() {
        for (text, range) in [
            ("32768\t60999\n", Some(32768..=60999)),
            ("40000\t40000\n", Some(40000..=40000)),
            ("40001\t40000\n", None),
            ("40000\n", None),
            ("1 99999", None),
            ("", None),
        ] {
            assert_eq!(port_range(text), range, "{text:?}");
        }
    }

    #[test]
    fn a_congestion_control_that_cannot_be_had_is_refused_with_those_that_can() {
        check_congestion_control("").unwrap();
        check_congestion_control("reno").unwrap();
        let error = check_congestion_control("nonesuch").unwrap_err().to_string();
        assert!(error.contains("`nonesuch`") && error.contains("reno"), "{error}");
    }
}
