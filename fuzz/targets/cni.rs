//! What a container runtime's plugin posts about a pod that is to start.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = node_agent::fuzzing::cni(data);
});
