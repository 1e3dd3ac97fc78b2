//! What a peer sends on an HTTP/2 connection, to either end of a tunnel.
//!
//! Input: an octet of options, then bytes; with the first bit the preface (to a server) and an empty SETTINGS are put
//! before them, so that the fuzzer need not find those. How the bytes are cut into reads must not matter, and what
//! they make us send is in proportion to them.
#![no_main]

use hbone::fuzzing::{Outcome, receive};
use libfuzzer_sys::fuzz_target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Our own greeting, and the CONNECTs of a client.
const UNASKED: usize = 400;
/// The most we answer to an octet: a 403 and a reset to the smallest CONNECT.
const GAIN: usize = 4;

fuzz_target!(|data: &[u8]| {
    let Some((&options, rest)) = data.split_first() else { return };
    let server = options & 2 != 0;
    let mut bytes = Vec::new();
    if options & 1 != 0 {
        if server {
            bytes.extend_from_slice(PREFACE);
        }
        bytes.extend_from_slice(&SETTINGS);
    }
    bytes.extend_from_slice(rest);

    let whole = receive(server, &bytes, bytes.len(), false);
    for size in [1, 7, 1 + usize::from(options >> 2)] {
        let pieces = receive(server, &bytes, size, false);
        assert_eq!(pieces, whole, "in pieces of {size}");
    }
    in_proportion(&whole, &bytes);
    in_proportion(&receive(server, &bytes, bytes.len(), true), &bytes);
    in_proportion(&receive(server, &bytes, 5, true), &bytes);
});

fn in_proportion(outcome: &Outcome, bytes: &[u8]) {
    assert!(
        outcome.answer.len() <= UNASKED + GAIN * bytes.len(),
        "{} to {}",
        outcome.answer.len(),
        bytes.len()
    );
}
