//! Unix `SOCK_SEQPACKET` sockets for tokio: one message a datagram, with descriptors beside it. Under ZDS and the
//! private socket.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    pin::pin,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials},
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{error::Elapsed, timeout},
};

use crate::socket::{self, Packet};

/// How much longer than asked [`in_time`] waits, for what is there already.
const LATE: Duration = Duration::from_millis(100);

/// As tokio's `timeout`, for what is said over a socket. Who was stopped for a while (a signal, a machine that stood still)
/// hears of its timers before its sockets, as `epoll_wait(2)` is interrupted then: nobody is given up for an answer
/// that waits unread.
///
/// # Errors
/// When time is up.
pub(crate) async fn in_time<T>(time: Duration, talk: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut talk = pin!(talk);
    match timeout(time, &mut talk).await {
        Ok(done) => Ok(done),
        Err(_) => timeout(LATE, talk).await,
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct SeqPacket {
    io: AsyncFd<Socket>,
}

impl SeqPacket {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there, or its queue is full (`WouldBlock`: try again).
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Self::new(socket)
    }

    /// Takes over one end of a connection that somebody else has made.
    ///
    /// # Errors
    /// When the runtime refuses the socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        Self::new(socket)
    }

    fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self { io: socket::watched(socket)? })
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// When the socket is not connected.
    pub fn peer_pid(&self) -> io::Result<i32> {
        Ok(getsockopt(self.io.get_ref(), PeerCredentials)?.pid())
    }

    /// Sends one datagram with descriptors; waits while the peer's queue is full.
    ///
    /// # Errors
    /// When the peer is gone, or more than 253 descriptors are given.
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let sent = self.io.async_io(Interest::WRITABLE, |socket| send_now(socket, bytes, fds)).await;
            match sent {
                // Too many descriptors are in flight for this user: the peer is reading, so soon there are fewer.
                Err(error) if error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                other => return other,
            }
        }
    }

    /// Sends one datagram if there is room for it in the peer's queue.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; otherwise as [`SeqPacket::send`].
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        send_now(self.io.get_ref(), bytes, &[])
    }

    /// Receives one datagram of at most `limit` bytes; `None` when the peer has closed.
    ///
    /// # Errors
    /// When the connection broke or a datagram was cut off.
    pub async fn receive(&self, limit: usize) -> io::Result<Option<Packet>> {
        let receive =
            || self.io.async_io(Interest::READABLE, |socket| socket::receive(socket.as_fd(), limit));
        match receive().await {
            // The peer has closed without having read all that we sent (unix(7)). Linux says so once, and before what the
            // peer itself had sent until then: that is still to be received.
            Err(error) if is_reset(&error) => match receive().await {
                Err(error) if is_reset(&error) => Ok(None),
                other => other,
            },
            other => other,
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

/// Both ends of a new connection, for two other processes.
///
/// # Errors
/// When the table of open files is full.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    Ok((one.into(), other.into()))
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}

fn send_now(socket: &Socket, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

/// A listening socket.
#[derive(Debug)]
pub struct SeqListener {
    io: AsyncFd<Socket>,
}

impl SeqListener {
    /// Listens at `path`, replacing what a crashed predecessor left there; only this user may connect.
    ///
    /// # Errors
    /// When the folder is missing or not writable.
    pub fn bind(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        socket.listen(16)?;
        Ok(Self { io: socket::watched(socket)? })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// When the table of open files is full.
    pub async fn accept(&self) -> io::Result<SeqPacket> {
        let socket =
            self.io.async_io(Interest::READABLE, |socket| socket.accept().map(|(peer, _)| peer)).await?;
        socket.set_nonblocking(true)?;
        SeqPacket::new(socket)
    }
}

/// Removes a socket file that a predecessor left; anything else at that path is kept, and binding fails.
///
/// # Errors
/// When the file cannot be removed.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_received_also_by_who_was_not_heard() {
        let (one, other) = pair().unwrap();
        let (one, other) = (SeqPacket::from_fd(one).unwrap(), SeqPacket::from_fd(other).unwrap());
        for said in ["first", "second"] {
            one.send(said.as_bytes(), &[]).await.unwrap();
        }
        other.send(b"never read", &[]).await.unwrap();
        drop(one);
        for said in ["first", "second"] {
            let packet = other.receive(100).await.unwrap().expect("it was sent");
            assert_eq!(packet.bytes, said.as_bytes());
        }
        assert!(other.receive(100).await.unwrap().is_none());
        assert!(other.send(b"anyone?", &[]).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_there_when_time_is_up_counts() {
        for (after, expected) in [(0, true), (4_999, true), (5_050, true), (5_200, false)] {
            let answer = in_time(Duration::from_secs(5), sleep(Duration::from_millis(after))).await;
            assert_eq!(answer.is_ok(), expected, "{after} ms");
        }
    }
}
