//! The `:authority` of a CONNECT. What is accepted must say the same when it is written out and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::accept::Authority;

fuzz_target!(|text: &str| {
    let Ok(authority) = text.parse::<Authority>() else { return };
    let written = match &authority {
        Authority::Address(address) => address.to_string(),
        Authority::Host { host, port } => {
            assert!(!host.is_empty() && *port != 0, "{text:?}");
            assert!(
                !host.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_control()),
                "{host:?}"
            );
            format!("{host}:{port}")
        }
    };
    assert_eq!(written.parse(), Ok(authority), "{text:?}");
});
