//! How much of the traffic goes to which priority, and when health no longer counts.
//!
//! As in Envoy ("Priority levels", "Panic threshold", and `LoadBalancerBase::recalculatePerPriorityState`): a priority has
//! more than it needs, so that with up to two sevenths of its endpoints gone it still takes all; what it cannot take goes
//! to the next. Percentages are whole numbers, rounded down as there.

/// So many percent of what it needs a priority has.
const OVERPROVISIONING: u64 = 140;

/// The same factor, by which the weight of a locality with ejected endpoints shrinks.
pub(super) const OVERPROVISIONING_FACTOR: f64 = 1.4;

/// The endpoints of a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hosts {
    pub(super) healthy: usize,
    pub(super) total: usize,
}

/// What a priority is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    /// Of a hundred requests.
    pub(super) percent: u32,
    /// So few are healthy that all are used.
    pub(super) panic: bool,
}

/// What each priority is given. `panic_threshold` is in percent of healthy endpoints; 0 is never. Where there are
/// priorities at all, the percentages add up to 100.
pub(super) fn loads(priorities: &[Hosts], panic_threshold: u32) -> Vec<Load> {
    let health: Vec<u32> = priorities.iter().map(|hosts| health(*hosts)).collect();
    let available = health.iter().fold(0u32, |sum, health| sum.saturating_add(*health)).min(100);
    let mut loads = by_health(&health, available);
    if available == 100 {
        return loads;
    }
    let threshold = panic_threshold.min(100);
    for (load, hosts) in loads.iter_mut().zip(priorities) {
        load.panic = hosts.healthy as u64 * 100 < u64::from(threshold) * hosts.total.max(1) as u64;
    }
    if loads.iter().all(|load| load.panic) {
        by_number(priorities, &mut loads);
    } else if available == 0
        && let Some(first) = loads.first_mut()
    {
        // Nobody is healthy, and all the same nobody else is used: the first is asked, and has none.
        first.percent = 100;
    }
    loads
}

/// What each priority is given of a request that has been tried in some: those are left out. Once all that could take it
/// have been tried, none are, and it begins anew. `None`: nobody could take it, tried or not; then this does not matter.
///
/// As in Envoy's retry priority `previous_priorities`.
pub(super) fn loads_elsewhere<'a>(
    health: &[u32],
    tried: impl Iterator<Item = &'a [usize]>,
) -> Option<Vec<Load>> {
    let sum = |health: &[u32]| health.iter().fold(0u32, |sum, health| sum.saturating_add(*health)).min(100);
    let mut left = health.to_vec();
    for some in tried {
        for priority in some {
            if let Some(health) = left.get_mut(*priority) {
                *health = 0;
            }
        }
        if sum(&left) == 0 {
            left = health.to_vec();
        }
    }
    let available = sum(&left);
    (available > 0).then(|| by_health(&left, available))
}

/// How much of all traffic a priority could take, in percent.
pub(super) fn health(Hosts { healthy, total }: Hosts) -> u32 {
    let percent = (OVERPROVISIONING * healthy as u64).checked_div(total as u64).unwrap_or(0);
    u32::try_from(percent.min(100)).unwrap_or(100)
}

/// Each in turn takes what it can of what is left. If all together cannot take all, each takes more by the same factor;
/// what is left by rounding goes to the first that can take anything.
fn by_health(health: &[u32], available: u32) -> Vec<Load> {
    let mut left = 100;
    let mut loads: Vec<Load> = health
        .iter()
        .map(|health| {
            let percent = (health * 100).checked_div(available).unwrap_or(0).min(left);
            left -= percent;
            Load { percent, panic: false }
        })
        .collect();
    if let Some(first) = health.iter().position(|health| *health > 0) {
        loads[first].percent += left;
    }
    loads
}

