//! Chaos, planned and judged: what is done to a mesh and when is a function of a seed alone, so that it can be done again;
//! and of everything that went wrong meanwhile this says which of it what was done may be the cause of.

use std::fmt;

use crate::traffic::Trouble;

/// A part of a mesh that is a process; the number is the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The controller.
    Ctrl,
    /// The redirecting role of an agent.
    Redirect(u8),
    /// The proxying role of an agent.
    Proxy(u8),
}

/// Something that is done to a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// SIGKILL.
    Kill(Part),
    /// SIGTERM.
    Term(Part),
    /// SIGSTOP, and SIGCONT so many milliseconds later.
    Pause(Part, u64),
    /// SIGHUP of a redirecting role: another proxy in the place of its own.
    Replace(u8),
    /// `lateen upgrade`: other processes in the place of all.
    Upgrade,
    /// The label of the pods that join and leave is changed.
    Label,
    /// The policy of the pod that may be refused is changed.
    Policy,
    /// The pod that comes and goes does.
    Recreate,
    /// The link from a node to the other delays and loses packets for some time.
    Link {
        /// Its node.
        node: u8,
        /// Milliseconds of delay.
        delay: u64,
        /// Of a thousand packets so many are lost.
        loss: u64,
        /// Milliseconds until it is well again.
        time: u64,
    },
}

/// Something to be done and when, in milliseconds from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: u64,
    /// What.
    pub what: What,
}

impl What {
    /// What it is counted as.
    pub fn kind(&self) -> String {
        let of = |part: &Part| match part {
            Part::Ctrl => "ctrl",
            Part::Redirect(_) => "redirect",
            Part::Proxy(_) => "proxy",
        };
        match self {
            Self::Kill(part) => format!("SIGKILL {}", of(part)),
            Self::Term(part) => format!("SIGTERM {}", of(part)),
            Self::Pause(part, _) => format!("pause {}", of(part)),
            Self::Replace(_) => "SIGHUP redirect".to_owned(),
            Self::Upgrade => "upgrade".to_owned(),
            Self::Label => "label".to_owned(),
            Self::Policy => "policy".to_owned(),
            Self::Recreate => "pod made again".to_owned(),
            Self::Link { .. } => "delay and loss".to_owned(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} ms {:?}", self.at, self.what)
    }
}

/// A small generator of numbers (xorshift64*): the same on every machine, and for ever.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        // Seeds that differ in one bit must not begin alike, and nought is no state.
        Self((seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From `low` to `high - 1`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + (self.next() >> 11) % (high - low).max(1)
    }
}

/// The shortest and the longest time between two events, in milliseconds.
const BETWEEN: (u64, u64) = (500, 4500);

/// What is done in so many milliseconds: everything at least once before anything a second time, then as it comes.
pub fn plan(seed: u64, time: u64) -> Vec<Event> {
    let mut random = Random::new(seed);
    let mut events = Vec::new();
    let mut bag = Vec::new();
    let mut at = 0;
    loop {
        at += random.within(BETWEEN.0, BETWEEN.1);
        if at >= time {
            return events;
        }
        if bag.is_empty() {
            bag = every(&mut random);
        }
        let chosen = random.within(0, bag.len() as u64);
        events.push(Event { at, what: bag.swap_remove(usize::try_from(chosen).unwrap_or_default()) });
    }
}

/// One of each kind, on a node that may be either.
fn every(random: &mut Random) -> Vec<What> {
    let mut node = || u8::try_from(random.within(1, 3)).unwrap_or(1);
    let (redirect, proxy) = ([(); 3].map(|()| Part::Redirect(node())), [(); 4].map(|()| Part::Proxy(node())));
    let (replaced, link) = (node(), node());
    let mut pause = || random.within(200, 4000);
    let pauses = [Part::Ctrl, redirect[2], proxy[2], proxy[3]].map(|part| What::Pause(part, pause()));
    let mut all = vec![
        What::Kill(Part::Ctrl),
        What::Kill(redirect[0]),
        What::Kill(proxy[0]),
        What::Term(Part::Ctrl),
        What::Term(redirect[1]),
        What::Term(proxy[1]),
        What::Replace(replaced),
        What::Replace(3 - replaced),
        What::Upgrade,
        What::Upgrade,
        What::Label,
        What::Label,
        What::Policy,
        What::Policy,
        What::Recreate,
    ];
    all.extend(pauses);
    for node in [link, 3 - link] {
        let (delay, loss) = (random.within(0, 80), random.within(0, 30));
        all.push(What::Link { node, delay, loss, time: random.within(2000, 8000) });
    }
    all
}

/// Something that was done, and between when and when, in milliseconds of the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// What.
    pub what: What,
    /// When it was begun.
    pub begun: u64,
    /// When it was over: the process continued, the link well again, the upgrade done.
    pub ended: u64,
}

/// What a connection has to do with what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Whether proxies of node 1 and of node 2 carry it.
    pub nodes: [bool; 2],
    /// Whether its server may be refused or gone at any time.
    pub fragile: bool,
}

/// How something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A long connection ended that should not have.
    Broken,
    /// A new connection could not be made, or was not answered.
    Failed,
    /// An answer took long.
    Slow,
}

/// How long after a proxy was killed a connection may show that it was carried by it, in milliseconds.
const SHOWS: u64 = 10_000;
/// How long connections may take to end after SIGTERM (`TERMINATION_GRACE_PERIOD`), in milliseconds.
const DRAIN: u64 = 6_000;
/// How long new connections may fail after a proxy was killed, in milliseconds; R4 is measured by `outage.rs`.
const PROXY_BACK: u64 = 3_000;
/// The same for the redirecting role, which takes its proxy with it and waits before it is started again if it has not been up for
/// long.
const REDIRECT_BACK: u64 = 8_000;
/// How long answers may be slow after anything was done, in milliseconds.
const RECOVERS: u64 = 5_000;

