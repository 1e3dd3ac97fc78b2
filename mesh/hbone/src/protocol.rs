//! The HTTP/2 connection as a state machine without I/O: bytes in, events and frames out.
//!
//! The tunnel above feeds [`Engine::receive`] with what the transport decrypted and acts on the [`Event`]s; what has
//! to be sent lies in [`Engine::control`] (before the turn's DATA) and [`Engine::trailing`] (after it). DATA frames
//! are laid by the tunnel itself, in its records; the engine only keeps their accounts ([`Engine::budget`],
//! [`Engine::sent`]). There is no clock: callers pass the time since the tunnel began.

use std::time::Duration;

use crate::frame::{self, code, setting};
use crate::headers::Headers;
use crate::hpack;
use crate::limits::{Limit, Limits};
use crate::windows::Wider;

mod credit;
mod heads;
mod rates;
mod receive;
mod streams;

#[cfg(test)]
mod tests;

pub(crate) use heads::{RequestHead, ResponseHead};
pub(crate) use streams::{Key, StreamState};

use rates::Rates;
use receive::Reader;
use streams::Streams;

/// Events handed out before the tunnel acts on them: bounds what a flood of tiny frames can queue.
const EVENTS_PER_BATCH: usize = 256;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What the peer's bytes meant.
#[derive(Debug)]
pub(crate) enum Event {
    /// Server: a CONNECT opened this stream.
    Request(Key, Box<RequestHead>),
    /// Client: the answer to a CONNECT.
    Response(Key, Box<ResponseHead>),
    /// Payload for a stream: `len` bytes at `start` of the input just given.
    Data { key: Key, start: u32, len: u32 },
    /// The peer ended its direction.
    End(Key),
    /// The stream is dead, by the peer's reset or by its fault; the code is HTTP/2's.
    Reset(Key, u32),
    /// The stream's window opened again.
    Writable(Key),
    /// The connection's window, or all streams' (by SETTINGS), opened again.
    AllWritable,
    /// The peer takes no streams above `last` any more.
    GoAway { last: u32, code: u32 },
    /// Our keepalive PING was answered.
    Pong,
}

impl Event {
    /// The stream it happened to, if to one.
    pub(crate) fn stream(&self) -> Option<Key> {
        match self {
            Self::Request(key, _)
            | Self::Response(key, _)
            | Self::Data { key, .. }
            | Self::End(key)
            | Self::Reset(key, _)
            | Self::Writable(key) => Some(*key),
            Self::AllWritable | Self::GoAway { .. } | Self::Pong => None,
        }
    }
}

/// The peer broke the connection's rules: it ends with GOAWAY and this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: u32,
    pub(crate) text: &'static str,
    /// The limit of ours that it hit, if it is one.
    pub(crate) limit: Option<Limit>,
}

impl Fault {
    pub(crate) const fn new(code: u32, text: &'static str) -> Self {
        Self { code, text, limit: None }
    }

    /// More than we take of something.
    pub(crate) const fn above(limit: Limit, code: u32, text: &'static str) -> Self {
        Self { code, text, limit: Some(limit) }
    }
}

/// Where our own going away stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// A first GOAWAY went out; what the peer sent before it saw that one still counts.
    Announced,
    Final,
}

/// Opaque data of the keepalive PING and of the one that follows a first GOAWAY.
const KEEPALIVE: [u8; 8] = *b"lateen-k";
const DRAINING: [u8; 8] = *b"lateen-d";

/// One connection's protocol state; `T` is what the tunnel keeps with each stream.
#[derive(Debug)]
pub(crate) struct Engine<T> {
    role: Role,
    limits: Limits,
    pub(crate) streams: Streams<T>,
    /// Bytes we may still send, all streams together.
    send_window: i64,
    /// Bytes the peer may still send, all streams together.
    receive_window: i64,
    /// Bytes consumed but not granted again yet.
    uncredited: u32,
    /// What windows of its streams have beyond the least.
    wider: Wider,
    peer_first_window: i64,
    peer_max_streams: u32,
    next_id: u32,
    /// Server: the highest stream the peer opened.
    last_id: u32,
    drain: Drain,
    peer_goaway: Option<u32>,
    reader: Reader,
    decoder: hpack::Decoder,
    encoder: hpack::Encoder,
    rates: Rates,
    /// Frames that leave before the turn's DATA.
    pub(crate) control: Vec<u8>,
    /// Frames that leave after it: what ends a stream must not overtake its DATA.
    pub(crate) trailing: Vec<u8>,
}

