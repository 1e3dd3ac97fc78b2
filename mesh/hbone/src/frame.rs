//! HTTP/2 frames as bytes (RFC 9113 §4, §6): the nine-octet head, its kinds, and writers for what we send.

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// What a client sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame any peer must accept, and the largest we send.
pub(crate) const SMALLEST_MAX_FRAME: usize = 16_384;
/// The window each side starts from (RFC 9113 §6.9.2).
pub(crate) const FIRST_WINDOW: i64 = 65_535;
/// No window may grow beyond it.
pub(crate) const LARGEST_WINDOW: i64 = (1 << 31) - 1;
/// A stream id has 31 bits.
pub(crate) const STREAM_MASK: u32 = (1 << 31) - 1;

/// Frame types.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    #[cfg(test)]
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Error codes (RFC 9113 §7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const CONNECT_ERROR: u32 = 10;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Settings identifiers (RFC 9113 §6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            len: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_MASK,
        }
    }

    pub(crate) fn bytes(self) -> [u8; HEAD] {
        let [_, l0, l1, l2] = self.len.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn push(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let head = Head { len: payload.len() as u32, kind, flags, stream };
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(payload);
}

/// SETTINGS with these values.
pub(crate) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(values.len() * 6);
    for (id, value) in values {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    push(out, kind::SETTINGS, 0, 0, &payload);
}

/// The answer to SETTINGS.
pub(crate) fn settings_ack(out: &mut Vec<u8>) {
    push(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

/// Grants `bytes` more on `stream` (0: the connection).
pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    push(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// Resets `stream`.
pub(crate) fn reset(out: &mut Vec<u8>, stream: u32, code: u32) {
    push(out, kind::RST_STREAM, 0, stream, &code.to_be_bytes());
}

/// PING or its answer.
pub(crate) fn ping(out: &mut Vec<u8>, ack: bool, opaque: [u8; 8]) {
    push(out, kind::PING, if ack { flag::ACK } else { 0 }, 0, &opaque);
}

/// GOAWAY.
pub(crate) fn goaway(out: &mut Vec<u8>, last: u32, code: u32, text: &str) {
    let mut payload = Vec::with_capacity(8 + text.len());
    payload.extend_from_slice(&last.to_be_bytes());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(text.as_bytes());
    push(out, kind::GOAWAY, 0, 0, &payload);
}

/// A header block as HEADERS and, where it does not fit one frame, CONTINUATION.
pub(crate) fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end_stream: bool) {
    let mut flags = if end_stream { flag::END_STREAM } else { 0 };
    let mut kind = kind::HEADERS;
    let mut rest = block;
    loop {
        let (part, after) = rest.split_at(rest.len().min(SMALLEST_MAX_FRAME));
        if after.is_empty() {
            flags |= flag::END_HEADERS;
        }
        push(out, kind, flags, stream, part);
        if after.is_empty() {
            return;
        }
        (kind, flags, rest) = (kind::CONTINUATION, 0, after);
    }
}

/// The head of a DATA frame of `len` bytes.
pub(crate) fn data_head(stream: u32, len: usize, end_stream: bool) -> [u8; HEAD] {
    let flags = if end_stream { flag::END_STREAM } else { 0 };
    Head { len: len as u32, kind: kind::DATA, flags, stream }.bytes()
}

/// The settings of a SETTINGS payload whose length is a multiple of six.
pub(crate) fn read_settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload.chunks_exact(6).map(|entry| {
        let id = u16::from_be_bytes([entry[0], entry[1]]);
        (id, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    })
}

/// A big-endian u32 at the start of `bytes`, 0 where it is too short.
pub(crate) fn read_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_the_wire() {
        let head = Head { len: 0xabcdef, kind: kind::HEADERS, flags: 0x2d, stream: 0x7fff_ffff };
        assert_eq!(Head::parse(&head.bytes()), head);
        // The reserved bit is ignored.
        let mut bytes = head.bytes();
        bytes[5] |= 0x80;
        assert_eq!(Head::parse(&bytes), head);
    }

    #[test]
    fn a_large_block_is_continued() {
        let mut out = Vec::new();
        headers(&mut out, 3, &vec![7; SMALLEST_MAX_FRAME * 2 + 5], true);
        let mut seen = Vec::new();
        let mut rest = &out[..];
        while let Some(bytes) = rest.first_chunk::<HEAD>() {
            let head = Head::parse(bytes);
            seen.push((head.kind, head.flags, head.len));
            rest = &rest[HEAD + head.len as usize..];
        }
        let full = SMALLEST_MAX_FRAME as u32;
        assert_eq!(
            seen,
            [
                (kind::HEADERS, flag::END_STREAM, full),
                (kind::CONTINUATION, 0, full),
                (kind::CONTINUATION, flag::END_HEADERS, 5)
            ]
        );
    }
}
