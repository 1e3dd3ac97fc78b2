//! Joining a [`Connection`] and a CONNECT stream until both directions have ended.
//!
//! The way out (application to tunnel) is this future: it reads the socket straight into the tunnel's open records. The
//! way in is the driver's: it writes the socket as the bytes arrive, and this future only finishes what the socket did
//! not take at once. The connection itself lies in the stream's slot, so that the future is a pointer and a key.

use std::future::Future;
use std::io::{self, IoSliceMut, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::Interest;

use crate::connection::{Connection, Order};
use crate::frame::code;
use crate::limits::Limit;
use crate::protocol::Key;
use crate::transport::{BATCH, Spare};
use crate::tunnel::inner::{Inner, Use};
use crate::tunnel::{Gone, Stream};

/// How a spliced connection ended, with the connection itself: log it, drop it, park it or resume it.
#[derive(Debug)]
pub struct Finished {
    /// The connection, with its counts and, when detached, its residue. Its socket is open still: dropping it closes
    /// it in order, [`Connection::abort`] resets it, [`Finished::close`] does what the end calls for.
    pub connection: Connection,
    /// Why the splice ended.
    pub end: End,
}

impl Finished {
    /// Closes the application's socket: with a reset where the application must not take what came for all there was.
    pub fn close(self) {
        // Where the far side's end has been passed on, what broke was the other direction.
        if !self.end.is_in_order() && !self.connection.far_end_delivered {
            self.connection.abort();
        }
    }
}

/// Why a splice ended.
#[derive(Debug)]
pub enum End {
    /// Both directions ended, all bytes delivered.
    Complete,
    /// The peer reset the stream with this HTTP/2 error code: NO_ERROR (0) and CANCEL (8) are how an end says that it
    /// needs no more; others mean that the application's socket broke there, or a fault.
    Reset(u32),
    /// Our application's socket failed; the peer was sent a reset.
    Application(io::Error),
    /// The tunnel ended under it.
    Tunnel(Gone),
    /// We cut it ([`Live::cut`](crate::connection::Live::cut)), for this cause.
    Cut(String),
    /// The far side cut it and said why.
    CutByPeer(String),
    /// Both ends hold all that was sent: the connection can be resumed.
    Detached,
    /// A detach was begun, but the peer did not answer in time, or its counts differ: the connection is lost.
    Undetachable,
    /// The pod's account is full: the text says of what.
    Account(crate::account::Full),
}

impl End {
    /// Whether nothing broke: all is said, or one end needs no more of the other (NO_ERROR, CANCEL).
    fn is_in_order(&self) -> bool {
        matches!(self, Self::Complete | Self::Detached | Self::Reset(code::NO_ERROR | code::CANCEL))
    }
}

/// The future of [`Stream::splice`]. Small (a pointer and a key); dropping it resets the stream.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Splice {
    stream: Option<Stream>,
}

impl Splice {
    pub(crate) fn new(stream: Stream, connection: Connection) -> Self {
        install(&mut stream.shared.borrow_mut(), stream.key, connection);
        Self { stream: Some(stream) }
    }
}

/// Puts the connection into its stream's slot.
fn install(inner: &mut Inner, key: Key, mut connection: Connection) {
    let mut failed = connection.register().err().map(End::Application);
    connection.brought = u32::try_from(connection.undelivered()).unwrap_or(u32::MAX);
    let stream = &mut inner.engine.streams[key];
    if let Use::Bytes { pending, .. } = std::mem::take(&mut stream.ext.used) {
        // What came before the splice was charged to the tunnel.
        let early = pending.as_slice();
        connection.residue.push(early);
        if let Some(charge) = &mut inner.charge {
            charge.release(early.len());
        }
        if let Err(full) = connection.cost.hold(early.len()) {
            failed.get_or_insert(End::Account(full));
        }
    }
    connection.far_ended |= stream.remote_ended;
    let near_ended = connection.near_ended;
    stream.ext.used = Use::Splice(Box::new(connection));
    if let Some(end) = failed {
        inner.broken(key, end);
    } else if near_ended {
        // Resumed after its application had ended: the new stream must hear of that too.
        inner.end(key);
    }
    inner.part_too(key);
    if inner.has_something_to_say() {
        inner.say_late();
    }
}

impl Future for Splice {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let stream = self.stream.as_ref().expect("a future is not polled after it was ready");
        let mut inner = stream.shared.borrow_mut();
        let Poll::Ready(end) = turn(&mut inner, stream.key, cx) else { return Poll::Pending };
        let key = stream.key;
        let Use::Splice(connection) = std::mem::take(&mut inner.engine.streams[key].ext.used) else {
            unreachable!("the slot holds the connection until its splice is ready")
        };
        connection.cost.live.unwatch();
        // What it takes along, or what is lost with it, waits in this tunnel no more.
        inner.engine.consumed_unowned(connection.undelivered_of_this_tunnel());
        if matches!(end, End::Detached) {
            // Both ends know: no reset is needed, and none may overtake the peer's last words.
            inner.engine.streams[key].reset = true;
        }
        drop(inner);
        self.stream = None;
        Poll::Ready(Finished { connection: *connection, end })
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream
            && let Use::Splice(connection) = &stream.shared.borrow().engine.streams[stream.key].ext.used
        {
            connection.cost.live.unwatch();
        }
    }
}

