//! The limits of a process and how often each was hit: one metric for all of them, `lateen_limit_hits_total`.
//! `docs/limits.md` lists them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::time::Instant;

/// Between two warnings of the same limit.
const QUIET: Duration = Duration::from_secs(10);

/// One of the limits of a process, as [`limits!`](crate::limits!) writes them down.
pub trait Limit: Copy {
    /// What the metric calls them, in the order of their indexes.
    const NAMES: &'static [&'static str];

    /// Its place among the names.
    fn index(self) -> usize;
}

/// Writes down the limits of a process, each with the name that the metric has for it.
#[macro_export]
macro_rules! limits {
    (
        $(#[$about:meta])*
        $visibility:vis enum $all:ident { $($(#[$doc:meta])* $limit:ident = $name:literal,)+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $all {
            $($(#[$doc])* $limit,)+
        }

        impl $crate::limits::Limit for $all {
            const NAMES: &'static [&'static str] = &[$($name),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// How often which was hit, and when it was last told of.
pub struct Hits<L> {
    began: Instant,
    counts: Box<[Count]>,
    limits: PhantomData<fn(L)>,
}

#[derive(Debug, Default)]
struct Count {
    hits: AtomicU64,
    /// Milliseconds since the beginning until which nothing more is said.
    quiet: AtomicU64,
}

impl<L: Limit> Default for Hits<L> {
    fn default() -> Self {
        let counts = L::NAMES.iter().map(|_| Count::default()).collect();
        Self { began: Instant::now(), counts, limits: PhantomData }
    }
}

impl<L: Limit> fmt::Debug for Hits<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.all()).finish()
    }
}

impl<L: Limit> Hits<L> {
    /// A limit was hit.
    pub fn hit(&self, limit: L) {
        self.counts[limit.index()].hits.fetch_add(1, Ordering::Relaxed);
    }

    /// A limit was hit; whether it is time to say so: what floods us must not flood the log too.
    #[must_use]
    pub fn hit_and_tell(&self, limit: L) -> bool {
        self.hit(limit);
        self.is_time_to_tell(limit, self.began.elapsed())
    }

    fn is_time_to_tell(&self, limit: L, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let quiet = &self.counts[limit.index()].quiet;
        let until = quiet.load(Ordering::Relaxed);
        let next = now + u64::try_from(QUIET.as_millis()).unwrap_or(0);
        now >= until && quiet.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// How often a limit was hit.
    pub fn of(&self, limit: L) -> u64 {
        self.counts[limit.index()].hits.load(Ordering::Relaxed)
    }

    /// How often each was hit, by its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.counts.iter().map(|count| count.hits.load(Ordering::Relaxed));
        L::NAMES.iter().copied().zip(counts)
    }
}

/// Of connections by age and by whose they are, the oldest of who has most: who makes room where there is none.
pub fn oldest_of_most<P: Eq + Hash>(connections: impl Iterator<Item = (u64, P)>) -> Option<u64> {
    let mut parties: HashMap<P, (usize, u64)> = HashMap::new();
    for (id, party) in connections {
        let (count, oldest) = parties.entry(party).or_insert((0, id));
        *count += 1;
        *oldest = id.min(*oldest);
    }
    // Of those who have as many, the one that came first.
    let most = parties.into_values().max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
    most.map(|(_, oldest)| oldest)
}

/// `lateen_limit_hits_total`, for every limit there is.
///
/// # Errors
/// Those of the encoder.
pub fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    counts: impl IntoIterator<Item = (&'static str, u64)>,
) -> Result<(), fmt::Error> {
    let help = "How often a limit was hit; docs/limits.md says what each is";
    let mut family = encoder.encode_descriptor("lateen_limit_hits", help, None, MetricType::Counter)?;
    for (limit, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&[("limit", limit)])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    limits! {
        /// Some limits.
        enum Some {
            /// The first.
            First = "first",
            /// The second.
            Second = "second",
        }
    }

    #[test]
    fn the_oldest_of_who_has_most_goes() {
        for (about, connections, expected) in [
            ("nobody", vec![], None),
            ("the only one", vec![(7, "10.0.0.1")], Some(7)),
            ("not the oldest of all", vec![(1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.2")], Some(2)),
            ("of as many the older", vec![(5, "10.0.0.1"), (4, "10.0.0.2")], Some(4)),
        ] {
            assert_eq!(oldest_of_most(connections.into_iter()), expected, "{about}");
        }
    }

    #[test]
    fn every_hit_is_counted_and_one_in_a_while_told() {
        let hits = Hits::default();
        for (limit, all) in
            [(Some::First, [("first", 2), ("second", 0)]), (Some::Second, [("first", 2), ("second", 2)])]
        {
            assert!(hits.hit_and_tell(limit), "the first is told");
            assert!(!hits.hit_and_tell(limit), "the next is not");
            assert_eq!(hits.of(limit), 2);
            assert_eq!(hits.all().collect::<Vec<_>>(), all);
        }
        assert!(!hits.is_time_to_tell(Some::First, QUIET / 2));
        assert!(hits.is_time_to_tell(Some::First, QUIET * 2));
        assert!(!hits.is_time_to_tell(Some::First, QUIET * 2));
    }
}
