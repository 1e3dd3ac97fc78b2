//! From a header block to a CONNECT or to the answer to one. What arrives is hostile until it has passed here.

use super::{Engine, Event, Fault, Key, Role, no_fields};
use crate::frame::{self, Head, code, flag};
use crate::headers::Headers;
use crate::limits::Limit;

/// A CONNECT as it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) authority: String,
    pub(crate) headers: Headers,
}

/// The answer to a CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
}

/// What the fields of one block said; `malformed` wins over everything.
#[derive(Debug, Default)]
struct Fields {
    method: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    status: Option<u16>,
    scheme: Option<()>,
    path: Option<()>,
    protocol: Option<()>,
    malformed: bool,
    headers: Headers,
}

impl Fields {
    fn take(&mut self, name: &[u8], value: &[u8]) {
        if name.first() == Some(&b':') {
            self.malformed |= !self.headers.is_empty() || !self.take_pseudo(name, value);
        } else if sound_name(name) && sound_value(value) && !of_one_hop(name, value) {
            self.headers.push(name, value);
        } else {
            self.malformed = true;
        }
    }

    /// Whether the pseudo field is known, sound and the first of its name.
    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) -> bool {
        match name {
            b":method" => self.method.replace(value.to_vec()).is_none(),
            b":authority" => self.authority.replace(value.to_vec()).is_none(),
            b":status" => {
                let sound = value.len() == 3 && value.iter().all(u8::is_ascii_digit);
                let digits = if sound { value } else { b"" };
                let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
                status >= 100 && self.status.replace(status).is_none()
            }
            b":scheme" => self.scheme.replace(()).is_none(),
            b":path" => !value.is_empty() && self.path.replace(()).is_none(),
            b":protocol" => self.protocol.replace(()).is_none(),
            _ => false,
        }
    }
}

/// Lower-case token characters only (RFC 9113 §8.2.1).
fn sound_name(name: &[u8]) -> bool {
    let sound = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
    !name.is_empty() && name.iter().all(sound)
}

