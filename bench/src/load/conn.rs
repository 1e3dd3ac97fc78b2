//! A new connection for each request: what it costs to open one.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};

use super::histogram::Histogram;
use super::poll;
use super::wire::{HEADER, Mode};
use super::{LoadError, Requests};

/// One slot: a connection on its way through connect, request, response.
struct Slot {
    stream: TcpStream,
    begun: Instant,
    asked: bool,
    to_receive: usize,
}

/// Runs for `seconds` with so many connections under way at a time.
pub(crate) fn run(
    to: SocketAddr,
    connections: usize,
    seconds: Duration,
    size: usize,
) -> Result<Requests, LoadError> {
    let epoll = poll::epoll()?;
    let mut request = Mode::Echo(size.max(1) as u32).encode().to_vec();
    request.resize(HEADER + size.max(1), 0);
    let mut buffer = vec![0; 64 * 1024];
    let (mut latencies, mut done) = (Histogram::new(), 0);
    let mut slots = Vec::with_capacity(connections);
    for index in 0..connections {
        slots.push(begin(&epoll, to, index, request.len() - HEADER)?);
    }
    let start = Instant::now();
    let mut events = [EpollEvent::empty(); 256];
    while start.elapsed() < seconds {
        let ready =
            epoll.wait(&mut events, EpollTimeout::from(100u8)).map_err(LoadError::io("epoll_wait"))?;
        for event in &events[..ready] {
            let index = event.data() as usize;
            if !turn(&epoll, to, index, &mut slots[index], &request, &mut buffer)? {
                continue;
            }
            done += 1;
            if start.elapsed() > seconds / 10 {
                latencies.record(slots[index].begun.elapsed());
            }
            slots[index] = begin(&epoll, to, index, request.len() - HEADER)?;
        }
    }
    Ok(Requests {
        requests: done,
        per_second: done as f64 / start.elapsed().as_secs_f64(),
        p50_us: latencies.quantile_us(0.50),
        p90_us: latencies.quantile_us(0.90),
        p99_us: latencies.quantile_us(0.99),
    })
}

/// Starts to connect; the socket tells when it is through.
fn begin(epoll: &Epoll, to: SocketAddr, index: usize, size: usize) -> Result<Slot, LoadError> {
    let begun = Instant::now();
    let stream = poll::dial(to)?;
    poll::add(epoll, &stream, index, EpollFlags::EPOLLOUT)?;
    Ok(Slot { stream, begun, asked: false, to_receive: size })
}

/// One step of a slot; true when the response is whole.
fn turn(
    epoll: &Epoll,
    to: SocketAddr,
    index: usize,
    slot: &mut Slot,
    request: &[u8],
    buffer: &mut [u8],
) -> Result<bool, LoadError> {
    if !slot.asked {
        if let Some(source) = slot.stream.take_error().map_err(LoadError::io("reading a socket's error"))? {
            return Err(LoadError::Connect { to, source });
        }
        // A fresh socket's buffer takes a small request whole.
        if poll::write(&slot.stream, request)? != Some(request.len()) {
            let source = io::Error::other("a request did not fit into a fresh socket's buffer");
            return Err(LoadError::Io { doing: "writing", source });
        }
        slot.asked = true;
        poll::modify(epoll, &slot.stream, index, EpollFlags::EPOLLIN)?;
        return Ok(false);
    }
    match poll::read(&slot.stream, buffer)? {
        None => {}
        Some(0) => return Err(LoadError::Closed { while_: "a response was due" }),
        Some(count) => slot.to_receive = slot.to_receive.saturating_sub(count),
    }
    Ok(slot.to_receive == 0)
}
