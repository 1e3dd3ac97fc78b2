//! The server of all loads: one thread, one epoll loop; each connection's header chooses what it does.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use crate::load::poll::{self, ZEROS};
use crate::load::wire::{HEADER, Mode};
use crate::load::{LoadError, raise_descriptor_limit};

/// The listener's token; connections have the index of their slot.
const LISTENER: usize = usize::MAX;

/// A connection and how far it is.
struct Connection {
    stream: TcpStream,
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    header_len: usize,
    mode: Option<Mode>,
    /// Bytes that have come: of the current request (echo), or of all (sink).
    received: u64,
    /// Bytes to be sent.
    owed: usize,
    /// Whether the socket's room is waited for.
    blocked: bool,
}

/// Serves until killed.
pub(crate) fn run(listen: SocketAddr) -> Result<(), LoadError> {
    raise_descriptor_limit();
    let listener = bind(listen).map_err(|source| LoadError::Listen { at: listen, source })?;
    let epoll = poll::epoll()?;
    poll::add(&epoll, &listener, LISTENER, EpollFlags::EPOLLIN)?;
    let mut server = Server { epoll, slots: Vec::new(), free: Vec::new(), buffer: vec![0; 256 * 1024] };
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let ready = match server.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready.map_err(LoadError::io("epoll_wait"))?,
        };
        for event in &events[..ready] {
            match event.data() as usize {
                LISTENER => server.accept(&listener)?,
                // A connection that fails ends alone: the load generator reports what it missed.
                index => {
                    if !server.turn(index).unwrap_or(false) {
                        server.close(index);
                    }
                }
            }
        }
    }
}

/// A listener whose connections inherit that small messages leave at once.
pub(crate) fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

struct Server {
    epoll: Epoll,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> Result<(), LoadError> {
        for _ in 0..64 {
            // Out of descriptors, or a client gone before its turn: the others go on.
            let Ok((stream, _)) = listener.accept() else { return Ok(()) };
            stream.set_nonblocking(true).map_err(LoadError::io("making a socket not wait"))?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            poll::add(&self.epoll, &stream, index, EpollFlags::EPOLLIN)?;
            self.slots[index] = Some(Connection {
                stream,
                header: [0; HEADER],
                header_len: 0,
                mode: None,
                received: 0,
                owed: 0,
                blocked: false,
            });
        }
        Ok(())
    }

    fn close(&mut self, index: usize) {
        if self.slots[index].take().is_some() {
            self.free.push(index);
        }
    }

    /// Reads once, writes once; false when the connection is over.
    fn turn(&mut self, index: usize) -> Result<bool, LoadError> {
        let Some(connection) = self.slots[index].as_mut() else { return Ok(true) };
        let alive = connection.receive(&mut self.buffer)?;
        connection.send()?;
        let blocked = connection.owed > 0;
        if blocked != connection.blocked {
            let flags =
                if blocked { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            connection.blocked = blocked;
            poll::modify(&self.epoll, &connection.stream, index, flags)?;
        }
        Ok(alive)
    }
}

impl Connection {
    /// Takes in what has come; false at the end.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool, LoadError> {
        let count = match poll::read(&self.stream, buffer)? {
            None => return Ok(true),
            Some(0) => {
                if self.mode == Some(Mode::Sink) {
                    poll::write(&self.stream, &self.received.to_le_bytes())?;
                }
                return Ok(false);
            }
            Some(count) => count,
        };
        let head = count.min(HEADER - self.header_len);
        self.header[self.header_len..self.header_len + head].copy_from_slice(&buffer[..head]);
        self.header_len += head;
        if self.mode.is_none() && self.header_len == HEADER {
            let Some(mode) = Mode::decode(self.header) else { return Ok(false) };
            self.mode = Some(mode);
            self.owed = usize::from(mode == Mode::Hold);
        }
        self.received += (count - head) as u64;
        if let Some(Mode::Echo(size)) = self.mode {
            let size = u64::from(size);
            self.owed += (self.received / size * size) as usize;
            self.received %= size;
        }
        Ok(true)
    }

    /// Sends what is owed, as far as it goes.
    fn send(&mut self) -> Result<(), LoadError> {
        if self.mode == Some(Mode::Source) {
            self.owed = ZEROS.len();
        }
        if self.owed == 0 {
            return Ok(());
        }
        let sent = poll::write(&self.stream, &ZEROS[..self.owed.min(ZEROS.len())])?.unwrap_or(0);
        if self.mode != Some(Mode::Source) {
            self.owed -= sent;
        }
        Ok(())
    }
}
