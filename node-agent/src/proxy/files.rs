//! Open files: what is left for pods of those that the system lets us have.

/// Kept back for the controller, the hand-over, metrics and what is open for a moment only.
const OWN: u64 = 256;

/// Descriptors that a pod costs before it has a connection: its namespace, seven listeners, a reactor's entry.
pub(crate) const OF_POD: u32 = 9;

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
}