/// All are in panic: each takes by the number of its endpoints, and the first with any what is left by rounding.
fn by_number(priorities: &[Hosts], loads: &mut [Load]) {
    let all: u64 = priorities.iter().map(|hosts| hosts.total as u64).sum();
    let mut left = 100;
    for (load, hosts) in loads.iter_mut().zip(priorities) {
        let percent = (100 * hosts.total as u64).checked_div(all).unwrap_or(0);
        load.percent = u32::try_from(percent).unwrap_or(0);
        left -= load.percent;
    }
    let first = priorities.iter().position(|hosts| hosts.total > 0).unwrap_or(0);
    if let Some(first) = loads.get_mut(first) {
        first.percent += left;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Hosts, Load, loads, loads_elsewhere};

    fn hosts(pairs: &[(usize, usize)]) -> Vec<Hosts> {
        pairs.iter().map(|(healthy, total)| Hosts { healthy: *healthy, total: *total }).collect()
    }

    #[test]
    fn priorities_take_what_they_can() {
        // Healthy and total of each priority, threshold; percent of each, whether in panic.
        type Row = (&'static [(usize, usize)], u32, &'static [u32], &'static [bool]);
        #[rustfmt::skip]
        let table: [Row; 24] = [
            (&[], 50, &[], &[]),
            (&[(10, 10)], 0, &[100], &[false]),
            (&[(10, 10), (10, 10)], 0, &[100, 0], &[false; 2]),
            // 72 of 100 are as good as all, 71 are not: 99.4 %.
            (&[(72, 100), (9, 9)], 0, &[100, 0], &[false; 2]),
            (&[(71, 100), (9, 9)], 0, &[99, 1], &[false; 2]),
            (&[(50, 100), (9, 9)], 0, &[70, 30], &[false; 2]),
            (&[(25, 100), (9, 9)], 0, &[35, 65], &[false; 2]),
            (&[(0, 100), (9, 9)], 0, &[0, 100], &[false; 2]),
            (&[(25, 100), (25, 100), (9, 9)], 0, &[35, 35, 30], &[false; 3]),
            // Together they cannot: each takes more. 14 + 28 = 42; 33 + 66 and 1 left.
            (&[(10, 100), (20, 100)], 0, &[34, 66], &[false; 2]),
            (&[(0, 100), (20, 100)], 0, &[0, 100], &[false; 2]),
            // What is left by rounding is not for who has nobody healthy: 66 and 33 of 63, and 1 left.
            (&[(0, 10), (3, 10), (3, 20)], 0, &[0, 67, 33], &[false; 3]),
            (&[(0, 10)], 0, &[100], &[false]),
            (&[(0, 10), (0, 10)], 0, &[100, 0], &[false; 2]),
            // Panic: fewer than the threshold, and not if all together are enough.
            (&[(4, 10)], 50, &[100], &[true]),
            (&[(5, 10)], 50, &[100], &[false]),
            (&[(4, 10), (10, 10)], 50, &[56, 44], &[false; 2]),
            (&[(1, 10), (6, 10)], 50, &[15, 85], &[true, false]),
            // All in panic: by number.
            (&[(1, 10), (1, 20)], 50, &[34, 66], &[true; 2]),
            (&[(0, 10), (0, 30)], 1, &[25, 75], &[true; 2]),
            (&[(0, 0), (0, 3)], 10, &[0, 100], &[true; 2]),
            (&[(0, 0), (0, 3), (0, 3), (0, 3)], 10, &[0, 34, 33, 33], &[true; 4]),
            (&[(9, 10)], 100, &[100], &[false]),
            (&[(6, 10)], u32::MAX, &[100], &[true]),
        ];
        for (priorities, threshold, percents, panics) in table {
            let found = loads(&hosts(priorities), threshold);
            let expected: Vec<Load> = percents
                .iter()
                .zip(panics)
                .map(|(percent, panic)| Load { percent: *percent, panic: *panic })
                .collect();
            assert_eq!(found, expected, "{priorities:?} at {threshold} %");
        }
    }

    #[test]
    fn a_retry_goes_where_it_has_not_been() {
        // Health of each priority, those tried in pairs; percent of each.
        type Row = (&'static [u32], &'static [&'static [usize]], Option<&'static [u32]>);
        #[rustfmt::skip]
        let table: [Row; 10] = [
            (&[100, 100], &[], Some(&[100, 0])),
            (&[100, 100], &[&[0, 0]], Some(&[0, 100])),
            (&[100, 100, 100], &[&[0, 0]], Some(&[0, 100, 0])),
            (&[100, 100, 100], &[&[0, 0], &[1, 1]], Some(&[0, 0, 100])),
            (&[100, 100, 100], &[&[0, 1]], Some(&[0, 0, 100])),
            // All have been tried: from the start.
            (&[100, 100], &[&[0, 1]], Some(&[100, 0])),
            (&[100, 0], &[&[0, 0]], Some(&[100, 0])),
            (&[100, 100], &[&[0, 1], &[0, 0]], Some(&[0, 100])),
            // Who is left has not enough, and takes all the same.
            (&[50, 30, 30], &[&[0, 0]], Some(&[0, 50, 50])),
            (&[0, 0], &[&[0, 7]], None),
        ];
        for (health, tried, expected) in table {
            let found = loads_elsewhere(health, tried.iter().copied());
            let percents = found.map(|loads| loads.iter().map(|load| load.percent).collect::<Vec<_>>());
            assert_eq!(percents.as_deref(), expected, "{health:?} after {tried:?}");
        }
    }

    proptest! {
        #[test]
        fn all_traffic_goes_somewhere(
            pairs in prop::collection::vec((0usize..200, 0usize..200), 1..8),
            threshold in 0u32..120,
        ) {
            let priorities: Vec<Hosts> = pairs
                .into_iter()
                .map(|(one, other)| Hosts { healthy: one.min(other), total: one.max(other) })
                .collect();
            let loads = loads(&priorities, threshold);
            prop_assert_eq!(loads.iter().map(|load| load.percent).sum::<u32>(), 100);
            for (load, hosts) in loads.iter().zip(&priorities) {
                // Nobody is sent to where nobody is, unless nobody is anywhere.
                let anybody = priorities.iter().any(|hosts| hosts.healthy > 0);
                prop_assert!(load.percent == 0 || hosts.healthy > 0 || load.panic || !anybody);
                prop_assert!(!load.panic || hosts.healthy * 100 < threshold as usize * hosts.total.max(1));
            }
        }
    }
}