fn sound_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// Fields that HTTP/2 forbids because they speak of one hop (RFC 9113 §8.2.2).
fn of_one_hop(name: &[u8], value: &[u8]) -> bool {
    matches!(name, b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade")
        || (name == b"te" && value != b"trailers")
}

/// What to do with a block that is not taken.
enum Refusal {
    Malformed,
    Status(u16),
}

fn request(fields: Fields) -> Result<RequestHead, Refusal> {
    let connects = match fields.method.as_deref() {
        None => return Err(Refusal::Malformed),
        Some(method) => method == b"CONNECT",
    };
    let target = (fields.scheme.is_some(), fields.path.is_some());
    // Any other request has both (RFC 9113, section 8.3.1).
    if fields.malformed || fields.status.is_some() || (!connects && target != (true, true)) {
        return Err(Refusal::Malformed);
    }
    if !connects || target != (false, false) || fields.protocol.is_some() {
        return Err(Refusal::Status(400));
    }
    let authority = fields.authority.and_then(|bytes| String::from_utf8(bytes).ok());
    match authority {
        Some(authority) if !authority.is_empty() => Ok(RequestHead { authority, headers: fields.headers }),
        _ => Err(Refusal::Status(400)),
    }
}

impl<T: Default> Engine<T> {
    /// One whole header block has arrived for stream `id`.
    pub(super) fn take_block(
        &mut self,
        id: u32,
        block: &[u8],
        end: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let mut fields = Fields::default();
        let decoded = self.decoder.decode(block, &mut |name, value| fields.take(name, value));
        let too_large = match decoded {
            Ok(()) => false,
            Err(err) if err.ends_connection() => {
                return Err(Fault::new(code::COMPRESSION_ERROR, "a header block could not be decompressed"));
            }
            Err(_) => {
                self.limits.hits.hit(Limit::DecodedHeaders);
                true
            }
        };
        match (self.streams.find(id), self.role) {
            (Some(key), Role::Client) if !self.streams[key].answered => {
                self.take_response(key, fields, too_large, end, events)
            }
            (Some(key), _) => self.take_trailers(key, end, events),
            (None, Role::Server) if id > self.last_id => {
                self.take_request(id, fields, too_large, end, events)
            }
            // A stream we have reset or forgotten: its HEADERS may still have been under way.
            (None, _) => self.rates.empty(),
        }
    }

    fn take_request(
        &mut self,
        id: u32,
        fields: Fields,
        too_large: bool,
        end: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        self.last_id = id;
        let full = self.streams.len() >= self.limits.server_streams as usize;
        if full {
            self.limits.hits.hit(Limit::ServerStreams);
        }
        if self.drain == super::Drain::Final || full {
            self.rates.reset()?;
            frame::reset(&mut self.control, id, code::REFUSED_STREAM);
            return Ok(());
        }
        let head = if too_large { Err(Refusal::Status(431)) } else { request(fields) };
        match head {
            Ok(head) => {
                let key = self.streams.insert(self.stream(id, T::default()));
                self.streams[key].remote_ended = end;
                events.push(Event::Request(key, Box::new(head)));
                if end {
                    events.push(Event::End(key));
                }
                Ok(())
            }
            Err(refusal) => self.refuse(id, &refusal, end),
        }
    }

    fn refuse(&mut self, id: u32, refusal: &Refusal, end: bool) -> Result<(), Fault> {
        self.rates.reset()?;
        match refusal {
            Refusal::Malformed => frame::reset(&mut self.control, id, code::PROTOCOL_ERROR),
            Refusal::Status(status) => {
                self.respond_to(id, *status, no_fields(), true);
                if !end {
                    frame::reset(&mut self.control, id, code::NO_ERROR);
                }
            }
        }
        Ok(())
    }

    fn take_response(
        &mut self,
        key: Key,
        fields: Fields,
        too_large: bool,
        end: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if self.streams[key].reset {
            return self.rates.empty();
        }
        let status = match fields.status {
            Some(status) if !fields.malformed && !too_large && fields.method.is_none() => status,
            _ => return self.stream_fault(key, code::PROTOCOL_ERROR, events),
        };
        if status < 200 {
            if end {
                return self.stream_fault(key, code::PROTOCOL_ERROR, events);
            }
            return self.rates.empty();
        }
        let stream = &mut self.streams[key];
        stream.answered = true;
        stream.remote_ended = end;
        events.push(Event::Response(key, Box::new(ResponseHead { status, headers: fields.headers })));
        if end {
            events.push(Event::End(key));
        }
        Ok(())
    }

    /// Trailers carry nothing for a tunnel but the end.
    fn take_trailers(&mut self, key: Key, end: bool, events: &mut Vec<Event>) -> Result<(), Fault> {
        let stream = &mut self.streams[key];
        if stream.reset {
            return self.rates.empty();
        }
        if stream.remote_ended {
            return self.stream_fault(key, code::STREAM_CLOSED, events);
        }
        if !end {
            return self.stream_fault(key, code::PROTOCOL_ERROR, events);
        }
        stream.remote_ended = true;
        events.push(Event::End(key));
        Ok(())
    }

    /// The part of a HEADERS payload that is header block: without padding and priority.
    pub(super) fn block_of(head: Head, payload: &[u8]) -> Result<&[u8], Fault> {
        const SHORT: Fault = Fault::new(code::FRAME_SIZE_ERROR, "HEADERS too short for its flags");
        let mut rest = payload;
        let mut pad = 0;
        if head.has(flag::PADDED) {
            let (length, after) = rest.split_first().ok_or(SHORT)?;
            (pad, rest) = (usize::from(*length), after);
        }
        if head.has(flag::PRIORITY) {
            let (priority, after) = rest.split_first_chunk::<5>().ok_or(SHORT)?;
            if frame::read_u32(priority) & frame::STREAM_MASK == head.stream {
                return Err(Fault::new(code::PROTOCOL_ERROR, "a stream depends on itself"));
            }
            rest = after;
        }
        let len =
            rest.len().checked_sub(pad).ok_or(Fault::new(code::PROTOCOL_ERROR, "more padding than frame"))?;
        Ok(&rest[..len])
    }
}