impl<T: Default> Engine<T> {
    /// A connection that has sent nothing but its preface and SETTINGS, which wait in `control`.
    pub(crate) fn new(role: Role, limits: Limits) -> Self {
        let decoded =
            hpack::Limits { max_header_bytes: limits.decoded_headers, max_headers: limits.header_fields };
        let mut engine = Self {
            role,
            streams: Streams::new(),
            send_window: frame::FIRST_WINDOW,
            receive_window: i64::from(limits.connection_window),
            uncredited: 0,
            wider: limits.windows.none(),
            peer_first_window: frame::FIRST_WINDOW,
            peer_max_streams: limits.client_streams,
            next_id: 1,
            last_id: 0,
            drain: Drain::No,
            peer_goaway: None,
            reader: Reader::new(role),
            decoder: hpack::Decoder::new(limits.header_table, decoded),
            encoder: hpack::Encoder::new(false),
            rates: Rates::new(&limits),
            control: Vec::new(),
            trailing: Vec::new(),
            limits,
        };
        engine.greet();
        engine
    }

    /// Preface, SETTINGS and the connection's window.
    fn greet(&mut self) {
        let mut values = vec![
            (setting::INITIAL_WINDOW_SIZE, self.limits.stream_window),
            (setting::MAX_FRAME_SIZE, self.limits.max_frame),
            (setting::MAX_HEADER_LIST_SIZE, self.limits.decoded_headers as u32),
        ];
        if self.limits.header_table != hpack::DEFAULT_TABLE_SIZE {
            values.push((setting::HEADER_TABLE_SIZE, self.limits.header_table as u32));
        }
        match self.role {
            Role::Client => {
                self.control.extend_from_slice(frame::PREFACE);
                values.push((setting::ENABLE_PUSH, 0));
            }
            Role::Server => values.push((setting::MAX_CONCURRENT_STREAMS, self.limits.server_streams)),
        }
        frame::settings(&mut self.control, &values);
        let grant = i64::from(self.limits.connection_window) - frame::FIRST_WINDOW;
        if grant > 0 {
            frame::window_update(&mut self.control, 0, grant as u32);
        }
    }

    /// Client: streams that may be opened now.
    pub(crate) fn capacity(&self) -> usize {
        if self.drain != Drain::No || self.peer_goaway.is_some() || self.next_id > frame::STREAM_MASK {
            return 0;
        }
        if !self.rates.may_open() {
            return 0;
        }
        let most = self.limits.client_streams.min(self.peer_max_streams) as usize;
        most.saturating_sub(self.streams.len())
    }

