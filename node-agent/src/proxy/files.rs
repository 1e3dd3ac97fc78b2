//! Open files: as many as the system lets us have, and what is left of them for pods.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than this many nobody needs: 65,536 connections of each of a dozen busy pods.
const ENOUGH: u64 = 1 << 20;
/// Kept back for the controller, the hand-over, metrics and what is open for a moment only.
const OWN: u64 = 256;

/// Descriptors that a pod costs before it has a connection: its namespace, seven listeners, a reactor's entry.
pub(crate) const OF_POD: u32 = 9;

/// Sets the limit of open files to what is wanted, 0 for as many as the system allows, and returns what is in force.
pub(crate) fn set_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let wanted = if wanted == 0 { ENOUGH.max(soft) } else { wanted };
    // Only root may go beyond the hard limit, and the kernel's own (fs.nr_open) is mostly as large as enough is.
    for (wanted, most) in [(wanted, wanted.max(hard)), (wanted.min(hard), hard)] {
        if setrlimit(Resource::RLIMIT_NOFILE, wanted, most).is_ok() {
            return wanted;
        }
    }
    soft
}

/// What pods may have together of this many: a sixteenth is kept back.
pub(crate) fn for_pods(limit: u64) -> u64 {
    limit.saturating_sub(OWN.max(limit / 16)).max(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept_back_and_some_given_out_however_few_there_are() {
        for (limit, expected) in [(1 << 20, (1 << 20) - (1 << 16)), (20_000, 18_750), (1024, 768), (200, 100)]
        {
            assert_eq!(for_pods(limit), expected, "{limit}");
        }
    }

    #[test]
    fn the_limit_in_force_is_the_one_returned() {
        let in_force = || getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
        let raised = set_limit(0);
        assert_eq!(in_force(), raised);
        assert_eq!(set_limit(raised - 1), raised - 1);
        assert_eq!(in_force(), raised - 1);
    }
}
