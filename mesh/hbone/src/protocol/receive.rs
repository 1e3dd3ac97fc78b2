//! Reading frames from bytes that come in any pieces. DATA is passed on as it arrives, never collected; of all else a
//! frame is read whole, within its own small bound.

use super::{DRAINING, Drain, Engine, Event, Fault, KEEPALIVE, Key, Role};
use crate::frame::{self, HEAD, Head, PREFACE, code, flag, kind, setting};
use crate::limits::Limit;

/// The largest payload of a frame that is neither DATA nor part of a header block.
const LARGEST_OTHER: u32 = 16_384;

/// Where the reading stands.
#[derive(Debug)]
pub(super) struct Reader {
    phase: Phase,
    /// A head or payload that has come only in part.
    partial: Vec<u8>,
    /// A header block that waits for its CONTINUATION.
    block: Option<Block>,
    /// The first frame of each end must be SETTINGS.
    greeted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// This many bytes of the client's preface have come.
    Preface(usize),
    Head,
    /// A frame that is read whole.
    Payload(Head),
    /// The one byte that says how long a DATA frame's padding is.
    PadLength(Data),
    Data(Data),
    /// Padding, or a frame of a kind we do not know.
    Skip(u32),
}

/// A DATA frame under way; without a key its bytes are dropped.
#[derive(Debug, Clone, Copy)]
struct Data {
    key: Option<Key>,
    id: u32,
    left: u32,
    pad: u32,
    end: bool,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: u32,
}

impl Reader {
    pub(super) fn new(role: Role) -> Self {
        let phase = match role {
            Role::Client => Phase::Head,
            Role::Server => Phase::Preface(0),
        };
        Self { phase, partial: Vec::new(), block: None, greeted: false }
    }
}

