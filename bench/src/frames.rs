//! HTTP/2 by hand, frame by frame: for attackers, so that nothing in the way keeps to the rules, and for loads, so that they
//! cost little.

use bytes::{Bytes, BytesMut};

/// What a client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY: u8 = 32;

pub(crate) const TABLE_SIZE: u16 = 1;
pub(crate) const MAX_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW: u16 = 4;
/// What either side may send at first (RFC 9113, section 6.9.2).
pub(crate) const FIRST_WINDOW: i64 = 65_535;

/// Bytes of the largest frame that everybody takes (RFC 9113, section 6.5.2).
pub(crate) const LARGEST_FRAME: usize = 16_384;

const HEAD: usize = 9;

/// Appends a frame.
pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends SETTINGS.
pub(crate) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(out, SETTINGS, 0, 0, &payload);
}

/// The header block of a CONNECT, without anything that would have to be remembered.
pub(crate) fn connect(authority: &str) -> Vec<u8> {
    // Literals without indexing; the names are the static table's `:method` (2) and `:authority` (1).
    let mut block = vec![0x02, 7];
    block.extend_from_slice(b"CONNECT");
    block.push(0x01);
    // An address and a port are far below 127 bytes.
    block.push(authority.len() as u8);
    block.extend_from_slice(authority.as_bytes());
    block
}

/// A field of nearly the whole dynamic table, to be remembered as its first entry (62).
pub(crate) fn remembered() -> Vec<u8> {
    let mut block = vec![0x40, 1, b'x'];
    // 3,900 as an integer with a prefix of seven bits: 127, then 3,773 in groups of seven.
    block.extend_from_slice(&[127, (3773 & 127) as u8 | 128, (3773 >> 7) as u8]);
    block.extend_from_slice(&[b'a'; 3900]);
    block
}

/// That field so many times, one byte each.
pub(crate) fn recalled(times: usize) -> Vec<u8> {
    vec![0x80 | 62; times]
}

/// A frame that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

/// Cuts what comes into frames.
#[derive(Debug, Default)]
pub(crate) struct Reader(BytesMut);

impl Reader {
    /// Takes in more bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let head = self.0.get(..HEAD)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        if self.0.len() < HEAD + len {
            return None;
        }
        let payload = self.0.split_to(HEAD + len).freeze().slice(HEAD..);
        Some(Frame { kind, flags, stream, payload })
    }
}

impl Frame {
    /// The number that the payload begins with.
    pub(crate) fn number(&self) -> u32 {
        self.payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes)) & (u32::MAX >> 1)
    }

    /// Whether it has a flag.
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A setting of a SETTINGS frame.
    pub(crate) fn setting(&self, wanted: u16) -> Option<u32> {
        self.payload.chunks_exact(6).find_map(|setting| {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            (name == wanted).then_some(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_from_any_pieces() {
        let mut bytes = Vec::new();
        settings(&mut bytes, &[(MAX_STREAMS, 7), (INITIAL_WINDOW, 1 << 20)]);
        frame(&mut bytes, WINDOW_UPDATE, 0, 3, &5u32.to_be_bytes());
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(4) {
            reader.feed(piece);
            seen.extend(std::iter::from_fn(|| reader.next()));
        }
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].setting(INITIAL_WINDOW), Some(1 << 20));
        assert_eq!((seen[1].kind, seen[1].stream, seen[1].number()), (WINDOW_UPDATE, 3, 5));
    }
}
