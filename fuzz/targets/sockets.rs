//! What a stranger says on the sockets between the redirector and the proxy of a node: ZDS and the private one.
//!
//! Input: an octet of options, then the message. What is understood of the private socket's must survive being written.
#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use libfuzzer_sys::fuzz_target;
use node_agent::fuzzing::{private, zds};

fuzz_target!(|data: &[u8]| {
    let Some((&options, message)) = data.split_first() else { return };
    match options % 3 {
        0 => {
            let one = || -> Option<OwnedFd> {
                // Of a namespace, or of something else.
                let path = if options & 4 == 0 { "/proc/self/ns/net" } else { "/dev/null" };
                File::open(path).ok().map(OwnedFd::from)
            };
            let fds = (0..(options >> 3) % 3).filter_map(|_| one()).collect();
            let _ = zds(message, fds);
        }
        side => {
            let Some(written) = private(message, side == 1) else { return };
            assert_eq!(private(&written, side == 1).as_deref(), Some(&written[..]));
        }
    }
});
