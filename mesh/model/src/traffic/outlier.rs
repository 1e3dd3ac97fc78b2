//! Who is left out for a while because it fails: Envoy's outlier detection, with its ejection arithmetic.
//!
//! Each endpoint has a [`Monitor`], which every thread feeds with what became of its requests and which says when one of
//! the thresholds is reached. Whether the endpoint is then ejected, for how long, and when it returns is up to the one
//! [`Detector`] of the destination. Both are told the time. They stay when the settings are replaced: these are passed in
//! each time.
//!
//! The rules are those of Envoy's documentation ("Outlier detection": ejection algorithm, detection types) and of
//! `outlier_detection_impl.cc`, as far as Istio turns them on: ejection by success rate and failure percentage is off.

mod monitor;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::monitor::{Monitor, Outcome};
use super::OutlierDetection;
use crate::address::Str;

/// Which threshold an endpoint has reached. Its text names the field of the DestinationRule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EjectionCause {
    /// `consecutive5xxErrors` errors in a row.
    Consecutive5xx,
    /// `consecutiveGatewayErrors` times 502, 503 or 504 in a row.
    ConsecutiveGateway,
    /// Not to be reached `consecutiveLocalOriginFailures` times in a row.
    ConsecutiveLocalOrigin,
}

impl EjectionCause {
    /// The field of `outlierDetection` whose threshold it is.
    pub fn field(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive5xxErrors",
            Self::ConsecutiveGateway => "consecutiveGatewayErrors",
            Self::ConsecutiveLocalOrigin => "consecutiveLocalOriginFailures",
        }
    }

    /// What is counted in Envoy's name `ejections_enforced_` of this (`outlier_detection.` statistics).
    pub fn statistic(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGateway => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOrigin => "consecutive_local_origin_failure",
        }
    }
}

impl fmt::Display for EjectionCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outlierDetection.{}", self.field())
    }
}

/// What became of an endpoint, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is left out from now on.
    Ejected {
        /// Its name.
        endpoint: Str,
        /// The threshold that it has reached.
        cause: EjectionCause,
        /// The how manyth time this is.
        times: u32,
        /// For how long, or until the first sweep after that.
        duration: Duration,
    },
    /// It would be left out, but so many are already that no more may be (`maxEjectionPercent`).
    Spared {
        /// Its name.
        endpoint: Str,
        /// The threshold that it has reached.
        cause: EjectionCause,
        /// So many are left out.
        ejected: usize,
        /// So many there are.
        total: usize,
    },
    /// Its time is over: it takes requests again.
    Returned {
        /// Its name.
        endpoint: Str,
        /// What it was left out for.
        cause: EjectionCause,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ejected { endpoint, cause, times, duration } => {
                write!(f, "{endpoint} ejected for {duration:?} by {cause}, time {times}")
            }
            Self::Spared { endpoint, cause, ejected, total } => write!(
                f,
                "{endpoint} not ejected by {cause}: {ejected} of {total} are, and \
                 outlierDetection.maxEjectionPercent allows no more"
            ),
            Self::Returned { endpoint, cause } => write!(f, "{endpoint} returned, was ejected by {cause}"),
        }
    }
}

/// Who of a destination is ejected. It knows only those that are or lately were: what it costs does not grow with the
/// number of endpoints.
#[derive(Debug)]
pub struct Detector {
    records: BTreeMap<Str, Record>,
    ejected: usize,
    last_sweep: Duration,
}

#[derive(Debug)]
struct Record {
    monitor: Arc<Monitor>,
    cause: EjectionCause,
    /// By how much the base time is multiplied: grows with each ejection, shrinks with each sweep in between.
    multiplier: u32,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    EjectedAt(Duration),
    Returned,
}

impl Detector {
    /// One of a destination that begins now: the first sweep is an interval from now.
    pub fn new(now: Duration) -> Self {
        Self { records: BTreeMap::new(), ejected: 0, last_sweep: now }
    }

    /// How many are ejected.
    pub fn ejected(&self) -> usize {
        self.ejected
    }

