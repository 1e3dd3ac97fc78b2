//! From received bytes to applications: events become writes to sockets in the same turn, on the same stack.

use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::time::Duration;

use socket2::SockRef;

use super::control;
use super::inner::{Inner, Use};
use crate::connection::{Connection, Socket};
use crate::frame::code;
use crate::headers::Headers;
use crate::limits::Limit;
use crate::protocol::{Event, Fault, Key, RequestHead, ResponseHead, Role, fields};
use crate::splice::End;
use crate::transport::Scratch;
use crate::waiting::Waiting;

/// Pieces of one stream's payload that are written together. One receive brings at most nine records.
const PIECES: usize = 16;

impl Inner {
    /// Reads what the peer sent and acts on it.
    pub(crate) fn process(&mut self, now: Duration, received: &mut Scratch) -> Result<(), Fault> {
        let Scratch { raw, plain, parts, events, .. } = received;
        events.clear();
        let whole = 0..plain.len();
        self.process_parts(now, plain, std::slice::from_ref(&whole), events)?;
        self.process_parts(now, raw, parts, events)
    }

    /// Reads all parts of `text` before it acts, so that what came for a stream in several records is written at once.
    fn process_parts(
        &mut self,
        now: Duration,
        text: &[u8],
        parts: &[Range<usize>],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                match self.engine.receive(now, &text[at..part.end], at, events) {
                    Ok(read) => at += read,
                    Err(fault) => {
                        self.act(text, events)?;
                        return Err(fault);
                    }
                }
                if at < part.end {
                    self.act(text, events)?;
                    events.clear();
                }
            }
        }
        self.act(text, events)?;
        events.clear();
        Ok(())
    }

    fn act(&mut self, input: &[u8], events: &mut [Event]) -> Result<(), Fault> {
        let mut next = 0;
        while let Some(event) = events.get_mut(next).map(|event| std::mem::replace(event, Event::Pong)) {
            next += 1;
            if event.stream().is_some_and(|key| !self.engine.streams.contains(key)) {
                self.too_late(&event);
                continue;
            }
            match event {
                Event::Data { key, start, len } => {
                    let mut pieces = [IoSlice::new(&[]); PIECES];
                    pieces[0] = piece(input, start, len);
                    let mut count = 1;
                    while count < PIECES
                        && let Some(Event::Data { key: same, start, len }) = events.get(next)
                        && *same == key
                    {
                        pieces[count] = piece(input, *start, *len);
                        (count, next) = (count + 1, next + 1);
                    }
                    self.deliver(key, &pieces[..count])?;
                }
                Event::Request(key, head) => self.requested(key, head),
                Event::Response(key, head) => self.answered(key, head),
                Event::End(key) => self.ended(key),
                Event::Reset(key, code) => self.over(key, End::Reset(code)),
                Event::Writable(key) => self.engine.streams[key].ext.wake(),
                Event::AllWritable => {
                    self.engine.streams.iter_mut().for_each(|(_, stream)| stream.ext.wake())
                }
                Event::GoAway { last, code } => self.going_away(last, code),
                Event::Pong => {}
            }
        }
        Ok(())
    }

    /// An event of a stream that an earlier one of the same batch made us forget: a request turned away, a control
    /// stream that is over. Its key cannot mean another stream yet: a batch that forgets one opens none.
    fn too_late(&mut self, event: &Event) {
        if let Event::Data { len, .. } = event {
            self.engine.consumed_unowned(*len as usize);
        }
    }

    /// Payload for a stream: written to its socket now, or kept for who reads it.
    fn deliver(&mut self, key: Key, pieces: &[IoSlice<'_>]) -> Result<(), Fault> {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let slot = &mut self.engine.streams[key].ext;
        match &mut slot.used {
            Use::Splice(connection) if slot.end.is_none() => {
                let outcome = into_socket(connection, pieces, total);
                let kept = connection.undelivered() > 0;
                match outcome {
                    Ok(sent) => self.engine.consumed(key, sent),
                    Err(end) => {
                        self.engine.consumed_unowned(total);
                        self.broken(key, end);
                        return Ok(());
                    }
                }
                if kept {
                    self.engine.streams[key].ext.wake();
                }
            }
            Use::Bytes { pending, .. } if slot.end.is_none() => {
                if let Some(charge) = &mut self.charge
                    && let Err(full) = charge.hold(total)
                {
                    self.engine.consumed_unowned(total);
                    self.broken(key, End::Account(full));
                    return Ok(());
                }
                for piece in pieces {
                    pending.push(piece);
                }
                slot.wake();
            }
            Use::Control => {
                self.engine.consumed(key, total);
                for piece in pieces {
                    self.control_bytes(piece)?;
                }
            }
            Use::None | Use::Opening | Use::Bytes { .. } | Use::Splice(_) => {
                self.engine.consumed_unowned(total);
            }
        }
        Ok(())
    }

    /// The application's side failed: the peer hears a reset, the splice's task ends.
    pub(crate) fn broken(&mut self, key: Key, end: End) {
        let code = if matches!(end, End::Account(_)) { code::ENHANCE_YOUR_CALM } else { code::CONNECT_ERROR };
        self.reset(key, code);
        self.over(key, end);
    }

    fn over(&mut self, key: Key, end: End) {
        if self.control.key == Some(key) {
            self.control.key = None;
            self.release(key);
            return;
        }
        // Taken back before anybody took it: whoever asks and resets at once costs no more than this.
        if let Some(at) = self.requests.iter().rposition(|(asked, _)| *asked == key) {
            self.requests.remove(at);
            self.release(key);
            return;
        }
        let slot = &mut self.engine.streams[key].ext;
        slot.end.get_or_insert_with(|| Box::new(end));
        slot.wake();
    }

    /// The peer ended its direction.
    fn ended(&mut self, key: Key) {
        if self.control.key == Some(key) {
            self.control.key = None;
            self.release(key);
            return;
        }
        let slot = &mut self.engine.streams[key].ext;
        if let Use::Splice(connection) = &mut slot.used {
            connection.far_ended = true;
            if connection.undelivered() == 0 {
                connection.deliver_end();
            }
            // Its task has something to do only when that was the last end.
            if !connection.near_ended {
                return;
            }
        }
        slot.wake();
    }

    fn requested(&mut self, key: Key, head: Box<RequestHead>) {
        self.control.asked = true;
        if self.limits.hands_over && control::capable(&head.headers) {
            self.control.capable = true;
        }
        if head.authority == control::AUTHORITY && self.control.capable && self.control.key.is_none() {
            let extra = [(control::CAPABILITY, control::CAPABILITY_VALUE)];
            self.engine.streams[key].ext.used = Use::Control;
            self.engine.respond(key, 200, fields(&Headers::new(), &extra), false);
            self.control.key = Some(key);
            self.control.opened = true;
            if self.control.drain_when_open {
                self.drain_now();
            }
            return;
        }
        if self.control.drain_when_open && !self.control.capable {
            // It was the last that a foreign client had to say before it could be told.
            self.drain_now();
        }
        self.users += 1;
        self.idle_since = None;
        self.engine.streams[key].ext.used = Use::Bytes { pending: Waiting::default(), head: None };
        let full = self.requests.len() >= self.limits.pending_requests;
        if full {
            self.limits.hits.hit(Limit::PendingRequests);
        }
        if self.handles == 0 || full {
            self.turn_away(key);
            return;
        }
        self.requests.push_back((key, head));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.wake();
        }
    }

    fn answered(&mut self, key: Key, head: Box<ResponseHead>) {
        let slot = &mut self.engine.streams[key].ext;
        if matches!(slot.used, Use::Control) {
            if head.status != 200 {
                self.control.key = None;
                self.release(key);
            }
            return;
        }
        let shown = head.status == 200 && control::capable(&head.headers);
        slot.used = Use::Bytes { pending: Waiting::default(), head: Some(head) };
        slot.wake();
        if shown && self.limits.hands_over && !self.control.capable {
            self.control.capable = true;
            self.open_control();
        }
    }

    fn open_control(&mut self) {
        let extra = [(control::CAPABILITY, control::CAPABILITY_VALUE)];
        let slot = super::inner::Slot { used: Use::Control, ..Default::default() };
        self.control.key = self.engine.open_beside(control::AUTHORITY, fields(&Headers::new(), &extra), slot);
    }

    /// The peer goes: streams above `last` were surely not acted on.
    fn going_away(&mut self, last: u32, code: u32) {
        if code != code::NO_ERROR {
            self.blamed = Some(code);
        }
        if self.role == Role::Server {
            return;
        }
        let unseen: Vec<Key> = self
            .engine
            .streams
            .iter_mut()
            .filter(|(_, stream)| stream.id > last)
            .map(|(key, _)| key)
            .collect();
        for key in unseen {
            self.engine.streams[key].reset = true;
            self.over(key, End::Reset(code::REFUSED_STREAM));
        }
    }
}

