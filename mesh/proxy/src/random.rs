//! Numbers that spread traffic over what may take it. Which endpoint one gets is no secret: they are fast, and may be guessed.

use std::cell::Cell;

/// A number below `bound`, or 0, by this thread's generator. It only has to be spread well.
pub fn draw(bound: u32) -> u32 {
    thread_local!(static STATE: Cell<u64> = Cell::new(seed()));
    // SplitMix64.
    let next = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let drawn = ((mixed ^ (mixed >> 31)) >> 32) * u64::from(bound.max(1));
    u32::try_from(drawn >> 32).unwrap_or(0)
}

fn seed() -> u64 {
    // Without randomness at start the threads only draw alike.
    getrandom::u64().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn draws_are_below_the_bound_and_spread() {
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[draw(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(draw(1), 0);
    }
}
