//! What a set of proxies has used: processor time to the nanosecond, and memory.

use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;
use serde::Serialize;

/// Processor time, user and kernel, of all threads of these processes since they began; those that have
/// ended count nothing (a proxy that ends fails the load, and so the sample).
pub(crate) fn cpu(pids: &[Pid]) -> Duration {
    let used = |pid: &Pid| ClockId::pid_cpu_clock_id(*pid).and_then(ClockId::now).ok();
    pids.iter().filter_map(used).map(Duration::from).sum()
}

/// Resident memory in KiB, and how much of it is anonymous (neither code nor files).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    pub resident: u64,
    pub anonymous: u64,
}

/// The memory of all these processes.
pub(crate) fn memory(pids: &[Pid]) -> Memory {
    pids.iter().fold(Memory::default(), |sum, pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let one = parse(&status);
        Memory { resident: sum.resident + one.resident, anonymous: sum.anonymous + one.anonymous }
    })
}

fn parse(status: &str) -> Memory {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_proc_status() {
        let status = "Name:\tx\nVmHWM:\t 9999 kB\nVmRSS:\t    7104 kB\nRssAnon:\t    1100 kB\n";
        assert_eq!(parse(status), Memory { resident: 7104, anonymous: 1100 });
        assert_eq!(parse(""), Memory::default());
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let me = [nix::unistd::getpid()];
        let before = cpu(&me);
        let mut sum = 0u64;
        while cpu(&me) - before < Duration::from_millis(2) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(memory(&me).resident > memory(&me).anonymous);
    }
}