/// The connection in a slot and the parts of the tunnel beside it.
macro_rules! connection {
    ($inner:expr, $key:expr) => {
        match &mut $inner.engine.streams[$key].ext.used {
            Use::Splice(connection) => connection,
            _ => unreachable!("the slot holds the connection until its splice is ready"),
        }
    };
}

/// One poll: orders, then what waits for the socket, then what the socket has.
fn turn(inner: &mut Inner, key: Key, cx: &mut Context<'_>) -> Poll<End> {
    if let Some(end) = obey(inner, key, cx) {
        return Poll::Ready(end);
    }
    let delivered = match deliver_residue(inner, key, cx) {
        Ok(delivered) => delivered,
        Err(err) => {
            inner.reset(key, code::CONNECT_ERROR);
            return Poll::Ready(End::Application(err));
        }
    };
    // Both ends have everything: what becomes of the tunnel is no concern of the connection's any more.
    let slot = &mut inner.engine.streams[key].ext;
    if slot.end.is_none() && slot.parting.as_ref().is_some_and(|parting| parting.answered) {
        return Poll::Ready(End::Detached);
    }
    if let Some(end) = over(inner, key, delivered) {
        return Poll::Ready(end);
    }
    if let Some(parting) = &mut inner.engine.streams[key].ext.parting {
        if parting.expired(cx) {
            inner.limits.hits.hit(Limit::DetachTime);
            return Poll::Ready(End::Undetachable);
        }
        return Poll::Pending;
    }
    if let Err(err) = read(inner, key, cx) {
        inner.reset(key, code::CONNECT_ERROR);
        return Poll::Ready(End::Application(err));
    }
    let connection = connection!(inner, key);
    if connection.near_ended && connection.far_end_delivered {
        return Poll::Ready(End::Complete);
    }
    Poll::Pending
}

/// What other threads have ordered.
fn obey(inner: &mut Inner, key: Key, cx: &Context<'_>) -> Option<End> {
    let slot = &mut inner.engine.streams[key].ext;
    let known = slot.reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
    let Use::Splice(connection) = &slot.used else { return None };
    if !known {
        connection.cost.live.watch(cx.waker());
        slot.reader = Some(cx.waker().clone());
    }
    match connection.cost.live.take_order()? {
        Order::Cut(cause) => {
            inner.explain(key, &cause);
            // A peer that hears no cause, as one that is not ours, must not take this for an end in order.
            inner.reset(key, code::CONNECT_ERROR);
            Some(End::Cut(cause.into()))
        }
        Order::Detach => {
            inner.part(key);
            None
        }
    }
}

/// Whether the stream is over, and what that means now that `delivered` says whether the application has all of it.
fn over(inner: &mut Inner, key: Key, delivered: bool) -> Option<End> {
    let stream = &mut inner.engine.streams[key];
    // An end that needs no more has still sent what it sent before: that is delivered first. So is what came to its
    // end, whatever then became of the other direction.
    let in_order = match stream.ext.end.as_deref() {
        Some(End::Reset(code::NO_ERROR | code::CANCEL)) => true,
        Some(End::Reset(_)) if stream.remote_ended => true,
        Some(_) => return stream.ext.end.take().map(|end| *end),
        None => false,
    };
    if in_order {
        return if delivered { stream.ext.end.take().map(|end| *end) } else { None };
    }
    let why = inner.gone.as_ref()?;
    if stream.remote_ended && !delivered {
        return None;
    }
    let connection = connection!(inner, key);
    let complete = connection.near_ended && connection.far_end_delivered;
    Some(if complete { End::Complete } else { End::Tunnel(why.clone()) })
}

/// Writes what the socket did not take when it arrived. Returns whether nothing is left.
fn deliver_residue(inner: &mut Inner, key: Key, cx: &mut Context<'_>) -> io::Result<bool> {
    loop {
        let connection = connection!(inner, key);
        if connection.undelivered() == 0 {
            break;
        }
        let socket = connection.registered()?;
        if socket.poll_write_ready(cx)?.is_pending() {
            return Ok(false);
        }
        let residue = connection.residue.as_slice();
        let sent = match socket.try_io(Interest::WRITABLE, || (&*SockRef::from(socket)).write(residue)) {
            Ok(sent) => sent,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => continue,
            Err(err) => return Err(err),
        };
        connection.residue.advance(sent);
        connection.cost.live.add_received(sent);
        connection.cost.release(sent);
        let came_here = connection.delivered_of_this_tunnel(sent);
        inner.engine.consumed(key, came_here);
        if !inner.engine.control.is_empty() {
            inner.mark();
        }
    }
    let connection = connection!(inner, key);
    if connection.far_ended {
        connection.deliver_end();
    }
    Ok(true)
}

