//! Plain TCP to plain TCP: the same connection value, without a tunnel.
//!
//! Small messages are copied through the thread's buffer, two system calls a message. A direction that fills the buffer
//! is taken for bulk and moved by splice(2) through a pipe of the thread's, without a copy, until it slows down again;
//! where there are no descriptors for a pipe it is copied all the same.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::account::Account;
use crate::connection::{Connection, Live, Order};
use crate::fairness::{Share, Ticket};
use crate::splice::{End, Finished};
use crate::transport::Scratch;

mod pipe;

use pipe::Pipe;

/// A read as large as this is taken for bulk.
const SMALL: usize = 16 << 10;
/// Bytes one direction moves before others run.
const TURN: usize = 512 << 10;

/// How a pair ended, with both of its sockets: joined again, here or in another process, they go on without a byte lost.
#[derive(Debug)]
pub struct Parted {
    /// Our application's side and how it ended. What was read from either side and not yet written is in it.
    pub finished: Finished,
    /// The other side.
    pub far: TcpStream,
}

/// Joins `connection` (our application's side) with `far`, a socket registered with this thread's runtime, until
/// both directions have ended. Half-close passes both ways; [`Live`](crate::connection::Live) counts, cuts and detaches:
/// nobody else needs to be asked.
pub async fn splice(mut connection: Connection, far: TcpStream) -> Parted {
    let end = match prepare(&mut connection) {
        Ok(()) => {
            // It fails only on a socket that is already dead, which the first read will find out.
            let _ = far.set_nodelay(true);
            let mut directions = Directions::new(&mut connection);
            let end = poll_fn(|cx| turn(&mut connection, &far, &mut directions, cx)).await;
            if matches!(end, End::Detached) { directions.put_back(&mut connection, &far) } else { end }
        }
        Err(end) => failed(&far, end),
    };
    connection.cost.live.unwatch();
    connection.cost.charge.one_socket();
    Parted { finished: Finished { connection, end }, far }
}

/// The connection's socket on this thread's reactor, the far one on its account.
fn prepare(connection: &mut Connection) -> Result<(), End> {
    connection.register().map_err(End::Application)?;
    connection.cost.charge.second_socket().map_err(End::Account)
}

#[derive(Debug)]
struct Directions {
    out: Direction,
    back: Direction,
    watched: bool,
    /// The pod's share of the thread, and the place in its line.
    share: Rc<Share>,
    ticket: Ticket,
}

/// Bytes on their way from one socket to the other.
#[derive(Debug, Default)]
struct Direction {
    /// Read, not yet written.
    pending: Vec<u8>,
    at: usize,
    pipe: Option<Pipe>,
    bulk: bool,
    /// The reading side has ended; `told` once the writing side knows.
    ended: bool,
    told: bool,
}

impl Directions {
    fn new(connection: &mut Connection) -> Self {
        let out = Direction {
            pending: std::mem::take(&mut connection.unsent),
            ended: connection.near_ended,
            ..Direction::default()
        };
        let back = Direction {
            pending: std::mem::take(&mut connection.residue),
            at: std::mem::take(&mut connection.residue_at),
            ended: connection.far_ended,
            ..Direction::default()
        };
        Self { out, back, watched: false, share: Share::of(connection.account()), ticket: 0 }
    }

    /// Leaves what is under way with the connection, and says how that went.
    fn put_back(self, connection: &mut Connection, far: &TcpStream) -> End {
        connection.near_ended = self.out.ended;
        (connection.far_ended, connection.far_end_delivered) = (self.back.ended, self.back.told);
        match (self.out.into_bytes(), self.back.into_bytes()) {
            (Ok(out), Ok(back)) => {
                (connection.unsent, connection.residue, connection.residue_at) = (out, back, 0);
                End::Detached
            }
            (Err(err), _) | (_, Err(err)) => failed(far, End::Application(err)),
        }
    }
}

fn turn(
    connection: &mut Connection,
    far: &TcpStream,
    both: &mut Directions,
    cx: &mut Context<'_>,
) -> Poll<End> {
    let live = connection.cost.live.clone();
    if !both.watched {
        live.watch(cx.waker());
        both.watched = true;
    }
    match live.take_order() {
        Some(Order::Cut(cause)) => {
            let _ = SockRef::from(far).set_linger(Some(std::time::Duration::ZERO));
            return Poll::Ready(End::Cut(cause.into()));
        }
        Some(Order::Detach) => return Poll::Ready(End::Detached),
        None => {}
    }
    if !both.share.admit(&mut both.ticket, cx.waker()) {
        return Poll::Pending;
    }
    let before = live.sent() + live.received();
    let pumped = pump_both(connection, far, both, cx, &live);
    both.share.spend(live.sent() + live.received() - before);
    if let Err(end) = pumped {
        return Poll::Ready(failed(far, end));
    }
    connection.near_ended = both.out.ended;
    (connection.far_ended, connection.far_end_delivered) = (both.back.ended, both.back.told);
    if both.out.told && both.back.told { Poll::Ready(End::Complete) } else { Poll::Pending }
}

