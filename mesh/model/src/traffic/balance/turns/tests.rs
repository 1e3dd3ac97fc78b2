//! How much an endpoint is given while it is warming up.

use std::time::Duration;

use super::warmed;
use crate::traffic::Warmup;
use crate::traffic::balance::endpoint::State;

#[test]
fn a_new_endpoint_is_given_more_and_more() {
    let state = State::new(Duration::from_secs(100));
    // Minimum, aggression; seconds since it came, of a hundred; share.
    #[rustfmt::skip]
    let table = [
        (10.0, 1.0, 0.0, 0.1), (10.0, 1.0, 5.0, 0.1), (10.0, 1.0, 10.0, 0.1), (10.0, 1.0, 25.0, 0.25),
        (10.0, 1.0, 99.0, 0.99), (10.0, 1.0, 100.0, 1.0), (10.0, 1.0, 1000.0, 1.0),
        // Faster at first: the square root of the time gone by; and slower: its square.
        (10.0, 2.0, 25.0, 0.5), (10.0, 2.0, 64.0, 0.8), (10.0, 0.5, 50.0, 0.25), (10.0, 0.5, 10.0, 0.1),
        (50.0, 1.0, 25.0, 0.5), (100.0, 1.0, 1.0, 1.0), (300.0, 1.0, 1.0, 1.0),
        // Nothing is never given, or it would not be seen that the endpoint is warm.
        (0.0, 1.0, 0.0, 0.01), (0.0, 0.01, 50.0, 0.01),
        // What makes no sense is even growth.
        (10.0, 0.0, 25.0, 0.25), (10.0, -1.0, 25.0, 0.25), (10.0, f64::NAN, 25.0, 0.25), (f64::NAN, 1.0, 0.0, 0.01),
    ];
    for (minimum_percent, aggression, gone, share) in table {
        let warmup = Warmup { duration: Duration::from_secs(100), minimum_percent, aggression };
        let now = Duration::from_secs_f64(100.0 + gone);
        let found = warmed(&warmup, &state, now);
        assert!((found - share).abs() < 1e-9, "{minimum_percent} {aggression} {gone}: {found}");
    }
    // No warm-up, and a clock that is behind.
    assert_eq!(warmed(&Warmup::of(Duration::ZERO), &state, Duration::from_secs(100)), 1.0);
    assert_eq!(warmed(&Warmup::of(Duration::from_secs(9)), &state, Duration::ZERO), 0.1);
}
