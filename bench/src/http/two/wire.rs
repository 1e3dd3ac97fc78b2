//! What is the same at both ends: frames in and out, header blocks, and what the other end has room for.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use hbone::hpack::{Decoder, Limits};

use crate::frames::{self as h2, Frame, Reader};

/// What an end lets the other send on a stream before it hears more: more than any message is long.
const STREAM_WINDOW: u32 = 16 << 20;
/// What it lets it send on all of them together, and how much of that it takes in before it says so.
const WINDOW: u32 = 1 << 30;
const TOLD_AFTER: u32 = 1 << 20;
/// Bytes that either end may let the other remember of fields (RFC 9113, section 6.5.2).
const TABLE: usize = 4096;
/// Fields that an end has the other remember.
const REMEMBERED: usize = 16;

/// What the ends look at in a head, or in what comes after a body.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub status: Option<u64>,
    /// Which version of its route answered.
    pub version: Option<u64>,
    pub grpc_status: Option<u64>,
    /// Whether it is a call of gRPC.
    pub te: bool,
}

/// Something of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Fields { stream: u32, fields: Fields, last: bool },
    Data { stream: u32, length: usize, last: bool },
    Reset { stream: u32 },
}

/// A body that waits until the other end has room for it.
#[derive(Debug)]
struct Held {
    stream: u32,
    data: Bytes,
    trailers: bool,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    reader: Reader,
    /// Bytes of the other end's that are no frames.
    preface: usize,
    pub out: BytesMut,
    scratch: Vec<u8>,
    decoder: Decoder,
    /// Fields that the other end remembers, the first of them first.
    remembered: Vec<(&'static str, String)>,
    /// Bytes that the other end has room for, on all streams and on each.
    room: i64,
    stream_room: i64,
    held: VecDeque<Held>,
    /// Bytes taken in that it has not been told of.
    untold: u32,
    waker: Option<Waker>,
}

impl Wire {
    /// The side of who asks, or of who replies.
    pub(super) fn new(asks: bool) -> Self {
        let limits = Limits { max_header_bytes: 64 << 10, max_headers: 100 };
        let mut wire = Self {
            reader: Reader::default(),
            preface: if asks { 0 } else { h2::PREFACE.len() },
            out: BytesMut::new(),
            scratch: Vec::new(),
            decoder: Decoder::new(TABLE, limits),
            remembered: Vec::new(),
            room: h2::FIRST_WINDOW,
            stream_room: h2::FIRST_WINDOW,
            held: VecDeque::new(),
            untold: 0,
            waker: None,
        };
        if asks {
            wire.out.extend_from_slice(h2::PREFACE);
        }
        let settings = [(h2::MAX_STREAMS, 1000), (h2::INITIAL_WINDOW, STREAM_WINDOW)];
        h2::settings(&mut wire.scratch, &settings);
        let more = WINDOW - h2::FIRST_WINDOW as u32;
        h2::frame(&mut wire.scratch, h2::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        wire.flush();
        wire
    }

    /// Who is to be woken when there is something to write.
    pub(super) fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Takes in bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        self.reader.feed(&bytes[skipped..]);
    }

