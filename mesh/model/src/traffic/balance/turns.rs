//! Whose turn it is among the endpoints of a priority.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::edf::{Edf, wait};
use super::endpoint::State;
use super::plan::{Host, Plan, Priority, Source};
use crate::select::Draw;
use crate::traffic::{Algorithm, Warmup};

/// Whose turn it is in a priority.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Which source is next; only where there are several.
    sources: Option<Edf>,
    /// One a source.
    rounds: Vec<Round>,
}

/// How long endpoints had still to wait for their turn by an earlier plan, which must still be there: they are known by
/// where what stays of them is kept.
pub(super) type Waits = std::collections::HashMap<*const State, f64, RandomState>;

/// Whose turn it is in a source.
#[derive(Debug, Default)]
struct Round {
    /// Where a plain round is; `None` before it has begun.
    place: Option<usize>,
    /// Turns by weight, where weights differ.
    by_weight: Option<Edf>,
}

impl Turns {
    /// Lets go of a plan, and notes how long each endpoint had still to wait. A plain round keeps its place.
    pub(super) fn leave(&mut self, priority: &Priority, into: &mut Waits) {
        self.sources = None;
        for (source, round) in priority.sources.iter().zip(&mut self.rounds) {
            let Some(edf) = round.by_weight.take() else { continue };
            into.extend(edf.waits().filter_map(|(number, wait)| {
                let host = source.hosts.get(number as usize)?;
                Some((Arc::as_ptr(&host.state), wait))
            }));
        }
    }

    /// Makes ready for a plan.
    pub(super) fn enter(
        &mut self,
        plan: &Plan,
        priority: &Priority,
        kept: &Waits,
        now: Duration,
        draw: Draw<'_>,
    ) {
        if priority.table.is_some() {
            self.rounds = Vec::new();
            return;
        }
        self.rounds.resize_with(priority.sources.len(), Round::default);
        if priority.sources.len() > 1 {
            let waits = priority.sources.iter().map(|source| first_wait(source.weight, draw));
            self.sources = Some(Edf::new(waits));
        }
        let by_turns = matches!(plan.algorithm, Algorithm::RoundRobin | Algorithm::LeastRequest);
        let warming = plan.is_warming(now);
        for (source, round) in priority.sources.iter().zip(&mut self.rounds) {
            if !by_turns || source.hosts.len() < 2 || source.equal && !warming {
                continue;
            }
            let waits = source.hosts.iter().map(|host| {
                let weight = weight(plan, host, now);
                // Longer than from one turn to the next nobody waits.
                let kept = kept.get(&Arc::as_ptr(&host.state)).map(|kept| kept.min(wait(weight)));
                kept.unwrap_or_else(|| first_wait(weight, draw))
            });
            round.by_weight = Some(Edf::new(waits));
        }
    }

    /// Whose turn it is.
    pub(super) fn next<'a>(
        &mut self,
        plan: &Plan,
        priority: &'a Priority,
        now: Duration,
        draw: Draw<'_>,
    ) -> Option<&'a Host> {
        let which = match &mut self.sources {
            Some(sources) => sources.next(|number| priority.sources[number as usize].weight)? as usize,
            None => 0,
        };
        let (source, round) = (priority.sources.get(which)?, self.rounds.get_mut(which)?);
        if let Some(edf) = &mut round.by_weight {
            let number = edf.next(|number| weight(plan, &source.hosts[number as usize], now))?;
            return source.hosts.get(number as usize);
        }
        match plan.algorithm {
            Algorithm::RoundRobin => round.next_of(source, draw),
            Algorithm::LeastRequest => less_busy(source, draw),
            _ => any(source, draw),
        }
    }
}

impl Round {
    fn next_of<'a>(&mut self, source: &'a Source, draw: Draw<'_>) -> Option<&'a Host> {
        let count = bound(source)?;
        let place = self.place.unwrap_or_else(|| draw(count) as usize) % source.hosts.len();
        self.place = Some(place + 1);
        source.hosts.get(place)
    }
}

/// The less busy of two that are drawn; it may be the same one twice.
fn less_busy<'a>(source: &'a Source, draw: Draw<'_>) -> Option<&'a Host> {
    let (one, other) = (any(source, draw)?, any(source, draw)?);
    let busy = |host: &Host| host.state.active.load(Relaxed);
    Some(if busy(other) < busy(one) { other } else { one })
}

fn any<'a>(source: &'a Source, draw: Draw<'_>) -> Option<&'a Host> {
    source.hosts.get(draw(bound(source)?) as usize)
}

fn bound(source: &Source) -> Option<u32> {
    Some(u32::try_from(source.hosts.len()).unwrap_or(u32::MAX)).filter(|count| *count > 0)
}

/// What an endpoint weighs now: for least request its weight, divided by one more than the requests under way to it; less
/// while it is warming up.
fn weight(plan: &Plan, host: &Host, now: Duration) -> f64 {
    let whole = f64::from(host.weight);
    let busy = match plan.algorithm {
        Algorithm::LeastRequest => f64::from(host.state.active.load(Relaxed)) + 1.0,
        _ => 1.0,
    };
    whole / busy * plan.warmup.map_or(1.0, |warmup| warmed(&warmup, &host.state, now))
}

/// No endpoint is given less of its share: its next turn would be so far away that it could be warm long before.
const LEAST_SHARE: f64 = 0.01;

/// The share of its weight that an endpoint is given: that of the warm-up gone by, to the power of 1/aggression.
fn warmed(warmup: &Warmup, state: &State, now: Duration) -> f64 {
    let here = now.saturating_sub(state.since());
    if here >= warmup.duration {
        return 1.0;
    }
    let gone = here.as_secs_f64().max(0.001) / warmup.duration.as_secs_f64();
    // What is no number, or makes no sense, is even growth, as in Envoy.
    let aggression = if warmup.aggression > 0.0 { warmup.aggression } else { 1.0 };
    let least = (warmup.minimum_percent / 100.0).max(LEAST_SHARE);
    gone.powf(1.0 / aggression).max(least).min(1.0)
}

/// How long something new waits for its first turn: not longer than for any other, at random.
fn first_wait(weight: f64, draw: Draw<'_>) -> f64 {
    const PARTS: u32 = 1 << 16;
    wait(weight) * f64::from(draw(PARTS) + 1) / f64::from(PARTS)
}

#[cfg(test)]
mod tests;
