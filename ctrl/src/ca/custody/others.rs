//! While roots change: what replicas say of their proxies, and whether the successor may sign. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Within this after a successor is distributed, every replica that can reach the API server has said something.
const HEARD: Duration = Duration::from_secs(20);
/// A replica that says nothing new for so long is gone; its proxies are another's now, who speaks for them.
const GONE: Duration = Duration::from_secs(30);
/// Replicas that are listened to: more are somebody's mistake.
const MOST: usize = 256;

/// What a replica says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Since when the successor is distributed that it is about, in Unix seconds.
    since: u64,
    /// How many of its proxies do not know it.
    awaited: usize,
    /// Counts up, so that one says something new as long as one lives.
    count: u64,
}

impl Report {
    pub(crate) fn of(since: SystemTime, awaited: usize, count: u64) -> Self {
        Self { since: seconds(since), awaited, count }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the other replicas have said.
#[derive(Debug, Default)]
pub(crate) struct Others(BTreeMap<String, (Report, Instant)>);

impl Others {
    /// Takes what stands in the ConfigMap, at a moment.
    pub(crate) fn read(&mut self, data: &BTreeMap<String, String>, us: &str, at: Instant) {
        let reports = data.iter().filter(|(name, _)| *name != us).take(MOST);
        for (name, text) in reports {
            let Ok(report) = serde_json::from_str::<Report>(text) else { continue };
            match self.0.get_mut(name) {
                Some((known, _)) if *known == report => {}
                Some(known) => *known = (report, at),
                None => drop(self.0.insert(name.clone(), (report, at))),
            }
        }
    }

    /// There is no successor any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many are waited for before the successor that is distributed since then may sign.
    pub(crate) fn awaited(&self, since: SystemTime, now: SystemTime, at: Instant) -> usize {
        if now < since + HEARD {
            return 1;
        }
        let alive = self.0.values().filter(|(_, told)| at.duration_since(*told) < GONE);
        // One that speaks of another successor has not heard of this one.
        alive.map(|(report, _)| if report.since == seconds(since) { report.awaited } else { 1 }).sum()
    }
}

/// Up to the whole second, as it is written down for the others.
fn seconds(at: SystemTime) -> u64 {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    at.as_secs() + u64::from(at.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By name: since when the successor is distributed that it speaks of, how many it waits for, and its count.
    fn told(reports: &[(&str, u64, usize, u64)]) -> BTreeMap<String, String> {
        let text = |since, awaited, count| Report { since, awaited, count }.text();
        let reports = reports.iter();
        reports
            .map(|(name, since, awaited, count)| ((*name).to_owned(), text(*since, *awaited, *count)))
            .collect()
    }

    #[test]
    fn a_successor_waits_for_every_replica_that_lives() {
        let begun = Instant::now();
        let since = UNIX_EPOCH + Duration::from_secs(1_000);
        let at = |seconds| begun + Duration::from_secs(seconds);
        let read = |others: &mut Others, reports: &[(&str, u64, usize, u64)], seconds| {
            others.read(&told(reports), "us", at(seconds));
        };
        let mut others = Others::default();
        let awaited =
            |others: &Others, after| others.awaited(since, since + Duration::from_secs(after), at(after));
        assert_eq!(awaited(&others, 19), 1, "somebody may not have spoken yet");
        assert_eq!(awaited(&others, 20), 0, "there is nobody else");
        read(&mut others, &[("us", 1_000, 9, 1), ("b", 1_000, 2, 1), ("c", 900, 0, 1)], 10);
        assert_eq!(awaited(&others, 20), 3, "two proxies of b, and c has not heard of it");
        read(&mut others, &[("b", 1_000, 0, 2), ("c", 900, 0, 1)], 20);
        assert_eq!(awaited(&others, 39), 1, "c");
        assert_eq!(awaited(&others, 41), 0, "c is gone");
        read(&mut others, &[("c", 1_000, 4, 2)], 41);
        assert_eq!(awaited(&others, 42), 4, "c is back");
    }
}