fn piece(input: &[u8], start: u32, len: u32) -> IoSlice<'_> {
    IoSlice::new(&input[start as usize..(start + len) as usize])
}

/// Writes what the socket takes at once and keeps the rest as residue. Returns how much was written.
fn into_socket(connection: &mut Connection, pieces: &[IoSlice<'_>], total: usize) -> Result<usize, End> {
    let mut sent = 0;
    if connection.undelivered() == 0 {
        sent = connection.write_now(pieces).map_err(End::Application)?;
    }
    if sent < total {
        connection.cost.hold(total - sent).map_err(End::Account)?;
        let mut skip = sent;
        for piece in pieces {
            let start = skip.min(piece.len());
            skip -= start;
            connection.residue.push(&piece[start..]);
        }
    }
    Ok(sent)
}

impl Connection {
    pub(crate) fn registered(&self) -> io::Result<&tokio::net::TcpStream> {
        match &self.socket {
            Socket::Registered(socket) => Ok(socket),
            Socket::Plain(_) | Socket::Lost => {
                Err(io::Error::other("the connection's socket is not registered with a runtime"))
            }
        }
    }

    /// One write without waiting; 0 when the socket takes nothing now.
    fn write_now(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.registered()?;
        let socket = SockRef::from(socket);
        let result = match pieces {
            [one] => (&*socket).write(one),
            many => (&*socket).write_vectored(many),
        };
        match result {
            Ok(sent) => {
                self.cost.live.add_received(sent);
                Ok(sent)
            }
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(err) => Err(err),
        }
    }

    /// Tells the application that the far one has ended.
    pub(crate) fn deliver_end(&mut self) {
        if !self.far_end_delivered {
            self.far_end_delivered = true;
            if let Ok(socket) = self.registered() {
                // A socket that is already gone will be noticed by the reading side.
                let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
            }
        }
    }
}
