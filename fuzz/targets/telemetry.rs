//! What a peer says of itself for logs and metrics: `baggage` and `forwarded`.
//!
//! Input: header values, one a line. How the peer cuts its list into headers must not matter, and nothing read may
//! contain what separates one pair from the next.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::baggage::{Baggage, forwarded, forwarded_host};

/// As long as what is read of one header.
const LONGEST: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let headers: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let baggage = Baggage::read(headers.iter().copied());
    let values = [
        &baggage.cluster,
        &baggage.namespace,
        &baggage.workload,
        &baggage.service,
        &baggage.revision,
        &baggage.region,
        &baggage.zone,
    ];
    for value in values {
        assert!(value.len() <= LONGEST && !value.contains(','), "{value:?}");
    }
    let joined = headers.join(&b',');
    // A header with a control character is ignored: joined, all would be.
    let whole = std::str::from_utf8(&joined).is_ok_and(|text| !text.chars().any(char::is_control));
    if joined.len() <= LONGEST && whole {
        assert_eq!(Baggage::read([&joined[..]].into_iter()), baggage);
    }

    for header in headers {
        let Some(host) = forwarded_host(header) else { continue };
        assert!(!host.is_empty() && host.is_ascii() && !host.contains(';'), "{host:?}");
        // A host is only looked up among known services; of those, each must be found again.
        if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
            let again = forwarded(([10, 0, 0, 1], 1).into(), Some(host));
            assert_eq!(forwarded_host(again.as_bytes()), Some(host));
        }
    }
});
