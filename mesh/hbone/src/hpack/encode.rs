//! From fields to a header block: static indices and literals, never the dynamic table.

use super::table::{Found, find};
use super::{DEFAULT_TABLE_SIZE, huffman};

/// First octets of the representations in RFC 7541 §6, with the bits of the integer that each carries.
const INDEXED: (u8, u32) = (0x80, 7);
const LITERAL: (u8, u32) = (0x00, 4);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);
const SIZE_UPDATE_TO_ZERO: u8 = 0x20;
const RAW_STRING: (u8, u32) = (0x00, 7);
const CODED_STRING: (u8, u32) = (0x80, 7);

/// Writes the header blocks of one connection.
///
/// It never adds to the peer's dynamic table, so it has no state that a lost or refused stream could
/// put out of step, and any SETTINGS_HEADER_TABLE_SIZE suits it. One thing is owed nevertheless: to a peer
/// that lowers the table's size, the next block must begin with a size update, used or not (RFC 9113 §4.3.1;
/// nghttp2 insists). Hence [`peer_table_size`](Self::peer_table_size).
#[derive(Debug)]
pub struct Encoder {
    huffman: bool,
    /// The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes.
    peer_table: usize,
    update_due: bool,
}

impl Encoder {
    /// An encoder which, with `huffman`, codes the strings that become shorter by it.
    #[must_use]
    pub fn new(huffman: bool) -> Self {
        Self { huffman, peer_table: DEFAULT_TABLE_SIZE, update_due: false }
    }

    /// The peer's SETTINGS say that its header table has `size` bytes. To be called between blocks, when those
    /// SETTINGS are acknowledged; if the size shrank, the next block starts with an update to 0.
    pub fn peer_table_size(&mut self, size: u32) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.update_due |= size < self.peer_table;
        self.peer_table = size;
    }

    /// Appends one field to the block in `out`. The name must be in lower case (RFC 9113 §8.2).
    pub fn encode(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.owed_update(out);
        match find(name, value) {
            Found::Field(index) => integer(INDEXED, index, out),
            Found::Name(index) => self.literal(LITERAL, index, name, value, out),
            Found::Nothing => self.literal(LITERAL, 0, name, value, out),
        }
    }

    /// Appends one field whose value is a secret: whoever passes it on may not index it either (RFC 7541
    /// §7.1.3).
    pub fn encode_sensitive(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.owed_update(out);
        match find(name, value) {
            Found::Field(index) | Found::Name(index) => self.literal(NEVER_INDEXED, index, name, value, out),
            Found::Nothing => self.literal(NEVER_INDEXED, 0, name, value, out),
        }
    }

    /// SETTINGS arrive between blocks, so the first field after them starts a block.
    fn owed_update(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.update_due) {
            out.push(SIZE_UPDATE_TO_ZERO);
        }
    }

    fn literal(&self, kind: (u8, u32), name_index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        integer(kind, name_index, out);
        if name_index == 0 {
            self.string(name, out);
        }
        self.string(value, out);
    }

    fn string(&self, text: &[u8], out: &mut Vec<u8>) {
        if self.huffman {
            let coded = huffman::coded_len(text);
            if coded < text.len() {
                integer(CODED_STRING, coded, out);
                huffman::encode(text, out);
                return;
            }
        }
        integer(RAW_STRING, text.len(), out);
        out.extend_from_slice(text);
    }
}

/// Appends an integer behind the marks of its first octet, which gives it `prefix` bits (RFC 7541 §5.1).
fn integer((marks, prefix): (u8, u32), value: usize, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(marks | value as u8);
        return;
    }
    out.push(marks | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(write: impl Fn(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Encoder::new(true), &mut out);
        out
    }

    #[test]
    fn integers_are_those_of_appendix_c1() {
        for (value, octets) in
            [(10, &[0x0a][..]), (30, &[0x1e]), (31, &[0x1f, 0]), (1337, &[0x1f, 0x9a, 0x0a])]
        {
            let mut out = Vec::new();
            integer((0, 5), value, &mut out);
            assert_eq!(out, octets, "{value}");
        }
    }

    #[test]
    fn the_shortest_form_is_chosen() {
        let cases: &[(&str, &str, &[u8])] = &[
            (":method", "GET", &[0x82]),
            (":status", "200", &[0x88]),
            (":authority", "", &[0x81]),
            // Coded: two octets for three. Below, coding saves nothing and the text stays.
            (":status", "302", &[0x08, 0x82, 0x64, 0x02]),
            (":status", "~~~", &[0x08, 0x03, b'~', b'~', b'~']),
            ("x", "", &[0x00, 0x01, b'x', 0x00]),
        ];
        for (name, value, octets) in cases {
            let out = block(|encoder, out| encoder.encode(name.as_bytes(), value.as_bytes(), out));
            assert_eq!(&out, octets, "{name}: {value}");
        }
        let mut plain = Vec::new();
        Encoder::new(false).encode(b":status", b"302", &mut plain);
        assert_eq!(plain, [0x08, 0x03, b'3', b'0', b'2']);
    }

    #[test]
    fn a_secret_is_marked_even_where_the_table_holds_it() {
        let out = block(|encoder, out| encoder.encode_sensitive(b":method", b"GET", out));
        assert_eq!(out, [0x12, 0x03, b'G', b'E', b'T']);
        let out = block(|encoder, out| encoder.encode_sensitive(b"authorization", b"{", out));
        assert_eq!(out, [0x1f, 0x08, 0x01, b'{']);
    }

    #[test]
    fn only_a_shrinking_table_is_acknowledged_and_only_once() {
        for (sizes, updates) in
            [(&[8192][..], 0), (&[4096], 0), (&[0], 1), (&[100, 50], 1), (&[100, 5000], 1)]
        {
            let out = block(|encoder, out| {
                for &size in sizes {
                    encoder.peer_table_size(size);
                }
                encoder.encode(b":method", b"GET", out);
                encoder.encode(b":path", b"/", out);
            });
            assert_eq!(out, [&[SIZE_UPDATE_TO_ZERO][..updates], &[0x82, 0x84]].concat(), "{sizes:?}");
        }
    }
}
