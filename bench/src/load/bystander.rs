//! Somebody who only wants to be served: requests at a steady pace over connections that stay open, and now and then a
//! fresh connection. Unlike the other loads it goes on when a connection breaks, and counts that.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};

use super::LoadError;
use super::histogram::Histogram;
use super::poll::{self, ZEROS};
use super::wire::Mode;

/// The timer's token; connections have the index of their slot.
const TIMER: usize = usize::MAX;
/// Bytes of a request, and of its response.
const SIZE: usize = 1024;
/// How long what is under way at the end may still take. What takes longer was not answered.
const GRACE: Duration = Duration::from_secs(2);

/// What it is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub to: SocketAddr,
    /// Connections that stay open.
    pub connections: usize,
    pub seconds: Duration,
    /// Requests a second over all of them.
    pub rate: f64,
    /// Fresh connections a second, one request each.
    pub fresh: f64,
}

/// What it saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Requests answered on connections that stayed open.
    pub answered: u64,
    /// Requests on them that were not.
    pub failed: u64,
    /// Connections that broke or could not be opened, of those that should stay open.
    pub broken: u64,
    /// Microseconds from when a request was due until its whole answer was there.
    pub p50_us: f64,
    /// The 99th percentile of that.
    pub p99_us: f64,
    /// Fresh connections answered.
    pub fresh: u64,
    /// Fresh connections that were not.
    pub fresh_failed: u64,
    /// From connect to the whole answer, microseconds: the median.
    pub fresh_p50_us: f64,
    /// And the 99th percentile.
    pub fresh_p99_us: f64,
}

/// Runs it.
pub(crate) fn run(wish: Wish) -> Result<Seen, LoadError> {
    let mut load = Bystander::new(wish)?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
        .map_err(LoadError::io("timerfd_create"))?;
    let interval = Duration::from_secs_f64(1.0 / wish.rate.clamp(1.0, 1e5));
    let period = Expiration::Interval(TimeSpec::from_duration(interval));
    let begin = Instant::now();
    load.count_from = begin + wish.seconds / 10;
    timer.set(period, TimerSetTimeFlags::empty()).map_err(LoadError::io("timerfd_settime"))?;
    poll::add(&load.epoll, &timer, TIMER, EpollFlags::EPOLLIN)?;
    let mut events = [EpollEvent::empty(); 256];
    while begin.elapsed() < wish.seconds || (load.under_way() && begin.elapsed() < wish.seconds + GRACE) {
        let ready = match load.epoll.wait(&mut events, EpollTimeout::from(100u8)) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready.map_err(LoadError::io("epoll_wait"))?,
        };
        for event in &events[..ready] {
            match event.data() as usize {
                TIMER => {
                    timer.wait().map_err(LoadError::io("reading the timer"))?;
                    load.tick(begin, interval)?;
                }
                index => load.turn(index)?,
            }
        }
    }
    Ok(load.report())
}

/// A connection under way.
struct Wire {
    stream: TcpStream,
    /// Connected, and the server knows what is wanted.
    open: bool,
    /// When the request in flight was due, and what is missing of its answer.
    asked: Option<(Instant, usize)>,
}

struct Bystander {
    wish: Wish,
    epoll: Epoll,
    /// Those that stay open come first; `None` is to be opened again.
    wires: Vec<Option<Wire>>,
    /// Of those that stay open: requests that fell due while one was in flight.
    waiting: Vec<VecDeque<Instant>>,
    free: Vec<usize>,
    due: u32,
    fresh_due: u32,
    /// The first tenth is not counted: tunnels come up.
    count_from: Instant,
    kept: Histogram,
    fresh: Histogram,
    seen: Seen,
    buffer: Vec<u8>,
}

impl Bystander {
    fn new(wish: Wish) -> Result<Self, LoadError> {
        let seen = Seen {
            answered: 0,
            failed: 0,
            broken: 0,
            p50_us: 0.0,
            p99_us: 0.0,
            fresh: 0,
            fresh_failed: 0,
            fresh_p50_us: 0.0,
            fresh_p99_us: 0.0,
        };
        let mut all = Self {
            wish,
            epoll: poll::epoll()?,
            wires: Vec::new(),
            waiting: Vec::new(),
            free: Vec::new(),
            // The first falls due with the first tick.
            due: 1,
            fresh_due: 1,
            count_from: Instant::now(),
            kept: Histogram::new(),
            fresh: Histogram::new(),
            seen,
            buffer: vec![0; 64 * 1024],
        };
        for index in 0..wish.connections {
            all.wires.push(None);
            all.waiting.push(VecDeque::new());
            all.open(index)?;
        }
        Ok(all)
    }

