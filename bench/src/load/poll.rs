//! What all loads share of the kernel's interface: sockets that do not wait, and reads and writes of what goes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::LoadError;

/// Zeros to send: what is in a message does not matter here, only how long it is.
pub(crate) static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// An epoll instance of this process.
pub(crate) fn epoll() -> Result<Epoll, LoadError> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(LoadError::io("epoll_create"))
}

/// Registers a socket under a token.
pub(crate) fn add(
    epoll: &Epoll,
    socket: impl AsFd,
    token: usize,
    flags: EpollFlags,
) -> Result<(), LoadError> {
    epoll.add(socket, EpollEvent::new(flags, token as u64)).map_err(LoadError::io("epoll_ctl"))
}

/// Changes what a registered socket waits for.
pub(crate) fn modify(
    epoll: &Epoll,
    socket: impl AsFd,
    token: usize,
    flags: EpollFlags,
) -> Result<(), LoadError> {
    epoll.modify(socket, &mut EpollEvent::new(flags, token as u64)).map_err(LoadError::io("epoll_ctl"))
}

/// A connection that is established, does not wait, and sends small messages at once.
pub(crate) fn connect(to: SocketAddr) -> Result<TcpStream, LoadError> {
    let failed = |source| LoadError::Connect { to, source };
    let stream = TcpStream::connect(to).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_nonblocking(true).map_err(failed)?;
    Ok(stream)
}

/// Starts to connect; that there is room to write tells when it is through.
pub(crate) fn dial(to: SocketAddr) -> Result<TcpStream, LoadError> {
    let failed = |source| LoadError::Connect { to, source };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(failed)?;
    socket.set_tcp_nodelay(true).map_err(failed)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(failed(error)),
        _ => Ok(socket.into()),
    }
}

/// Reads once; `None` when there is nothing yet, `Some(0)` at the end.
pub(crate) fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> Result<Option<usize>, LoadError> {
    going(stream.read(buffer)).map_err(LoadError::io("reading"))
}

/// Writes once; `None` when the socket is full.
pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) -> Result<Option<usize>, LoadError> {
    going(stream.write(bytes)).map_err(LoadError::io("writing"))
}

/// Turns "not now" into `None`.
pub(crate) fn going(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