/// What was done that may be the cause of it; `None` is a defect.
///
/// A byte that is not the one sent, or an answer that never comes, is one always, whatever was done; but for a pod that
/// was gone.
pub fn cause<'a>(done: &'a [Done], flow: Flow, wrong: Wrong, trouble: &Trouble) -> Option<&'a Done> {
    if trouble.what.contains("not what was sent") || trouble.what.contains("after the last answer") {
        return None;
    }
    if trouble.what.contains("stuck") && !flow.fragile {
        return None;
    }
    let until = |done: &&Done| match (wrong, done.what) {
        (_, What::Policy | What::Recreate) => flow.fragile.then_some(45_000),
        (Wrong::Slow, _) => Some(RECOVERS),
        (_, What::Kill(part) | What::Term(part)) => {
            let (node, back) = match part {
                Part::Ctrl => return None,
                Part::Redirect(node) => (node, REDIRECT_BACK),
                Part::Proxy(node) => (node, PROXY_BACK),
            };
            // A proxy is told to end when the process that started it has ended, however that was.
            let drains = matches!(
                (wrong, done.what),
                (_, What::Term(_)) | (Wrong::Broken, What::Kill(Part::Redirect(_)))
            );
            let drain = if drains { DRAIN } else { 0 };
            let after = if wrong == Wrong::Broken { SHOWS + drain } else { back + drain };
            flow.nodes.get(usize::from(node) - 1).is_some_and(|carries| *carries).then_some(after)
        }
        // Pauses, changes of label, upgrades, a bad link: they may cost time, nothing else.
        _ => None,
    };
    // A connection may have been well for long before: of it only the end counts.
    let begun = if wrong == Wrong::Broken { trouble.ended } else { trouble.begun };
    done.iter().rev().find(|done| {
        until(done).is_some_and(|until| done.begun <= trouble.ended && begun <= done.ended + until)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Done, Flow, Part, What, Wrong, cause, plan};
    use crate::traffic::Trouble;

    #[test]
    fn a_plan_is_its_seed_s() {
        assert_eq!(plan(7, 600_000), plan(7, 600_000));
        assert_ne!(plan(7, 600_000), plan(8, 600_000));
        // A shorter one is the beginning of a longer one, so that what failed late can be told from what failed early.
        let (short, long) = (plan(7, 60_000), plan(7, 600_000));
        assert_eq!(short[..], long[..short.len()]);
    }

    #[test]
    fn a_plan_has_everything() {
        let kinds = |time| plan(1, time).iter().map(|event| event.what.kind()).collect::<BTreeSet<_>>();
        assert_eq!(kinds(60_000), kinds(600_000), "a minute is enough for each kind");
        assert_eq!(kinds(60_000).len(), 15);
        assert!(plan(1, 60_000).is_sorted_by_key(|event| event.at));
    }

    #[test]
    fn only_what_carried_a_connection_can_break_it() {
        let both = Flow { nodes: [true, true], fragile: false };
        let first = Flow { nodes: [true, false], fragile: false };
        let nobody = Flow { nodes: [false, false], fragile: false };
        let fragile = Flow { nodes: [true, true], fragile: true };
        let kill = |node| What::Kill(Part::Proxy(node));
        let cases = [
            (kill(2), both, Wrong::Broken, "reset", 1, true),
            (kill(2), both, Wrong::Broken, "stuck", 1, false),
            (kill(2), both, Wrong::Broken, "the answer is not what was sent", 1, false),
            (kill(2), both, Wrong::Broken, "reset", 11, false),
            (What::Kill(Part::Redirect(2)), both, Wrong::Broken, "reset", 15, true),
            (What::Kill(Part::Redirect(2)), both, Wrong::Failed, "reset", 9, false),
            (kill(2), both, Wrong::Failed, "reset", 4, false),
            (kill(2), first, Wrong::Broken, "reset", 1, false),
            (kill(1), first, Wrong::Failed, "reset", 1, true),
            (kill(1), nobody, Wrong::Failed, "reset", 1, false),
            (What::Kill(Part::Ctrl), both, Wrong::Broken, "reset", 1, false),
            (What::Upgrade, both, Wrong::Broken, "reset", 1, false),
            (What::Replace(1), both, Wrong::Failed, "reset", 1, false),
            (What::Label, both, Wrong::Failed, "reset", 1, false),
            (What::Upgrade, both, Wrong::Slow, "late", 1, true),
            (What::Upgrade, both, Wrong::Slow, "late", 6, false),
            (What::Policy, both, Wrong::Broken, "reset", 1, false),
            (What::Policy, fragile, Wrong::Broken, "reset", 1, true),
            (What::Recreate, fragile, Wrong::Broken, "stuck", 31, true),
        ];
        for (what, flow, wrong, text, after, expected) in cases {
            let at = 100_000 + after * 1000;
            let begun = if wrong == Wrong::Broken { 0 } else { at };
            let trouble = Trouble { begun, ended: at, target: String::new(), what: text.to_owned() };
            let done = [Done { what, begun: 99_000, ended: 100_000 }];
            let found = cause(&done, flow, wrong, &trouble).is_some();
            assert_eq!(found, expected, "{what:?} {flow:?} {wrong:?} {text} after {after} s");
        }
        let before = Trouble { begun: 0, ended: 1, target: String::new(), what: "reset".to_owned() };
        let done = [Done { what: kill(1), begun: 2, ended: 2 }];
        assert!(cause(&done, both, Wrong::Broken, &before).is_none(), "no cause comes after what it caused");
    }
}