/// Reads the socket into the open records until it is empty, a window or the room is, or the turn's share is used up.
fn read(inner: &mut Inner, key: Key, cx: &mut Context<'_>) -> io::Result<()> {
    let result = read_turn(inner, key, cx);
    // A buffer fetched for a socket that then had nothing goes back: an idle tunnel holds none.
    if let Some(records) = inner.records.take_if(|records| records.is_empty()) {
        Spare::put(records);
    }
    result
}

fn read_turn(inner: &mut Inner, key: Key, cx: &mut Context<'_>) -> io::Result<()> {
    let mut left = if inner.users > 1 { inner.limits.stream_bytes_per_turn } else { usize::MAX };
    if !send_unsent(inner, key) {
        return Ok(());
    }
    loop {
        if connection!(inner, key).near_ended {
            return Ok(());
        }
        let budget = inner.engine.budget(key).min(left);
        if connection!(inner, key).registered()?.poll_read_ready(cx)?.is_pending() {
            return Ok(());
        }
        if budget == 0 {
            if left == 0 {
                cx.waker().wake_by_ref();
            }
            // Otherwise a window is shut: its opening wakes us.
            return Ok(());
        }
        if let Some(share) = &inner.share
            && !share.admit(&mut inner.engine.streams[key].ext.ticket, cx.waker())
        {
            return Ok(());
        }
        // Most reads bring a request: one gap is cheaper than eight. A read that fills it asks for all.
        let most = if inner.engine.streams[key].ext.bulk { BATCH } else { 1 };
        match read_once(inner, key, budget, most)? {
            Got::NoRoom => {
                inner.queue(key);
                return Ok(());
            }
            Got::NotReady => {}
            Got::Ended => {
                connection!(inner, key).near_ended = true;
                inner.end(key);
                return Ok(());
            }
            Got::Bytes(len) => {
                left = left.saturating_sub(len);
                if let Some(share) = &inner.share {
                    share.spend(len as u64);
                }
                connection!(inner, key).cost.live.add_sent(len);
                inner.engine.sent(key, len);
                inner.mark();
            }
        }
    }
}

enum Got {
    /// The records are full until the next flush.
    NoRoom,
    NotReady,
    Bytes(usize),
    Ended,
}

/// One read of at most `most` gaps.
fn read_once(inner: &mut Inner, key: Key, budget: usize, most: usize) -> io::Result<Got> {
    let stream = &mut inner.engine.streams[key];
    let id = stream.id;
    let slot = &mut stream.ext;
    let Use::Splice(connection) = &slot.used else { return Ok(Got::NotReady) };
    let socket = connection.registered()?;
    let records = inner.records.get_or_insert_with(Spare::take);
    let mut gaps = std::array::from_fn::<_, BATCH, _>(|_| IoSliceMut::new(&mut []));
    let found = records.gaps(budget, &mut gaps).min(most);
    if found == 0 {
        return Ok(Got::NoRoom);
    }
    let first = gaps[0].len();
    let room: usize = gaps[..found].iter().map(|gap| gap.len()).sum();
    let mut got = None;
    let result = socket.try_io(Interest::READABLE, || {
        let socket = SockRef::from(socket);
        let len = match &mut gaps[..found] {
            [one] => (&*socket).read(one)?,
            many => (&*socket).read_vectored(many)?,
        };
        got = Some(len);
        // A short read has emptied the socket: forget the readiness, or the next turn asks the kernel again. (An end
        // that has come already is remembered apart.)
        if len > 0 && len < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (got, result) {
        (Some(0), _) => Ok(Got::Ended),
        (Some(len), _) => {
            slot.bulk = len >= first;
            records.commit(id, budget, len);
            Ok(Got::Bytes(len))
        }
        (None, Err(err)) if err.kind() != io::ErrorKind::WouldBlock => Err(err),
        (None, _) => Ok(Got::NotReady),
    }
}

/// Sends what was read before the splice began; whether all of it is on its way.
fn send_unsent(inner: &mut Inner, key: Key) -> bool {
    let connection = connection!(inner, key);
    if connection.unsent.is_empty() {
        return true;
    }
    let mut unsent = std::mem::take(&mut connection.unsent);
    let written = inner.write(key, unsent.as_slice());
    unsent.advance(written);
    let connection = connection!(inner, key);
    connection.cost.live.add_sent(written);
    connection.cost.release(written);
    connection.unsent = unsent;
    connection.unsent.is_empty()
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;
    use crate::connection::Live;
    use crate::protocol::StreamState;
    use crate::tunnel::inner::Slot;

    /// What an idle proxied connection costs beside its task and its reactor entry, bytes. Ten thousand of them are the
    /// difference between 12 and 60 MB (`docs/decisions/0001-own-framing.md`).
    #[test]
    fn a_connection_stays_small() {
        let sizes =
            [size_of::<Splice>(), size_of::<StreamState<Slot>>(), size_of::<Connection>(), size_of::<Live>()];
        let most = [16, 104, 112, 72];
        assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?} above {most:?}");
    }
}
