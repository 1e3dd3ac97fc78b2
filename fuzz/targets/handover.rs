//! A connection as an earlier or later version of the proxy hands it over, with the file of what it holds.
//!
//! Input: the length of the message, two octets; the message; what is in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_agent::fuzzing::handover;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (message, file) = rest.split_at(length);
    // What makes no sense ends that connection, with a reason.
    if let Err(reason) = handover(message, file) {
        assert!(!reason.is_empty());
    }
});
