//! Header blocks of one connection, as a hostile peer sends them.
//!
//! Input: blocks, each behind an octet with its length. Beyond not panicking: a decoder with tight limits delivers
//! what one with wide limits does, up to its limits, and stays in step with it; what was delivered survives our
//! own encoder.
#![no_main]

use hbone::hpack::{DecodeError, Decoder, Encoder, FIELD_OVERHEAD, Limits};
use libfuzzer_sys::fuzz_target;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

const TABLE: usize = 4096;
const TIGHT: Limits = Limits { max_header_bytes: 300, max_headers: 6 };
const WIDE: Limits = Limits { max_header_bytes: usize::MAX, max_headers: usize::MAX };

fn decode(decoder: &mut Decoder, block: &[u8]) -> (Fields, Result<(), DecodeError>) {
    let mut fields = Fields::new();
    let result = decoder.decode(block, &mut |name, value| fields.push((name.to_vec(), value.to_vec())));
    (fields, result)
}

fn cost(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_OVERHEAD).sum()
}

fn reencoded(fields: &Fields, huffman: bool) -> Fields {
    let (mut encoder, mut block) = (Encoder::new(huffman), Vec::new());
    for (name, value) in fields {
        encoder.encode(name, value, &mut block);
    }
    let (again, result) = decode(&mut Decoder::new(TABLE, WIDE), &block);
    assert_eq!(result, Ok(()));
    again
}

fuzz_target!(|data: &[u8]| {
    let (mut tight, mut wide) = (Decoder::new(TABLE, TIGHT), Decoder::new(TABLE, WIDE));
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let (block, tail) = tail.split_at(tail.len().min(usize::from(length)));
        rest = tail;
        let (all, verdict) = decode(&mut wide, block);
        let (some, tight_verdict) = decode(&mut tight, block);

        assert!(some.len() <= TIGHT.max_headers && cost(&some) <= TIGHT.max_header_bytes);
        assert!(all.starts_with(&some));
        match tight_verdict {
            Err(DecodeError::TooLarge) => assert!(verdict.is_ok() && some.len() < all.len()),
            other => assert_eq!(other, verdict),
        }
        if verdict.is_err() {
            return;
        }
        assert_eq!(some == all, tight_verdict.is_ok());
        assert_eq!(reencoded(&all, true), all);
        assert_eq!(reencoded(&all, false), all);
    }
});