    /// Client: sends a CONNECT. `None` when there is no capacity.
    pub(crate) fn open<'h>(
        &mut self,
        authority: &str,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        ext: T,
    ) -> Option<Key> {
        if self.capacity() == 0 { None } else { self.open_beside(authority, fields, ext) }
    }

    /// The same for a stream that carries no connection and takes no place from one that does: only the peer's own limit
    /// counts.
    pub(crate) fn open_beside<'h>(
        &mut self,
        authority: &str,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        ext: T,
    ) -> Option<Key> {
        // Our own GOAWAY says nothing of streams that we open; the connections of this tunnel are still here.
        let taken = self.streams.len() >= self.peer_max_streams as usize;
        if taken || self.peer_goaway.is_some() || self.next_id > frame::STREAM_MASK {
            return None;
        }
        let id = self.next_id;
        self.next_id += 2;
        let key = self.streams.insert(self.stream(id, ext));
        let mut block = Vec::with_capacity(256);
        self.encoder.encode(b":method", b"CONNECT", &mut block);
        self.encoder.encode(b":authority", authority.as_bytes(), &mut block);
        for (name, value) in fields {
            self.encoder.encode(name, value, &mut block);
        }
        // Behind the resets of streams that made room for it, or the peer would count one too many. Its DATA waits for
        // the answer, so that none can overtake it.
        frame::headers(&mut self.trailing, id, &block, false);
        Some(key)
    }

    /// Server: answers a request; with `end` the stream is over for us.
    pub(crate) fn respond<'h>(
        &mut self,
        key: Key,
        status: u16,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        end: bool,
    ) {
        let stream = &mut self.streams[key];
        if stream.reset || stream.local_ended {
            return;
        }
        stream.answered = true;
        stream.local_ended = end;
        let id = stream.id;
        self.respond_to(id, status, fields, end);
    }

    fn respond_to<'h>(
        &mut self,
        id: u32,
        status: u16,
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        end: bool,
    ) {
        let mut block = Vec::with_capacity(64);
        let digits =
            [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
        self.encoder.encode(b":status", &digits, &mut block);
        for (name, value) in fields {
            self.encoder.encode(name, value, &mut block);
        }
        frame::headers(&mut self.control, id, &block, end);
    }

    fn stream(&self, id: u32, ext: T) -> StreamState<T> {
        StreamState {
            id,
            send_window: self.peer_first_window as i32,
            receive_window: i32::try_from(self.limits.stream_window).unwrap_or(i32::MAX),
            uncredited: 0,
            window: self.limits.stream_window,
            carried: 0,
            answered: false,
            local_ended: false,
            remote_ended: false,
            reset: false,
            ext,
        }
    }

    /// Resets a stream unless it is over; its DATA already laid leaves first.
    pub(crate) fn reset(&mut self, key: Key, code: u32) {
        let stream = &mut self.streams[key];
        if !stream.is_over() {
            stream.reset = true;
            frame::reset(&mut self.trailing, stream.id, code);
            self.rates.own_reset();
        }
    }

    /// Forgets a stream; one that is not over is reset.
    pub(crate) fn release(&mut self, key: Key) -> T {
        // A server that has answered in full tells the client that the rest is not needed (RFC 9113 §8.1).
        let code = if self.role == Role::Server && self.streams[key].local_ended {
            code::NO_ERROR
        } else {
            code::CANCEL
        };
        self.reset(key, code);
        let stream = self.streams.remove(key);
        self.wider.give_back(stream.window - self.limits.stream_window);
        stream.ext
    }

    /// Asks for a sign of life.
    pub(crate) fn keepalive(&mut self) {
        frame::ping(&mut self.control, false, KEEPALIVE);
    }

    /// Starts to drain. A server first announces it and settles the last stream when the peer has surely seen that.
    pub(crate) fn begin_drain(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        match self.role {
            Role::Client => {
                frame::goaway(&mut self.trailing, 0, code::NO_ERROR, "");
                self.drain = Drain::Final;
            }
            Role::Server => {
                frame::goaway(&mut self.trailing, frame::STREAM_MASK, code::NO_ERROR, "");
                frame::ping(&mut self.trailing, false, DRAINING);
                self.drain = Drain::Announced;
            }
        }
    }

    fn finish_drain(&mut self) {
        if self.drain == Drain::Announced {
            frame::goaway(&mut self.trailing, self.last_id, code::NO_ERROR, "");
            self.drain = Drain::Final;
        }
    }

    /// Ends the connection: a last GOAWAY with the code and what was wrong.
    pub(crate) fn fail(&mut self, fault: Fault) {
        if let Some(limit) = fault.limit {
            self.limits.hits.hit(limit);
        }
        self.drain = Drain::Final;
        frame::goaway(&mut self.trailing, self.last_id, fault.code, fault.text);
    }

    /// Whether either end has said that it goes.
    pub(crate) fn draining(&self) -> bool {
        self.drain != Drain::No || self.peer_goaway.is_some()
    }

    /// Whether every stream has ended, forgotten or not.
    pub(crate) fn all_over(&mut self) -> bool {
        self.streams.iter_mut().all(|(_, stream)| stream.is_over())
    }

    /// Whether no request can come any more and none is open.
    pub(crate) fn drained(&self) -> bool {
        let settled = match self.role {
            Role::Client => self.draining(),
            Role::Server => self.drain == Drain::Final || self.peer_goaway.is_some(),
        };
        settled && self.streams.len() == 0
    }

    /// See [`receive::Reader`]. `base` is where `input` stands in what the caller's events are to speak of. Returns how
    /// many bytes were read; fewer than given when the batch of events is full.
    ///
    /// # Errors
    /// A [`Fault`] ends the connection.
    pub(crate) fn receive(
        &mut self,
        now: Duration,
        input: &[u8],
        base: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, Fault> {
        self.rates.at(now);
        let mut at = 0;
        while at < input.len() && events.len() < EVENTS_PER_BATCH {
            at += self.step(&input[at..], base + at, events)?;
        }
        Ok(at)
    }
}

/// No fields, for answers that carry none.
pub(crate) fn no_fields<'h>() -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
    std::iter::empty()
}

/// The fields of `headers`, then `extra`.
pub(crate) fn fields<'h>(
    headers: &'h Headers,
    extra: &'h [(&'h str, &'h str)],
) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
    headers.iter().chain(extra.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}
