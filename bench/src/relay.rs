//! A proxy that only copies: one thread, one epoll loop, plain sockets, nothing looked at. Two of them in a row are what two
//! hops cost on this machine whatever a proxy does on them: the floor below which no proxy of this kind comes.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};

use crate::load::poll::{self, read, write};
use crate::load::{LoadError, raise_descriptor_limit};
use crate::serve::bind;

/// The listener's token; a connection's two sockets have twice the index of their slot and one more.
const LISTENER: usize = usize::MAX;
/// As much as the proxies read at a time.
const BUFFER: usize = 128 * 1024;

/// Two sockets, and what is on its way from each to the other.
struct Pair {
    sockets: [TcpStream; 2],
    ways: [Way; 2],
    /// Who has said that nothing more comes from there.
    hung_up: [bool; 2],
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What has been read and not been written.
    kept: Vec<u8>,
    ended: bool,
}

/// Relays until killed.
pub(crate) fn run(listen: SocketAddr, to: SocketAddr) -> Result<(), LoadError> {
    raise_descriptor_limit();
    let listener = bind(listen).map_err(|source| LoadError::Listen { at: listen, source })?;
    let epoll = poll::epoll()?;
    poll::add(&epoll, &listener, LISTENER, EpollFlags::EPOLLIN)?;
    let mut relay = Relay { epoll, to, slots: Vec::new(), free: Vec::new(), buffer: vec![0; BUFFER] };
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let ready = match relay.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready.map_err(LoadError::io("epoll_wait"))?,
        };
        for event in &events[..ready] {
            match event.data() as usize {
                LISTENER => relay.accept(&listener)?,
                token => relay.turn(token, event.events().contains(EpollFlags::EPOLLRDHUP)),
            }
        }
    }
}

struct Relay {
    epoll: Epoll,
    to: SocketAddr,
    slots: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> Result<(), LoadError> {
        let Ok((near, _)) = listener.accept() else { return Ok(()) };
        near.set_nonblocking(true).map_err(LoadError::io("making a socket not wait"))?;
        let far = poll::connect(self.to)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        // By edges: as few calls as can be. Each way goes on until a socket has no more, or takes no more.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        poll::add(&self.epoll, &near, 2 * index, flags)?;
        poll::add(&self.epoll, &far, 2 * index + 1, flags)?;
        self.slots[index] =
            Some(Pair { sockets: [near, far], ways: Default::default(), hung_up: [false; 2] });
        Ok(())
    }

    /// Copies what there is; a pair that has failed or ended goes.
    fn turn(&mut self, token: usize, hung_up: bool) {
        let index = token / 2;
        let Some(pair) = self.slots[index].as_mut() else { return };
        pair.hung_up[token % 2] |= hung_up;
        let done: Result<bool, LoadError> =
            (0..2).try_fold(true, |done, from| Ok(pair.copy(from, &mut self.buffer)? && done));
        if done.unwrap_or(true) {
            self.slots[index] = None;
            self.free.push(index);
        }
    }
}

impl Pair {
    /// Copies one way as far as it goes; whether it has come to its end.
    fn copy(&mut self, from: usize, buffer: &mut [u8]) -> Result<bool, LoadError> {
        let (near, far, way) = (&self.sockets[from], &self.sockets[1 - from], &mut self.ways[from]);
        while !way.ended || !way.kept.is_empty() {
            if !way.kept.is_empty() {
                let Some(sent) = write(far, &way.kept)? else { return Ok(false) };
                way.kept.drain(..sent);
                continue;
            }
            let Some(length) = read(near, buffer)? else { return Ok(false) };
            if length == 0 {
                way.ended = true;
                end(far).map_err(LoadError::io("ending a direction"))?;
                break;
            }
            let sent = write(far, &buffer[..length])?.unwrap_or(0);
            way.kept.extend_from_slice(&buffer[sent..length]);
            // Less than there was room for: that was all, and what comes next is another edge; but an end that came along
            // with it is not.
            if length < buffer.len() && way.kept.is_empty() && !self.hung_up[from] {
                return Ok(false);
            }
        }
        Ok(way.ended && way.kept.is_empty())
    }
}

/// The far end may have gone first.
fn end(socket: &TcpStream) -> io::Result<()> {
    match socket.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_sent_comes_through_both_ways_and_ends() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = target.local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::thread::spawn(move || run(free, to));
        let mut client = loop {
            if let Ok(client) = TcpStream::connect(free) {
                break client;
            }
        };
        let (mut server, _) = target.accept().unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
        let sending = {
            let (mut client, sent) = (client.try_clone().unwrap(), sent.clone());
            std::thread::spawn(move || {
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            })
        };
        let mut came = Vec::new();
        server.read_to_end(&mut came).unwrap();
        sending.join().unwrap();
        assert!(came == sent);
        server.write_all(b"and back").unwrap();
        drop(server);
        let mut back = String::new();
        client.read_to_string(&mut back).unwrap();
        assert_eq!(back, "and back");
    }
}
