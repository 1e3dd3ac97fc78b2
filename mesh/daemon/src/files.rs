//! Open files: as many as the system lets a process have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than this many nobody needs: 65,536 connections of each of a dozen busy pods.
const ENOUGH: u64 = 1 << 20;
/// What a process commonly may have open, where the system does not say.
const USUAL: u64 = 1024;

/// Sets the limit of open files to what is wanted, 0 for as many as the system allows, and returns what is in force.
pub fn set_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return USUAL };
    let wanted = if wanted == 0 { ENOUGH.max(soft) } else { wanted };
    // Only root may go beyond the hard limit, and the kernel's own (fs.nr_open) is mostly as large as enough is.
    for (wanted, most) in [(wanted, wanted.max(hard)), (wanted.min(hard), hard)] {
        if setrlimit(Resource::RLIMIT_NOFILE, wanted, most).is_ok() {
            return wanted;
        }
    }
    soft
}

/// Raises the limit of open files to what is wanted as far as anybody may, and returns what is in force.
pub fn raise_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return USUAL };
    let wanted = wanted.min(hard);
    if wanted <= soft {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, soft, "the limit of open files could not be raised");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, as the limit is the whole process's.
    #[test]
    fn the_limit_in_force_is_the_one_returned() {
        let in_force = || getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
        let raised = set_limit(0);
        assert_eq!(in_force(), raised);
        assert_eq!(set_limit(raised - 2), raised - 2);
        assert_eq!(in_force(), raised - 2);
        assert_eq!(raise_limit(raised - 1), raised - 1);
        assert_eq!(in_force(), raised - 1);
        assert_eq!(raise_limit(raised - 2), raised - 1, "it is never lowered");
    }
}