impl<T: Default> Engine<T> {
    /// Reads one piece from the front of `input`, which stands at `offset` of what the caller gave. Returns its length,
    /// at least 1.
    pub(super) fn step(
        &mut self,
        input: &[u8],
        offset: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, Fault> {
        match self.reader.phase {
            Phase::Preface(have) => self.read_preface(have, input),
            Phase::Head => self.read_head(input, events),
            Phase::Payload(head) => self.read_payload(head, input, events),
            Phase::PadLength(data) => self.read_pad_length(data, input[0], events),
            Phase::Data(data) => self.read_data(data, input, offset, events),
            Phase::Skip(left) => {
                let len = input.len().min(left as usize);
                self.reader.phase = skip(left - len as u32);
                Ok(len)
            }
        }
    }

    fn read_preface(&mut self, have: usize, input: &[u8]) -> Result<usize, Fault> {
        let len = input.len().min(PREFACE.len() - have);
        if input[..len] != PREFACE[have..have + len] {
            return Err(Fault::new(
                code::PROTOCOL_ERROR,
                "this is not HTTP/2; HBONE clients begin with its preface",
            ));
        }
        let have = have + len;
        self.reader.phase = if have == PREFACE.len() { Phase::Head } else { Phase::Preface(have) };
        Ok(len)
    }

    fn read_head(&mut self, input: &[u8], events: &mut Vec<Event>) -> Result<usize, Fault> {
        if self.reader.partial.is_empty()
            && let Some(bytes) = input.first_chunk::<HEAD>()
        {
            self.begin(Head::parse(bytes), events)?;
            return Ok(HEAD);
        }
        let len = input.len().min(HEAD - self.reader.partial.len());
        self.reader.partial.extend_from_slice(&input[..len]);
        if let Some(bytes) = self.reader.partial.first_chunk::<HEAD>().copied() {
            self.reader.partial.clear();
            self.begin(Head::parse(&bytes), events)?;
        }
        Ok(len)
    }

    /// A frame begins: checks what its head can tell, and says how its payload is read.
    fn begin(&mut self, head: Head, events: &mut Vec<Event>) -> Result<(), Fault> {
        if head.len > self.limits.max_frame {
            return Err(Fault::above(
                Limit::Frame,
                code::FRAME_SIZE_ERROR,
                "a frame larger than our SETTINGS allow",
            ));
        }
        if !self.reader.greeted {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(Fault::new(code::PROTOCOL_ERROR, "the first frame is not SETTINGS"));
            }
            self.reader.greeted = true;
        }
        if let Some(block) = &self.reader.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(Fault::new(code::PROTOCOL_ERROR, "a header block was not continued"));
        }
        match head.kind {
            kind::DATA => return self.begin_data(head, events),
            kind::HEADERS | kind::CONTINUATION => self.check_block(head)?,
            kind::PRIORITY..=kind::WINDOW_UPDATE => check_size(head)?,
            _ => {
                self.rates.empty()?;
                self.reader.phase = skip(head.len);
                return Ok(());
            }
        }
        if head.len == 0 {
            return self.finish(head, &[], events);
        }
        self.reader.phase = Phase::Payload(head);
        Ok(())
    }

    fn begin_data(&mut self, head: Head, events: &mut Vec<Event>) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::new(code::PROTOCOL_ERROR, "DATA on stream 0"));
        }
        self.charge_connection(head.len)?;
        let key = self.charge_stream(head, events)?;
        if key.is_none() {
            self.consumed_unowned(head.len as usize);
        }
        let end = head.has(flag::END_STREAM);
        if head.len == 0 && !end {
            self.rates.empty()?;
        }
        let data = Data { key, id: head.stream, left: head.len, pad: 0, end };
        if head.has(flag::PADDED) {
            if head.len == 0 {
                return Err(Fault::new(code::FRAME_SIZE_ERROR, "padded DATA without a padding length"));
            }
            self.reader.phase = Phase::PadLength(data);
        } else {
            self.continue_data(data, events);
        }
        Ok(())
    }

    /// The stream a DATA frame is for, or `None` if its bytes are to be dropped.
    fn charge_stream(&mut self, head: Head, events: &mut Vec<Event>) -> Result<Option<Key>, Fault> {
        let Some(key) = self.streams.find(head.stream) else {
            self.check_not_idle(head.stream)?;
            return Ok(None);
        };
        let unanswered = self.role == Role::Client;
        let stream = &mut self.streams[key];
        if stream.reset {
            return Ok(None);
        }
        if stream.remote_ended {
            self.stream_fault(key, code::STREAM_CLOSED, events)?;
            return Ok(None);
        }
        if unanswered && !stream.answered {
            self.stream_fault(key, code::PROTOCOL_ERROR, events)?;
            return Ok(None);
        }
        // A frame has less than 2^24 bytes.
        stream.receive_window -= head.len as i32;
        if stream.receive_window < 0 {
            self.limits.hits.hit(Limit::Window);
            self.stream_fault(key, code::FLOW_CONTROL_ERROR, events)?;
            return Ok(None);
        }
        Ok(Some(key))
    }

    fn read_pad_length(&mut self, mut data: Data, pad: u8, events: &mut Vec<Event>) -> Result<usize, Fault> {
        data.left -= 1;
        data.pad = u32::from(pad);
        data.left = data
            .left
            .checked_sub(data.pad)
            .ok_or(Fault::new(code::PROTOCOL_ERROR, "more padding than frame"))?;
        if let Some(key) = self.live_key(&data) {
            self.consumed(key, usize::from(pad) + 1);
        }
        self.continue_data(data, events);
        Ok(1)
    }

    fn read_data(
        &mut self,
        mut data: Data,
        input: &[u8],
        offset: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, Fault> {
        let len = input.len().min(data.left as usize);
        data.left -= len as u32;
        match self.live_key(&data) {
            Some(key) => events.push(Event::Data { key, start: offset as u32, len: len as u32 }),
            // The stream went away in the middle of the frame: grant the connection what nobody will consume.
            None if data.key.is_some() => self.consumed_unowned(len),
            None => {}
        }
        self.continue_data(data, events);
        Ok(len)
    }

    /// The key of the frame's stream, if that stream still is what it was when the frame began.
    fn live_key(&self, data: &Data) -> Option<Key> {
        data.key.filter(|key| self.streams.find(data.id) == Some(*key) && !self.streams[*key].reset)
    }

    /// More of the frame, its padding, or its end.
    fn continue_data(&mut self, data: Data, events: &mut Vec<Event>) {
        if data.left > 0 {
            self.reader.phase = Phase::Data(data);
            return;
        }
        self.reader.phase = skip(data.pad);
        if data.end
            && let Some(key) = self.live_key(&data)
        {
            self.streams[key].remote_ended = true;
            events.push(Event::End(key));
        }
    }

    fn check_block(&mut self, head: Head) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::new(code::PROTOCOL_ERROR, "HEADERS on stream 0"));
        }
        let (have, frames) = match (&mut self.reader.block, head.kind) {
            (Some(block), _) => {
                block.frames += 1;
                (block.bytes.len(), block.frames)
            }
            (None, kind::HEADERS) => (0, 0),
            (None, _) => return Err(Fault::new(code::PROTOCOL_ERROR, "CONTINUATION without HEADERS")),
        };
        if have + head.len as usize > self.limits.header_block || frames > self.limits.continuations {
            return Err(Fault::above(
                Limit::HeaderBlock,
                code::ENHANCE_YOUR_CALM,
                "a header block larger than we take",
            ));
        }
        if head.kind == kind::HEADERS {
            self.check_may_open(head.stream)?;
        }
        Ok(())
    }

    /// Whether HEADERS may arrive for stream `id` at all (RFC 9113 §5.1.1).
    fn check_may_open(&self, id: u32) -> Result<(), Fault> {
        let ours = id % 2 == 1;
        let sound = match self.role {
            Role::Client => ours && id < self.next_id,
            Role::Server => ours,
        };
        if sound {
            Ok(())
        } else {
            Err(Fault::new(code::PROTOCOL_ERROR, "HEADERS for a stream nobody may open"))
        }
    }

    /// A stream that is not known must have been: frames for one that was never opened end the connection.
    pub(super) fn check_not_idle(&self, id: u32) -> Result<(), Fault> {
        let opened = match self.role {
            Role::Client => id % 2 == 1 && id < self.next_id,
            Role::Server => id % 2 == 1 && id <= self.last_id,
        };
        if opened {
            Ok(())
        } else {
            Err(Fault::new(code::PROTOCOL_ERROR, "a frame for a stream that was never opened"))
        }
    }

    fn read_payload(&mut self, head: Head, input: &[u8], events: &mut Vec<Event>) -> Result<usize, Fault> {
        let whole = head.len as usize;
        if self.reader.partial.is_empty() && input.len() >= whole {
            self.reader.phase = Phase::Head;
            self.finish(head, &input[..whole], events)?;
            return Ok(whole);
        }
        let len = input.len().min(whole - self.reader.partial.len());
        self.reader.partial.extend_from_slice(&input[..len]);
        if self.reader.partial.len() == whole {
            let payload = std::mem::take(&mut self.reader.partial);
            self.reader.phase = Phase::Head;
            self.finish(head, &payload, events)?;
        }
        Ok(len)
    }

    /// A frame that is not DATA has come whole.
    fn finish(&mut self, head: Head, payload: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => {
                let block = Self::block_of(head, payload)?;
                self.add_block(head, head.has(flag::END_STREAM), block, events)
            }
            kind::CONTINUATION => self.add_block(head, false, payload, events),
            kind::PRIORITY => self.rates.empty(),
            kind::RST_STREAM => self.peer_reset(head.stream, frame::read_u32(payload), events),
            kind::SETTINGS => self.peer_settings(head, payload, events),
            kind::PING => self.peer_ping(head, payload, events),
            kind::GOAWAY => {
                let last = frame::read_u32(payload) & frame::STREAM_MASK;
                self.peer_goaway = Some(last);
                events.push(Event::GoAway { last, code: frame::read_u32(&payload[4..]) });
                Ok(())
            }
            kind::WINDOW_UPDATE => {
                self.granted(head.stream, frame::read_u32(payload) & frame::STREAM_MASK, events)
            }
            _ => Err(Fault::new(code::PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send us")),
        }
    }

    fn add_block(
        &mut self,
        head: Head,
        end_stream: bool,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let ended = head.has(flag::END_HEADERS);
        match self.reader.block.take() {
            None if ended => self.take_block(head.stream, bytes, end_stream, events),
            None => {
                self.reader.block =
                    Some(Block { stream: head.stream, end_stream, bytes: bytes.to_vec(), frames: 0 });
                Ok(())
            }
            Some(mut block) => {
                block.bytes.extend_from_slice(bytes);
                if ended {
                    return self.take_block(block.stream, &block.bytes, block.end_stream, events);
                }
                self.reader.block = Some(block);
                Ok(())
            }
        }
    }

    fn peer_reset(&mut self, id: u32, code: u32, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.rates.reset()?;
        let Some(key) = self.streams.find(id) else {
            return self.check_not_idle(id);
        };
        let stream = &mut self.streams[key];
        if !stream.reset {
            stream.reset = true;
            events.push(Event::Reset(key, code));
        }
        Ok(())
    }

    /// The peer's fault on one stream: resets it, tells the tunnel, and counts it like a reset of the peer's own
    /// ("MadeYouReset").
    pub(super) fn stream_fault(&mut self, key: Key, code: u32, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.rates.reset()?;
        let stream = &mut self.streams[key];
        if !stream.reset {
            stream.reset = true;
            frame::reset(&mut self.trailing, stream.id, code);
            events.push(Event::Reset(key, code));
        }
        Ok(())
    }

    fn peer_settings(&mut self, head: Head, payload: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        if head.has(flag::ACK) {
            self.decoder.settings_acknowledged();
            return Ok(());
        }
        self.rates.settings()?;
        for (id, value) in frame::read_settings(payload) {
            match id {
                setting::HEADER_TABLE_SIZE => self.encoder.peer_table_size(value),
                setting::MAX_CONCURRENT_STREAMS => self.peer_max_streams = value,
                setting::INITIAL_WINDOW_SIZE => self.first_window(value, events)?,
                setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                    return Err(Fault::new(code::PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH out of range"));
                }
                setting::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(Fault::new(code::PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE out of range"));
                }
                _ => {}
            }
        }
        frame::settings_ack(&mut self.control);
        Ok(())
    }

    fn peer_ping(&mut self, head: Head, payload: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let Some(opaque) = payload.first_chunk::<8>() else {
            return Err(Fault::new(code::FRAME_SIZE_ERROR, "a PING that is not of eight bytes"));
        };
        if !head.has(flag::ACK) {
            self.rates.ping()?;
            frame::ping(&mut self.control, true, *opaque);
        } else if *opaque == KEEPALIVE {
            events.push(Event::Pong);
        } else if *opaque == DRAINING && self.drain == Drain::Announced {
            self.finish_drain();
        }
        Ok(())
    }
}

fn skip(left: u32) -> Phase {
    if left == 0 { Phase::Head } else { Phase::Skip(left) }
}

/// The sizes and streams that the small frames must have (RFC 9113 §6).
fn check_size(head: Head) -> Result<(), Fault> {
    let (sized, on_stream) = match head.kind {
        kind::PRIORITY => (head.len == 5, true),
        kind::RST_STREAM => (head.len == 4, true),
        kind::SETTINGS if head.has(flag::ACK) => (head.len == 0, false),
        kind::SETTINGS => (head.len.is_multiple_of(6), false),
        kind::PING => (head.len == 8, false),
        kind::GOAWAY => (head.len >= 8, false),
        kind::WINDOW_UPDATE => (head.len == 4, head.stream != 0),
        _ => (true, head.stream != 0),
    };
    if !sized {
        return Err(Fault::new(code::FRAME_SIZE_ERROR, "a frame of the wrong size for its kind"));
    }
    if on_stream != (head.stream != 0) {
        return Err(Fault::new(code::PROTOCOL_ERROR, "a frame on the wrong stream for its kind"));
    }
    if head.len > LARGEST_OTHER {
        return Err(Fault::above(
            Limit::Frame,
            code::ENHANCE_YOUR_CALM,
            "a control frame larger than we take",
        ));
    }
    Ok(())
}
