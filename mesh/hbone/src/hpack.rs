//! Header compression (RFC 7541): what turns the payload of HEADERS and CONTINUATION into fields, and back.
//!
//! On the path this stands between framing, which collects the fragments of one header block (and bounds
//! their sum), and the CONNECT request or response made of the fields. A connection owns one [`Decoder`] and
//! one [`Encoder`]; neither does I/O.
//!
//! The two are deliberately unequal. Decoding is complete, because ztunnel, Envoy and the h2 crate use all of
//! it. Encoding never indexes: a tunnel sends a handful of fields once per stream, so a dynamic table would
//! cost every idle tunnel memory and gain a few bytes.
//!
//! ```
//! use hbone::hpack::{Decoder, Encoder, Limits};
//!
//! let mut block = Vec::new();
//! Encoder::new(true).encode(b":method", b"CONNECT", &mut block);
//!
//! let mut decoder = Decoder::new(4096, Limits { max_header_bytes: 16 * 1024, max_headers: 64 });
//! let mut fields = Vec::new();
//! decoder.decode(&block, &mut |name, value| fields.push((name.to_vec(), value.to_vec())))?;
//! assert_eq!(fields, [(b":method".to_vec(), b"CONNECT".to_vec())]);
//! # Ok::<(), hbone::hpack::DecodeError>(())
//! ```

mod decode;
mod encode;
mod huffman;
mod table;

#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder, Limits};
pub use encode::Encoder;

/// Bytes that each field counts beyond its name and value, in the dynamic table (RFC 7541 §4.1) and in
/// SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 §6.5.2).
pub const FIELD_OVERHEAD: usize = 32;

/// The size of the dynamic table, in bytes, before SETTINGS_HEADER_TABLE_SIZE says otherwise (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_SIZE: usize = 4096;