/// Moves what can be moved in both directions, and charges what is left over in between.
fn pump_both(
    connection: &mut Connection,
    far: &TcpStream,
    both: &mut Directions,
    cx: &mut Context<'_>,
    live: &Live,
) -> Result<(), End> {
    let near = connection.registered().map_err(End::Application)?;
    let before = both.out.waiting() + both.back.waiting();
    let account = connection.account();
    let out = both.out.pump(near, far, account, cx, |bytes| live.add_sent(bytes));
    let back = both.back.pump(far, near, account, cx, |bytes| live.add_received(bytes));
    let after = both.out.waiting() + both.back.waiting();
    if after > before {
        connection.cost.hold(after - before).map_err(End::Account)?;
    } else {
        connection.cost.release(before - after);
    }
    for moved in [out, back] {
        if let Poll::Ready(Err(err)) = moved {
            return Err(End::Application(err));
        }
    }
    Ok(())
}

/// A broken side is passed on as a reset: the other application must not take it for an end.
fn failed(far: &TcpStream, end: End) -> End {
    let _ = SockRef::from(far).set_linger(Some(std::time::Duration::ZERO));
    end
}

impl Direction {
    /// What was read and not yet written.
    fn into_bytes(self) -> io::Result<Vec<u8>> {
        let mut bytes = self.pending;
        bytes.drain(..self.at);
        if let Some(pipe) = self.pipe {
            bytes.extend_from_slice(&pipe.into_bytes()?);
        }
        Ok(bytes)
    }

    /// Bytes that were read and not yet written; what lies in a pipe is the kernel's.
    fn waiting(&self) -> usize {
        self.pending.len() - self.at
    }

    /// Moves what can be moved; ready only when this direction has ended or failed.
    fn pump(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        account: &Arc<Account>,
        cx: &mut Context<'_>,
        moved: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        let mut left = TURN;
        while !self.told {
            ready!(self.write_pending(to, cx, &moved))?;
            if self.ended {
                self.told = true;
                // A side that is already gone needs no telling.
                let _ = SockRef::from(to).shutdown(std::net::Shutdown::Write);
                break;
            }
            if left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(from.poll_read_ready(cx))?;
            // One that holds something has been emptied above.
            let pipe = if self.bulk { Pipe::take(account) } else { None };
            let got = match pipe {
                Some(pipe) => self.fill(pipe, from)?,
                None => self.copy(from, to, &moved)?,
            };
            left = left.saturating_sub(got);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what came at once; the rest is pending. Returns how much was read.
    fn copy(&mut self, from: &TcpStream, to: &TcpStream, moved: &impl Fn(usize)) -> io::Result<usize> {
        let mut scratch = Scratch::take();
        let result = self.copy_through(&mut scratch.raw[..SMALL], from, to, moved);
        scratch.put();
        result
    }

    fn copy_through(
        &mut self,
        buffer: &mut [u8],
        from: &TcpStream,
        to: &TcpStream,
        moved: &impl Fn(usize),
    ) -> io::Result<usize> {
        let mut got = None;
        let result = from.try_io(Interest::READABLE, || {
            let len = (&*SockRef::from(from)).read(buffer)?;
            got = Some(len);
            // A short read has emptied the socket: forget the readiness, or the next turn asks the kernel again.
            if len > 0 && len < SMALL { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let Some(len) = got else {
            return match result {
                Err(err) if err.kind() != io::ErrorKind::WouldBlock => Err(err),
                _ => Ok(0),
            };
        };
        self.ended = len == 0;
        self.bulk = len == SMALL;
        let sent = match (&*SockRef::from(to)).write(&buffer[..len]) {
            Ok(sent) => sent,
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(err) => return Err(err),
        };
        moved(sent);
        self.pending.extend_from_slice(&buffer[sent..len]);
        Ok(len)
    }

    /// Fills an empty pipe from the socket. Returns how much came.
    fn fill(&mut self, mut pipe: Pipe, from: &TcpStream) -> io::Result<usize> {
        match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(len) => {
                self.ended = len == 0;
                self.bulk = len >= SMALL;
                self.keep(pipe);
                Ok(len)
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                self.bulk = false;
                self.keep(pipe);
                Ok(0)
            }
            Err(err) => Err(err),
        }
    }

    fn keep(&mut self, pipe: Pipe) {
        if pipe.is_empty() {
            pipe.put();
        } else {
            self.pipe = Some(pipe);
        }
    }

    /// Writes what was read before; ready when nothing is left.
    fn write_pending(
        &mut self,
        to: &TcpStream,
        cx: &mut Context<'_>,
        moved: &impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        while self.at < self.pending.len() {
            ready!(to.poll_write_ready(cx))?;
            let rest = &self.pending[self.at..];
            match to.try_io(Interest::WRITABLE, || (&*SockRef::from(to)).write(rest)) {
                Ok(sent) => {
                    moved(sent);
                    self.at += sent;
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
        if !self.pending.is_empty() {
            (self.pending, self.at) = (Vec::new(), 0);
        }
        while let Some(pipe) = &mut self.pipe {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(sent) => moved(sent),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Poll::Ready(Err(err)),
            }
            if pipe.is_empty()
                && let Some(pipe) = self.pipe.take()
            {
                pipe.put();
            }
        }
        Poll::Ready(Ok(()))
    }
}
