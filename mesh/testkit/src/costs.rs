//! What this process and its threads have cost so far, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// Anonymous memory of this process, bytes.
///
/// # Panics
/// There is no procfs.
#[must_use]
pub fn anonymous_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// What this thread has spent on a processor, however many others wanted one.
///
/// # Panics
/// There is no procfs.
#[must_use]
pub fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    Duration::from_nanos(text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number"))
}
