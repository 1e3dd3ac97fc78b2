//! When roots change: the pure decision. A change of roots has two waits. First the new root is only distributed, beside
//! the old one, until everybody who has to verify what it will sign has said that he trusts it; then it signs, and the
//! old one stays trusted until the last certificate it signed has ended.
//!
//! ```text
//! stable ─ begin ─► distributing (old signs, both trusted) ─ switch ─► retiring (new signs, both trusted) ─ drop ─► stable
//! ```

use std::time::{Duration, SystemTime};

use identity::bundle::Validity;

/// A successor that is trusted already and signs nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Successor {
    /// Since when it is distributed.
    pub since: SystemTime,
    /// How many of those that have to trust it have not said so.
    pub awaited: usize,
}

/// What is known when the question is asked.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The time.
    pub now: SystemTime,
    /// The span of a root made here; nothing where people bring another.
    pub own_root: Option<Validity>,
    /// The share of a root's life, in percent, that is left when its successor is made.
    pub grace_percent: u32,
    /// The successor.
    pub successor: Option<Successor>,
    /// How long a successor waits at most.
    pub patience: Duration,
    /// By retired authority, when the last certificate it signed ends.
    pub retired: Vec<SystemTime>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A successor is to be made: the root's time is nearly over.
    Begin,
    /// The successor signs from now on: everybody trusts it.
    Switch,
    /// The successor signs from now on: somebody has not said that he trusts it, and time is up.
    SwitchAnyway,
    /// The retired authority of this place is trusted no more.
    Drop(usize),
}

/// What is to be done now, one step at a time: ask again after each.
pub fn step(situation: &Situation) -> Option<Step> {
    let Situation { now, own_root, grace_percent, successor, patience, retired } = situation;
    if let Some(place) = retired.iter().position(|until| until <= now) {
        return Some(Step::Drop(place));
    }
    match successor {
        Some(successor) if successor.awaited == 0 => Some(Step::Switch),
        Some(successor) if *now >= successor.since + *patience => Some(Step::SwitchAnyway),
        Some(_) => None,
        None => own_root.filter(|root| is_near_its_end(*root, *grace_percent, *now)).map(|_| Step::Begin),
    }
}

/// Whether no more than so many percent of a life are left.
pub fn is_near_its_end(life: Validity, percent: u32, now: SystemTime) -> bool {
    let whole = life.not_after.duration_since(life.not_before).unwrap_or_default();
    let left = life.not_after.duration_since(now).unwrap_or_default();
    left <= whole * percent.min(100) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A root from 0 to 1,000 that is succeeded with a fifth of its life left; patience is 100.
    fn situation(now: u64) -> Situation {
        Situation {
            now: at(now),
            own_root: Some(Validity { not_before: at(0), not_after: at(1_000) }),
            grace_percent: 20,
            successor: None,
            patience: Duration::from_secs(100),
            retired: Vec::new(),
        }
    }

    #[test]
    fn decides_by_table() {
        let successor = |since, awaited| Some(Successor { since: at(since), awaited });
        let with = |now, successor, retired: &[u64]| Situation {
            successor,
            retired: retired.iter().map(|until| at(*until)).collect(),
            ..situation(now)
        };
        for (about, situation, expected) in [
            ("a young root", situation(100), None),
            ("just before its last fifth", situation(799), None),
            ("in its last fifth", situation(800), Some(Step::Begin)),
            ("after its end", situation(2_000), Some(Step::Begin)),
            ("brought by people", Situation { own_root: None, ..situation(999) }, None),
            ("no second successor", with(900, successor(890, 1), &[]), None),
            ("all trust it", with(10, successor(10, 0), &[]), Some(Step::Switch)),
            ("one does not yet", with(109, successor(10, 1), &[]), None),
            ("time is up", with(110, successor(10, 1), &[]), Some(Step::SwitchAnyway)),
            ("time is up, but all trust it", with(999, successor(10, 0), &[]), Some(Step::Switch)),
            ("the clock went back", with(5, successor(10, 1), &[]), None),
            ("the old one still counts", with(10, None, &[11]), None),
            ("the old one has ended", with(11, None, &[11]), Some(Step::Drop(0))),
            ("the second of three", with(11, None, &[12, 11, 9]), Some(Step::Drop(1))),
            ("what ended goes before what comes", with(900, None, &[899]), Some(Step::Drop(0))),
            ("a successor waits while an old one retires", with(20, successor(10, 2), &[30]), None),
            ("and signs though it still does", with(20, successor(10, 0), &[30]), Some(Step::Switch)),
        ] {
            assert_eq!(step(&situation), expected, "{about}");
        }
    }

    /// Steps are taken until there is none: from any situation that comes to an end.
    #[test]
    fn a_whole_change_by_steps() {
        let mut now = situation(800);
        assert_eq!(step(&now), Some(Step::Begin));
        now.successor = Some(Successor { since: at(800), awaited: 2 });
        assert_eq!(step(&now), None);
        now.successor = Some(Successor { since: at(800), awaited: 0 });
        assert_eq!(step(&now), Some(Step::Switch));
        now.successor = None;
        now.own_root = Some(Validity { not_before: at(800), not_after: at(1_800) });
        now.retired = vec![at(900)];
        assert_eq!(step(&now), None);
        now.now = at(900);
        assert_eq!(step(&now), Some(Step::Drop(0)));
        now.retired.clear();
        assert_eq!(step(&now), None);
    }
}
