//! Requests and responses over connections that stay open: latency, and requests a second.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::histogram::Histogram;
use super::poll::{self, ZEROS};
use super::wire::Mode;
use super::{LoadError, Requests};

/// The timer's token; connections count from 0.
const TIMER: usize = usize::MAX;

/// One connection with at most one request in flight.
struct Connection {
    stream: TcpStream,
    /// Bytes of the request not yet written.
    to_send: usize,
    /// Bytes of the response not yet read; 0 when idle.
    to_receive: usize,
    /// When the request in flight was due.
    due: Instant,
    /// Open loop: requests that fell due while one was in flight.
    waiting: VecDeque<Instant>,
}

/// Runs for `seconds`; with `rate` in an open loop.
pub(crate) fn run(
    to: SocketAddr,
    connections: usize,
    seconds: Duration,
    size: usize,
    rate: Option<f64>,
) -> Result<Requests, LoadError> {
    let mut load = Load::open(to, connections, size)?;
    let begin = Instant::now();
    let mut pace = rate.map(|rate| Pace::new(begin, rate)).transpose()?;
    load.count_from = begin + seconds / 10;
    match &pace {
        Some(pace) => poll::add(&load.epoll, &pace.timer, TIMER, EpollFlags::EPOLLIN)?,
        None => (0..connections).try_for_each(|index| load.start(index, begin))?,
    }
    let mut events = [EpollEvent::empty(); 256];
    while begin.elapsed() < seconds {
        let ready =
            load.epoll.wait(&mut events, EpollTimeout::from(100u8)).map_err(LoadError::io("epoll_wait"))?;
        for event in &events[..ready] {
            match (event.data() as usize, &mut pace) {
                (TIMER, Some(pace)) => pace.tick(&mut load)?,
                (index, pace) => load.turn(index, pace.is_none())?,
            }
        }
    }
    Ok(load.report(begin.elapsed()))
}

/// All connections, and what they saw.
struct Load {
    epoll: Epoll,
    connections: Vec<Connection>,
    size: usize,
    buffer: Vec<u8>,
    latencies: Histogram,
    count_from: Instant,
    done: u64,
}

impl Load {
    fn open(to: SocketAddr, connections: usize, size: usize) -> Result<Self, LoadError> {
        let size = size.clamp(1, ZEROS.len());
        let epoll = poll::epoll()?;
        let now = Instant::now();
        let mut all = Vec::with_capacity(connections);
        for index in 0..connections {
            let stream = poll::connect(to)?;
            poll::write(&stream, &Mode::Echo(size as u32).encode())?;
            poll::add(&epoll, &stream, index, EpollFlags::EPOLLIN)?;
            all.push(Connection { stream, to_send: 0, to_receive: 0, due: now, waiting: VecDeque::new() });
        }
        let (buffer, latencies) = (vec![0; 256 * 1024], Histogram::new());
        Ok(Self { epoll, connections: all, size, buffer, latencies, count_from: now, done: 0 })
    }

    /// Sends a request, or queues it behind the one in flight.
    fn start(&mut self, index: usize, due: Instant) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        if connection.to_receive > 0 {
            connection.waiting.push_back(due);
            return Ok(());
        }
        (connection.due, connection.to_send, connection.to_receive) = (due, self.size, self.size);
        self.send(index)
    }

    fn send(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        let asked = connection.to_send;
        connection.to_send -= poll::write(&connection.stream, &ZEROS[..asked])?.unwrap_or(0);
        // Only a message larger than the socket's buffer ever waits for room.
        if connection.to_send > 0 {
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            poll::modify(&self.epoll, &connection.stream, index, both)?;
        } else if asked < self.size {
            poll::modify(&self.epoll, &connection.stream, index, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    /// A connection is ready: the rest of a request goes out, a response comes in.
    fn turn(&mut self, index: usize, closed_loop: bool) -> Result<(), LoadError> {
        if self.connections[index].to_send > 0 {
            self.send(index)?;
        }
        let connection = &mut self.connections[index];
        match poll::read(&connection.stream, &mut self.buffer)? {
            None => return Ok(()),
            Some(0) => return Err(LoadError::Closed { while_: "a response was due" }),
            Some(count) => connection.to_receive = connection.to_receive.saturating_sub(count),
        }
        if connection.to_receive > 0 {
            return Ok(());
        }
        let now = Instant::now();
        self.done += 1;
        if now >= self.count_from {
            self.latencies.record(now - connection.due);
        }
        match connection.waiting.pop_front() {
            Some(due) => self.start(index, due),
            None if closed_loop => self.start(index, now),
            None => Ok(()),
        }
    }

    fn report(&self, elapsed: Duration) -> Requests {
        Requests {
            requests: self.done,
            per_second: self.done as f64 / elapsed.as_secs_f64(),
            p50_us: self.latencies.quantile_us(0.50),
            p90_us: self.latencies.quantile_us(0.90),
            p99_us: self.latencies.quantile_us(0.99),
        }
    }
}

/// The open loop's clock: request k is due k intervals after the start, on connection k modulo all.
struct Pace {
    timer: TimerFd,
    begin: Instant,
    interval: Duration,
    next: u32,
}

impl Pace {
    fn new(begin: Instant, rate: f64) -> Result<Self, LoadError> {
        let interval = Duration::from_secs_f64(1.0 / rate.clamp(0.1, 1e7));
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
                .map_err(LoadError::io("timerfd_create"))?;
        let period = Expiration::Interval(TimeSpec::from_duration(interval.max(Duration::from_micros(50))));
        timer.set(period, TimerSetTimeFlags::empty()).map_err(LoadError::io("timerfd_settime"))?;
        Ok(Self { timer, begin, interval, next: 0 })
    }

    /// Starts every request that has fallen due.
    fn tick(&mut self, load: &mut Load) -> Result<(), LoadError> {
        self.timer.wait().map_err(LoadError::io("reading the timer"))?;
        let elapsed = self.begin.elapsed();
        while self.interval * self.next <= elapsed {
            let due = self.begin + self.interval * self.next;
            load.start(self.next as usize % load.connections.len(), due)?;
            self.next += 1;
        }
        Ok(())
    }
}
