//! How fast a caller is issued certificates: a burst as a node needs that starts with all of its pods, then a few a
//! second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::authorize::Caller;

/// Callers that are remembered before those are forgotten who have their whole burst again: as many as have tokens.
const MOST_CALLERS: usize = 16 * 1024;

/// How fast.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// At once. A node of 250 pods asks for as many when it starts, and again each time its agent starts anew without
    /// what it had.
    pub burst: u32,
    /// From then on, each second. Renewal needs far less: twice a day for each pod.
    pub each_second: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { burst: 1_000, each_second: 10 }
    }
}

/// What each caller has left.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: Rate,
    callers: Mutex<HashMap<Caller, Left>>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    certificates: f64,
    at: Instant,
}

impl Rate {
    /// What is left now of what was left then.
    fn refilled(self, left: Left, now: Instant) -> Left {
        let more = now.saturating_duration_since(left.at).as_secs_f64() * f64::from(self.each_second);
        Left { certificates: (left.certificates + more).min(f64::from(self.burst)), at: now }
    }
}

impl Allowance {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, callers: Mutex::default() }
    }

    /// How fast.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one certificate; how long until there is one, if none is left.
    pub(super) fn take(&self, caller: &Caller, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MOST_CALLERS && !callers.contains_key(caller) {
            callers.retain(|_, left| rate.refilled(*left, now).certificates < f64::from(rate.burst));
        }
        let all = Left { certificates: f64::from(rate.burst), at: now };
        let left = callers.entry(caller.clone()).or_insert(all);
        *left = rate.refilled(*left, now);
        if left.certificates < 1.0 {
            return Err(Duration::from_secs_f64(
                (1.0 - left.certificates) / f64::from(rate.each_second.max(1)),
            ));
        }
        left.certificates -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_few_a_second_for_each_caller() {
        let allowance = Allowance::new(Rate { burst: 5, each_second: 2 });
        let began = Instant::now();
        let node = |name: &str| Caller::Node(name.into());
        let took = |name: &str, after: f64, times: usize| {
            let now = began + Duration::from_secs_f64(after);
            (0..times).take_while(|_| allowance.take(&node(name), now).is_ok()).count()
        };
        assert_eq!(took("one", 0.0, 9), 5, "the burst");
        assert_eq!(took("other", 0.0, 9), 5, "another has its own");
        assert_eq!(allowance.take(&node("one"), began), Err(Duration::from_millis(500)));
        assert_eq!(took("one", 0.5, 9), 1);
        assert_eq!(took("one", 2.0, 9), 3);
        assert_eq!(took("one", 900.0, 9), 5, "never more than the burst");
    }

    #[test]
    fn a_node_of_many_pods_starts_at_once_and_again() {
        let allowance = Allowance::new(Rate::default());
        let now = Instant::now();
        let node = Caller::Node("node-1".into());
        assert!((0..3 * 250).all(|_| allowance.take(&node, now).is_ok()));
        assert!((0..1_000_000).any(|_| allowance.take(&node, now).is_err()));
    }

    #[test]
    fn who_has_his_whole_burst_again_is_forgotten() {
        let allowance = Allowance::new(Rate::default());
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let node = |number: usize| Caller::Node(format!("node-{number}").into());
        assert!((0..2 * MOST_CALLERS).all(|number| allowance.take(&node(number), now).is_ok()));
        assert!(allowance.take(&node(usize::MAX), later).is_ok());
        assert_eq!(allowance.callers.lock().expect("not poisoned").len(), 1);
    }
}
