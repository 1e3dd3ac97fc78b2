//! The path of a request target. What policy compares must have one spelling: read again, it is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::path::canonical;

fuzz_target!(|text: &str| {
    let Ok(path) = canonical(text) else { return };
    let again = canonical(&path);
    assert_eq!(again.as_deref(), Ok(&*path));
    assert!(path.starts_with('/') && path.is_ascii(), "{path:?}");
    for odd in ["//", "/./", "/../", "\\", "#", "%2F", "%5C", "%00"] {
        assert!(!path.contains(odd), "{path:?}");
    }
});