    /// Ejects an endpoint whose monitor says that it has reached a threshold, if so many may be. `None`: it is ejected
    /// already.
    ///
    /// It may be if it and those already ejected are at most `maxEjectionPercent` of all endpoints, or if it is the only
    /// one and one always may be. The share is of all endpoints, not of those of one locality.
    pub fn eject(
        &mut self,
        endpoint: &Str,
        monitor: &Arc<Monitor>,
        cause: EjectionCause,
        total: usize,
        settings: &OutlierDetection,
        now: Duration,
    ) -> Option<Event> {
        if monitor.is_ejected() {
            return None;
        }
        if !self.may_eject(total, settings) {
            let endpoint = endpoint.clone();
            return Some(Event::Spared { endpoint, cause, ejected: self.ejected, total });
        }
        let multiplier = self.records.get(endpoint).map_or(0, |record| record.multiplier);
        let record = Record {
            monitor: monitor.clone(),
            cause,
            multiplier: grown(multiplier, settings),
            state: State::EjectedAt(now),
        };
        let duration = record.duration(settings);
        self.records.insert(endpoint.clone(), record);
        self.ejected += 1;
        let times = monitor.eject();
        Some(Event::Ejected { endpoint: endpoint.clone(), cause, times, duration })
    }

    fn may_eject(&self, total: usize, settings: &OutlierDetection) -> bool {
        if self.ejected == 0 && settings.always_eject_one {
            return true;
        }
        let most = u128::from(settings.max_ejection_percent.min(100));
        100 * (self.ejected as u128 + 1) <= most * total as u128
    }

    /// When the next sweep is due.
    pub fn next_sweep(&self, settings: &OutlierDetection) -> Duration {
        self.last_sweep.saturating_add(settings.interval)
    }

    /// Lets those return whose time is over. To be called when [`next_sweep`](Self::next_sweep) is due; earlier it does
    /// nothing.
    ///
    /// An endpoint that came back with an earlier sweep, so an interval ago or more, has its multiplier lowered by one.
    pub fn sweep(&mut self, settings: &OutlierDetection, now: Duration) -> Vec<Event> {
        if now < self.next_sweep(settings) {
            return Vec::new();
        }
        self.last_sweep = now;
        let mut events = Vec::new();
        for (endpoint, record) in &mut self.records {
            match record.state {
                State::EjectedAt(then) if now.saturating_sub(then) >= record.duration(settings) => {
                    record.give_back();
                    events.push(Event::Returned { endpoint: endpoint.clone(), cause: record.cause });
                }
                State::EjectedAt(_) => {}
                State::Returned => record.multiplier = record.multiplier.saturating_sub(1),
            }
        }
        self.ejected -= events.len();
        // Who is ejected has a multiplier of one at least.
        self.records.retain(|_, record| record.multiplier > 0);
        events
    }

    /// An endpoint is gone, and nothing of it is kept: what comes under this name later is another.
    pub fn remove(&mut self, endpoint: &str) {
        if let Some(record) = self.records.remove(endpoint)
            && matches!(record.state, State::EjectedAt(_))
        {
            self.ejected -= 1;
        }
    }

    /// Outlier detection is no longer wanted: all return.
    pub fn clear(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (endpoint, mut record) in std::mem::take(&mut self.records) {
            if matches!(record.state, State::EjectedAt(_)) {
                record.give_back();
                events.push(Event::Returned { endpoint, cause: record.cause });
            }
        }
        self.ejected = 0;
        events
    }
}

impl Record {
    /// How long an ejection lasts: the base time as often as the multiplier says, but not longer than the longest.
    fn duration(&self, settings: &OutlierDetection) -> Duration {
        settings.base_ejection_time.saturating_mul(self.multiplier).min(longest(settings))
    }

    fn give_back(&mut self) {
        self.state = State::Returned;
        self.monitor.give_back();
    }
}

/// The multiplier after one more ejection. It does not grow further than it takes to reach the longest time, so that it
/// also shrinks from there.
fn grown(multiplier: u32, settings: &OutlierDetection) -> u32 {
    let base = settings.base_ejection_time;
    let grows = base.saturating_mul(multiplier) < longest(settings).saturating_add(base);
    if grows || multiplier == 0 { multiplier.saturating_add(1) } else { multiplier }
}

fn longest(settings: &OutlierDetection) -> Duration {
    OutlierDetection::LONGEST_EJECTION.max(settings.base_ejection_time)
}

#[cfg(test)]
mod tests;
