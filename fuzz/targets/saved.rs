//! What a predecessor left: its journal, and the certificates in it. A proxy that dies over either is one that does not
//! come back.
//!
//! Input: an octet that chooses, then the bytes; with its second bit set the journal's header is put before them.
#![no_main]

use std::sync::LazyLock;

use identity::rotation::{Certificates, RotationSettings};
use identity::tls::{Tls, TlsSettings};
use libfuzzer_sys::fuzz_target;

static CERTIFICATES: LazyLock<Certificates> =
    LazyLock::new(|| Certificates::new(Tls::new(TlsSettings::default()), RotationSettings::default()));

fuzz_target!(|data: &[u8]| {
    let Some((&options, rest)) = data.split_first() else { return };
    if options & 1 != 0 {
        if CERTIFICATES.import(rest).is_ok() {
            let again = CERTIFICATES.export();
            assert!(CERTIFICATES.import(&again).is_ok());
        }
        return;
    }
    let header: &[u8] = if options & 2 != 0 { b"lateen\0\x03" } else { b"" };
    // Written anew it says the same: asserted there.
    let _ = node_agent::fuzzing::saved(&[header, rest].concat());
});
