//! Bulk: as many bytes as will go through one or more connections, one way.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::poll::{self, ZEROS};
use super::wire::Mode;
use super::{Bulk, LoadError};

/// Runs for `seconds`; the time counts until the receiver has everything.
pub(crate) fn run(
    to: SocketAddr,
    streams: usize,
    seconds: Duration,
    reverse: bool,
) -> Result<Bulk, LoadError> {
    let mode = if reverse { Mode::Source } else { Mode::Sink };
    let streams = (0..streams).map(|_| open(to, mode)).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let bytes = if reverse { receive(&streams, seconds)? } else { send(&streams, seconds)? };
    let elapsed = begin.elapsed();
    Ok(Bulk { bytes, gbit_per_second: bytes as f64 * 8.0 / 1e9 / elapsed.as_secs_f64() })
}

fn open(to: SocketAddr, mode: Mode) -> Result<TcpStream, LoadError> {
    let stream = poll::connect(to)?;
    // Five bytes always fit into a fresh socket's buffer.
    poll::write(&stream, &mode.encode())?;
    Ok(stream)
}

/// Fills all streams until the time is up, then asks the receiver what arrived.
fn send(streams: &[TcpStream], seconds: Duration) -> Result<u64, LoadError> {
    let deadline = Instant::now() + seconds;
    each_ready(streams, EpollFlags::EPOLLOUT, deadline, |stream| {
        // One write a turn, so that no stream starves another.
        poll::write(stream, &ZEROS).map(drop)
    })?;
    let mut total = 0;
    for stream in streams {
        stream.shutdown(Shutdown::Write).map_err(LoadError::io("shutting down"))?;
    }
    for stream in streams {
        total += answer(stream)?;
    }
    Ok(total)
}

/// The receiver's count of bytes.
fn answer(mut stream: &TcpStream) -> Result<u64, LoadError> {
    use std::io::Read;
    stream.set_nonblocking(false).map_err(LoadError::io("making a socket wait"))?;
    let mut count = [0; 8];
    match stream.read_exact(&mut count) {
        Ok(()) => Ok(u64::from_le_bytes(count)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(LoadError::Closed { while_: "the receiver was to say how much arrived" })
        }
        Err(error) => Err(LoadError::io("reading the receiver's count")(error)),
    }
}

/// Drains all streams until the time is up.
fn receive(streams: &[TcpStream], seconds: Duration) -> Result<u64, LoadError> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    let deadline = Instant::now() + seconds;
    each_ready(streams, EpollFlags::EPOLLIN, deadline, |stream| {
        match poll::read(stream, &mut buffer)? {
            Some(0) => return Err(LoadError::Closed { while_: "it was sending" }),
            read => total += read.unwrap_or(0) as u64,
        }
        Ok(())
    })?;
    Ok(total)
}

/// Calls `turn` on each stream that is ready, until the deadline.
fn each_ready(
    streams: &[TcpStream],
    flags: EpollFlags,
    deadline: Instant,
    mut turn: impl FnMut(&TcpStream) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let epoll = poll::epoll()?;
    for (token, stream) in streams.iter().enumerate() {
        poll::add(&epoll, stream, token, flags)?;
    }
    let mut events = [EpollEvent::empty(); 64];
    while Instant::now() < deadline {
        let ready =
            epoll.wait(&mut events, EpollTimeout::from(100u8)).map_err(LoadError::io("epoll_wait"))?;
        for event in &events[..ready] {
            turn(&streams[event.data() as usize])?;
        }
    }
    Ok(())
}
