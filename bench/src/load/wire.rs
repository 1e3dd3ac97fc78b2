//! What the load generators and `bench serve` say to each other: five bytes first, which choose the mode.

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requests of so many bytes, each answered by as many.
    Echo(u32),
    /// The server swallows all, and at the end answers how many bytes there were (8 bytes, little-endian).
    Sink,
    /// The server sends for as long as the client reads.
    Source,
    /// The server answers one byte and then holds the connection.
    Hold,
}

/// Bytes of a header.
pub(crate) const HEADER: usize = 5;

impl Mode {
    /// The header that asks for this mode.
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let (letter, size) = match self {
            Self::Echo(size) => (b'E', size),
            Self::Sink => (b'S', 0),
            Self::Source => (b'G', 0),
            Self::Hold => (b'H', 0),
        };
        let [a, b, c, d] = size.to_le_bytes();
        [letter, a, b, c, d]
    }

    /// The mode a header asks for; `None` when it is no header, or an echo of nothing.
    pub(crate) fn decode(header: [u8; HEADER]) -> Option<Self> {
        let [letter, a, b, c, d] = header;
        match (letter, u32::from_le_bytes([a, b, c, d])) {
            (b'E', size) if size > 0 => Some(Self::Echo(size)),
            (b'S', 0) => Some(Self::Sink),
            (b'G', 0) => Some(Self::Source),
            (b'H', 0) => Some(Self::Hold),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        for mode in [Mode::Echo(1), Mode::Echo(u32::MAX), Mode::Sink, Mode::Source, Mode::Hold] {
            assert_eq!(Mode::decode(mode.encode()), Some(mode));
        }
        for wrong in [*b"E\0\0\0\0", *b"S\x01\0\0\0", *b"GET /"] {
            assert_eq!(Mode::decode(wrong), None, "{wrong:?}");
        }
    }
}