    /// Starts to connect in this slot.
    fn open(&mut self, index: usize) -> Result<(), LoadError> {
        match poll::dial(self.wish.to) {
            Ok(stream) => {
                poll::add(&self.epoll, &stream, index, EpollFlags::EPOLLOUT)?;
                let asked = (index >= self.waiting.len()).then(|| (Instant::now(), SIZE));
                self.wires[index] = Some(Wire { stream, open: false, asked });
            }
            Err(_) => self.fail(index),
        }
        Ok(())
    }

    fn under_way(&self) -> bool {
        self.wires.iter().flatten().any(|wire| wire.asked.is_some())
            || self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Starts what has fallen due, and opens again what broke.
    fn tick(&mut self, begin: Instant, interval: Duration) -> Result<(), LoadError> {
        let elapsed = begin.elapsed();
        for index in 0..self.waiting.len() {
            if self.wires[index].is_none() && elapsed < self.wish.seconds {
                self.open(index)?;
            }
        }
        let until = elapsed.min(self.wish.seconds);
        while interval * self.due < until {
            let index = self.due as usize % self.waiting.len();
            self.waiting[index].push_back(begin + interval * self.due);
            self.due += 1;
            self.next(index);
        }
        while self.wish.fresh > 0.0 && f64::from(self.fresh_due) / self.wish.fresh < until.as_secs_f64() {
            self.fresh_due += 1;
            let index = self.free.pop().unwrap_or_else(|| {
                self.wires.push(None);
                self.wires.len() - 1
            });
            self.open(index)?;
        }
        Ok(())
    }

    /// Sends the next request of a connection that stays open, if it is free.
    fn next(&mut self, index: usize) {
        let Some(Some(wire)) = self.wires.get_mut(index) else { return };
        if !wire.open || wire.asked.is_some() {
            return;
        }
        let Some(due) = self.waiting[index].pop_front() else { return };
        wire.asked = Some((due, SIZE));
        // With one request in flight at most there is room for it.
        if !matches!(poll::write(&wire.stream, &ZEROS[..SIZE]), Ok(Some(SIZE))) {
            self.fail(index);
        }
    }

    /// A connection is ready: opened, or more of an answer.
    fn turn(&mut self, index: usize) -> Result<(), LoadError> {
        let Some(Some(wire)) = self.wires.get_mut(index) else { return Ok(()) };
        if !wire.open {
            let mut hello = Mode::Echo(SIZE as u32).encode().to_vec();
            if wire.asked.is_some() {
                hello.extend_from_slice(&ZEROS[..SIZE]);
            }
            let sound = matches!(wire.stream.take_error(), Ok(None));
            if !sound || !matches!(poll::write(&wire.stream, &hello), Ok(Some(sent)) if sent == hello.len()) {
                self.fail(index);
                return Ok(());
            }
            wire.open = true;
            poll::modify(&self.epoll, &wire.stream, index, EpollFlags::EPOLLIN)?;
        } else {
            match poll::read(&wire.stream, &mut self.buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(count)) if count > 0 => self.arrived(index, count),
                _ => self.fail(index),
            }
        }
        if index < self.waiting.len() {
            self.next(index);
        }
        Ok(())
    }

    fn arrived(&mut self, index: usize, count: usize) {
        let Some(Some(wire)) = self.wires.get_mut(index) else { return };
        let Some((due, left)) = &mut wire.asked else { return };
        *left = left.saturating_sub(count);
        if *left > 0 {
            return;
        }
        let took = due.elapsed();
        let counts = *due >= self.count_from;
        wire.asked = None;
        if index < self.waiting.len() {
            self.seen.answered += 1;
            if counts {
                self.kept.record(took);
            }
        } else {
            self.seen.fresh += 1;
            if counts {
                self.fresh.record(took);
            }
            self.wires[index] = None;
            self.free.push(index);
        }
    }

    /// A connection broke, or could not be opened.
    fn fail(&mut self, index: usize) {
        let gone = self.wires[index].take();
        if index >= self.waiting.len() {
            self.seen.fresh_failed += 1;
            self.free.push(index);
            return;
        }
        self.seen.broken += 1;
        self.seen.failed += u64::from(gone.is_some_and(|wire| wire.asked.is_some()));
    }

    fn report(mut self) -> Seen {
        for (index, wire) in self.wires.iter().enumerate() {
            let unanswered = u64::from(wire.as_ref().is_some_and(|wire| wire.asked.is_some()));
            match self.waiting.get(index) {
                Some(waiting) => self.seen.failed += unanswered + waiting.len() as u64,
                None => self.seen.fresh_failed += unanswered,
            }
        }
        Seen {
            p50_us: self.kept.quantile_us(0.50),
            p99_us: self.kept.quantile_us(0.99),
            fresh_p50_us: self.fresh.quantile_us(0.50),
            fresh_p99_us: self.fresh.quantile_us(0.99),
            ..self.seen
        }
    }
}
