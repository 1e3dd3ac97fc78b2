//! Which TCP congestion control the measured sockets have.

use std::fs;
use std::io;

use testkit::netns::Netns;

/// Linux's own default: what most nodes have.
const USUAL: &str = "cubic";
/// Its place below `/proc/sys/net`.
pub(crate) const KEY: &str = "ipv4/tcp_congestion_control";

/// cubic, whatever this machine has, or what this machine has where it lets no namespace choose cubic: said on standard error
/// then, as figures differ (docs/performance.md).
pub(crate) fn usual() -> io::Result<String> {
    let scratch =
        Netns::new(&format!("lbench-{}-congestion", std::process::id())).map_err(io::Error::other)?;
    if scratch.sysctl(KEY, USUAL).is_ok() {
        return Ok(USUAL.to_owned());
    }
    let own = scratch
        .run(|| fs::read_to_string(format!("/proc/sys/net/{KEY}")))
        .map_err(io::Error::other)??
        .trim()
        .to_owned();
    eprintln!(
        "bench: this machine lets no namespace choose {USUAL}, so that everything has its own {own}; to allow it: \
         sysctl -w net.ipv4.tcp_allowed_congestion_control=\"reno {own} {USUAL}\""
    );
    Ok(own)
}