    /// Sends fields; a path is not to be remembered, what else is given is, as far as there is room.
    pub(super) fn fields(
        &mut self,
        stream: u32,
        path: Option<&str>,
        fields: &[(&'static str, &str)],
        last: bool,
    ) {
        let mut block = Vec::new();
        if let Some(path) = path {
            // The static table's `:path`.
            block.push(0x04);
            string(&mut block, path);
        }
        for (name, value) in fields {
            self.field(&mut block, name, value);
        }
        let flags = h2::END_HEADERS | if last { h2::END_STREAM } else { 0 };
        h2::frame(&mut self.scratch, h2::HEADERS, flags, stream, &block);
        self.flush();
    }

    fn field(&mut self, block: &mut Vec<u8>, name: &'static str, value: &str) {
        let known = self.remembered.iter().rev().position(|(known, has)| *known == name && has == value);
        match known {
            // The one remembered last has the first index after the static table's.
            Some(age) => block.push(0x80 | (62 + age as u8)),
            None => {
                let remember = self.remembered.len() < REMEMBERED && name != "grpc-status";
                block.push(if remember { 0x40 } else { 0x00 });
                string(block, name);
                string(block, value);
                if remember {
                    self.remembered.push((name, value.to_owned()));
                }
            }
        }
    }

    /// Sends a body, and trailers of gRPC after it, as soon as the other end has room.
    pub(super) fn body(&mut self, stream: u32, data: Bytes, trailers: bool) {
        self.held.push_back(Held { stream, data, trailers });
        self.release();
    }

    fn release(&mut self) {
        while self.held.front().is_some_and(|held| held.data.len() as i64 <= self.room)
            && let Some(held) = self.held.pop_front()
        {
            self.room -= held.data.len() as i64;
            let mut pieces = held.data.chunks(h2::LARGEST_FRAME).peekable();
            while let Some(piece) = pieces.next() {
                let last = pieces.peek().is_none() && !held.trailers;
                let flags = if last { h2::END_STREAM } else { 0 };
                h2::frame(&mut self.scratch, h2::DATA, flags, held.stream, piece);
            }
            self.flush();
            if held.trailers {
                self.fields(held.stream, None, &[("grpc-status", "0")], true);
            }
        }
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(&self.scratch);
        self.scratch.clear();
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The next that has come of a stream.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn next(&mut self) -> Result<Option<Event>, String> {
        while let Some(frame) = self.reader.next() {
            if let Some(event) = self.take(&frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn take(&mut self, frame: &Frame) -> Result<Option<Event>, String> {
        let stream = frame.stream;
        match frame.kind {
            h2::HEADERS => {
                let (fields, last) = (self.read(frame)?, frame.has(h2::END_STREAM));
                return Ok(Some(Event::Fields { stream, fields, last }));
            }
            h2::DATA => {
                self.untold += frame.payload.len() as u32;
                if self.untold >= TOLD_AFTER {
                    let told = std::mem::take(&mut self.untold).to_be_bytes();
                    h2::frame(&mut self.scratch, h2::WINDOW_UPDATE, 0, 0, &told);
                }
                let (length, last) = (frame.payload.len(), frame.has(h2::END_STREAM));
                return Ok(Some(Event::Data { stream, length, last }));
            }
            h2::RST_STREAM => return Ok(Some(Event::Reset { stream })),
            h2::SETTINGS if !frame.has(h2::ACK) => {
                if frame.setting(h2::TABLE_SIZE).is_some_and(|size| (size as usize) < TABLE) {
                    return Err(String::from("the other end remembers fewer fields than this one counts on"));
                }
                if let Some(room) = frame.setting(h2::INITIAL_WINDOW) {
                    self.stream_room = i64::from(room);
                }
                h2::frame(&mut self.scratch, h2::SETTINGS, h2::ACK, 0, &[]);
            }
            h2::PING if !frame.has(h2::ACK) => {
                h2::frame(&mut self.scratch, h2::PING, h2::ACK, 0, &frame.payload);
            }
            h2::WINDOW_UPDATE if stream == 0 => {
                self.room += i64::from(frame.number());
                self.release();
            }
            h2::GOAWAY => return Err(String::from("the other end is leaving")),
            h2::CONTINUATION => {
                return Err(String::from("a head in several frames, which nobody sends here"));
            }
            _ => {}
        }
        self.flush();
        Ok(None)
    }

    fn read(&mut self, frame: &Frame) -> Result<Fields, String> {
        if frame.has(h2::PADDED) || frame.has(h2::PRIORITY) || !frame.has(h2::END_HEADERS) {
            return Err(String::from(
                "a head with padding, a priority or more to come, which nobody sends here",
            ));
        }
        let mut fields = Fields::default();
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let each = &mut |name: &[u8], value: &[u8]| match name {
            b":status" => fields.status = number(value),
            b"grpc-status" => fields.grpc_status = number(value),
            b"te" => fields.te = true,
            name if name == super::super::exchange::VERSION.as_bytes() => fields.version = number(value),
            _ => {}
        };
        self.decoder.decode(&frame.payload, each).map_err(|error| error.to_string())?;
        Ok(fields)
    }

    /// Whether a stream may carry a body of so many bytes at once.
    pub(super) fn has_room(&self, length: usize) -> bool {
        length as i64 <= self.stream_room
    }
}

/// A string as it is (RFC 7541, section 5.2).
fn string(block: &mut Vec<u8>, text: &str) {
    let length = text.len();
    match u8::try_from(length) {
        Ok(short) if short < 127 => block.push(short),
        _ => {
            // A prefix of seven bits, then groups of seven.
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(128 | (rest & 127) as u8);
                rest >>= 7;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}
