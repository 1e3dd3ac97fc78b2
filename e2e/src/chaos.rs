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
    /// Whether packets are lost meanwhile.
    fn loses(self) -> bool {
        matches!(self, Self::Link { loss: 1.., .. })
    }

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
    /// Whether it goes from one node to the other.
    pub crosses: bool,
    /// What its ends go through.
    pub fate: Fate,
}

/// What the ends of a connection go through while all else is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Steady,
    /// They join and leave the mesh ([`What::Label`]).
    Moving,
    /// Its server is closed to it and open again ([`What::Policy`]).
    Barred,
    /// Its server goes and is made again ([`What::Recreate`]).
    Fleeting,
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
/// How long answers may be slow after proxies were replaced: nobody's connection ends, but the new process starts and all
/// connections move, on machines with two cores beside everything else. Milliseconds, like all that follow.
const MOVES: u64 = 2_000;
/// The same after a process was continued: what came meanwhile waits in its sockets, nothing was lost.
const CATCHES_UP: u64 = 1_500;
/// The same after the link was bad: what was lost last, perhaps the first packet of a connection and its repetition, is
/// repeated after one second and two more.
const REPEATS: u64 = 3_500;
/// The same for pods that have joined or left: a SYN that came between may be repeated once, and who joins waits for its
/// certificate.
const JOINS: u64 = 3_000;
/// How long the controller is away after it was killed; it matters to those only of whom something is changed.
const CTRL_BACK: u64 = 5_000;
/// How long a policy that is taken back may still be in force: until the controller is there and has told all.
const SETTLES: u64 = 10_000;
/// How long a pod that is made again may take to answer: also while the redirecting role, without which none starts, is
/// away.
const MADE: u64 = 10_000;
/// When a connection to the pod before ends whose CONNECT nobody answers any more: its last word was lost.
const GIVEN_UP: u64 = 16_000;
/// How long the programs in the pods wait for an answer before they call it stuck.
const STUCK: u64 = 30_000;

/// What was done that may be the cause of it; `None` is a defect.
///
/// A byte that is not the one sent, or an answer that never comes, is one always, whatever was done; but for a pod that
/// was gone.
pub fn cause<'a>(done: &'a [Done], flow: Flow, wrong: Wrong, trouble: &Trouble) -> Option<&'a Done> {
    if trouble.what.contains("not what was sent") || trouble.what.contains("after the last answer") {
        return None;
    }
    let stuck = trouble.what.contains("stuck");
    // The word of an end may be lost on the way: a reset is said once. Tunnels notice that by their pings.
    let lossy = |done: &Done| {
        let plain = flow.crosses && flow.nodes != [true, true];
        done.what.loses() && plain && done.begun <= trouble.ended && done.ended + REPEATS >= trouble.begun
    };
    if stuck && flow.fate != Fate::Fleeting && !done.iter().any(lossy) {
        return None;
    }
    // A connection may have been well for long before: of it only the end counts.
    let begun = match wrong {
        Wrong::Broken if stuck => trouble.ended.saturating_sub(STUCK).max(trouble.begun),
        Wrong::Broken => trouble.ended,
        Wrong::Failed | Wrong::Slow => trouble.begun,
    };
    // What came later first, since it is said at once: what until when is excused looks through all that was done.
    let explains = |at: usize| {
        done[at].begun <= trouble.ended
            && excused_until(done, at, flow, wrong).is_some_and(|until| begun <= until)
    };
    (0..done.len()).rev().find(|at| explains(*at)).map(|at| &done[at])
}

/// Until when that may go wrong with such a connection because of what was done; `None` where it never may.
fn excused_until(all: &[Done], at: usize, flow: Flow, wrong: Wrong) -> Option<u64> {
    let Done { what, ended, .. } = all[at];
    let touches = |node: u8| flow.nodes.get(usize::from(node) - 1).is_some_and(|carries| *carries);
    let slow = |excused: bool, time| (wrong == Wrong::Slow && excused).then_some(ended + time);
    match what {
        What::Policy if flow.fate == Fate::Barred => denied_until(all, at),
        What::Recreate if flow.fate == Fate::Fleeting && wrong == Wrong::Broken => Some(ended + GIVEN_UP),
        What::Recreate if flow.fate == Fate::Fleeting => Some(ended + MADE),
        What::Policy | What::Recreate => None,
        What::Kill(Part::Ctrl) | What::Term(Part::Ctrl) | What::Pause(Part::Ctrl, _) => {
            slow(flow.fate != Fate::Steady, CTRL_BACK)
        }
        // It hands over to another, unless something keeps that from coming or itself from letting go.
        What::Term(Part::Proxy(node)) if !hindered(all, at, node) => slow(touches(node), MOVES),
        What::Kill(part @ Part::Redirect(node))
        | What::Term(part @ Part::Redirect(node))
        | What::Kill(part @ Part::Proxy(node))
        | What::Term(part @ Part::Proxy(node)) => touches(node).then(|| broken_until(all, at, part, wrong)),
        What::Pause(Part::Proxy(node), _) => slow(touches(node), CATCHES_UP),
        // It carries nothing; but who joins waits for it.
        What::Pause(Part::Redirect(node), _) => slow(touches(node) && flow.fate != Fate::Steady, CATCHES_UP),
        What::Replace(node) => slow(touches(node), MOVES),
        What::Upgrade => slow(flow.nodes != [false; 2], MOVES),
        What::Label if wrong == Wrong::Failed => half_open(all, at, flow).then_some(ended + JOINS),
        What::Label => slow(flow.fate == Fate::Moving, JOINS),
        What::Link { .. } => slow(flow.crosses, REPEATS),
    }
}

/// Whether a connection may have been half open when a pod joined or left: the application has begun it, the answer is lost
/// on the way, and the client's repetition comes to the proxy, which knows nothing of it (or the other way round).
fn half_open(all: &[Done], at: usize, flow: Flow) -> bool {
    let label = &all[at];
    let lossy = |done: &Done| {
        done.what.loses() && done.begun <= label.ended + JOINS && done.ended + REPEATS >= label.begun
    };
    flow.fate == Fate::Moving && flow.crosses && all.iter().any(lossy)
}

/// Whether something else was done to the agent of a node while its proxy, told to end, had time to hand over.
fn hindered(all: &[Done], at: usize, node: u8) -> bool {
    let term = &all[at];
    let (from, until) = (term.begun.saturating_sub(REDIRECT_BACK), term.ended + DRAIN);
    all.iter().enumerate().any(|(other, done)| {
        let agent = match done.what {
            What::Kill(part) | What::Term(part) | What::Pause(part, _) => {
                part == Part::Redirect(node) || part == Part::Proxy(node)
            }
            What::Replace(replaced) => replaced == node,
            What::Upgrade => true,
            _ => false,
        };
        other != at && agent && done.begun <= until && done.ended >= from
    })
}

/// The policy is changed from allowing to denying and back in turns: only the former explains anything, until some time
/// after the latter.
fn denied_until(all: &[Done], at: usize) -> Option<u64> {
    let is_policy = |done: &&Done| done.what == What::Policy;
    let denies = all[..at].iter().filter(is_policy).count() % 2 == 0;
    let allowed = all[at + 1..].iter().find(is_policy).map_or(u64::MAX, |done| done.ended + SETTLES);
    denies.then_some(allowed)
}

/// Until when a part that was ended may be missed.
fn broken_until(all: &[Done], at: usize, part: Part, wrong: Wrong) -> u64 {
    let Done { what, begun, ended } = all[at];
    let term = matches!(what, What::Term(_));
    // A proxy is told to end when the process that started it has ended, however that was.
    let drains = term || (wrong == Wrong::Broken && matches!(part, Part::Redirect(_)));
    let drain = if drains { DRAIN } else { 0 };
    let back = match (wrong, part) {
        (Wrong::Broken, _) => SHOWS,
        (_, Part::Redirect(_)) => REDIRECT_BACK,
        _ => PROXY_BACK,
    };
    let until = ended + drain + back;
    // Nobody starts another while who does is paused.
    let paused = |done: &&Done| match (done.what, part) {
        (What::Pause(Part::Redirect(paused), _), Part::Proxy(node)) => {
            paused == node && done.begun <= until && done.ended >= begun
        }
        _ => false,
    };
    let held_up = all.iter().filter(paused).map(|done| done.ended + back).max();
    until.max(held_up.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Done, Fate, Flow, Part, What, Wrong, cause, plan};
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
        let flow = |nodes, fate| Flow { nodes, crosses: nodes != [true, false], fate };
        let both = flow([true, true], Fate::Steady);
        let first = flow([true, false], Fate::Steady);
        let nobody = flow([false, false], Fate::Steady);
        let moving = flow([true, true], Fate::Moving);
        let barred = flow([true, true], Fate::Barred);
        let fleeting = flow([true, true], Fate::Fleeting);
        let kill = |node| What::Kill(Part::Proxy(node));
        let link = What::Link { node: 2, delay: 10, loss: 10, time: 0 };
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
            // Slow: only what is touched, and not for long.
            (What::Upgrade, both, Wrong::Slow, "late", 1, true),
            (What::Upgrade, both, Wrong::Slow, "late", 3, false),
            (What::Upgrade, nobody, Wrong::Slow, "late", 1, false),
            (What::Replace(2), both, Wrong::Slow, "late", 1, true),
            (What::Replace(2), first, Wrong::Slow, "late", 1, false),
            (What::Pause(Part::Proxy(1), 0), first, Wrong::Slow, "late", 1, true),
            (What::Pause(Part::Proxy(2), 0), first, Wrong::Slow, "late", 1, false),
            (What::Pause(Part::Redirect(1), 0), both, Wrong::Slow, "late", 1, false),
            (What::Pause(Part::Redirect(1), 0), moving, Wrong::Slow, "late", 1, true),
            (What::Kill(Part::Ctrl), both, Wrong::Slow, "late", 1, false),
            (What::Kill(Part::Ctrl), moving, Wrong::Slow, "late", 1, true),
            (What::Label, both, Wrong::Slow, "late", 1, false),
            (What::Label, moving, Wrong::Slow, "late", 1, true),
            (What::Label, moving, Wrong::Slow, "late", 4, false),
            (link, both, Wrong::Slow, "late", 3, true),
            (link, first, Wrong::Slow, "late", 1, false),
            (link, both, Wrong::Failed, "reset", 1, false),
            // Each of the fragile ones by its own fate only.
            (What::Policy, both, Wrong::Broken, "reset", 1, false),
            (What::Policy, barred, Wrong::Broken, "reset", 1, true),
            (What::Policy, barred, Wrong::Broken, "stuck", 1, false),
            (What::Policy, fleeting, Wrong::Broken, "reset", 1, false),
            (What::Recreate, barred, Wrong::Failed, "reset", 1, false),
            (What::Recreate, fleeting, Wrong::Failed, "refused", 9, true),
            (What::Recreate, fleeting, Wrong::Failed, "refused", 11, false),
            (What::Recreate, fleeting, Wrong::Broken, "stuck", 31, true),
            (What::Recreate, fleeting, Wrong::Broken, "reset", 15, true),
            (What::Recreate, fleeting, Wrong::Broken, "reset", 31, false),
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

    #[test]
    fn who_is_barred_is_judged_while_it_is_not() {
        let barred = Flow { nodes: [true, true], crosses: true, fate: Fate::Barred };
        let policy = |at| Done { what: What::Policy, begun: at, ended: at };
        // Denied from 10 s to 20 s, and from 60 s on.
        let done = [policy(10_000), policy(20_000), policy(60_000)];
        let cases = [
            (9, false),
            (11, true),
            (19, true),
            (29, true),
            (31, false),
            (59, false),
            (61, true),
            (900, true),
        ];
        for (second, expected) in cases {
            let at = second * 1000;
            let trouble = Trouble { begun: at, ended: at, target: String::new(), what: "reset".to_owned() };
            assert_eq!(cause(&done, barred, Wrong::Failed, &trouble).is_some(), expected, "at {second} s");
        }
    }

    #[test]
    fn a_proxy_told_to_end_breaks_nothing_unless_it_is_hindered() {
        let flow = Flow { nodes: [true, true], crosses: true, fate: Fate::Steady };
        let done = |what, at| Done { what, begun: at, ended: at };
        let term = done(What::Term(Part::Proxy(1)), 20_000);
        let trouble = Trouble { begun: 0, ended: 21_000, target: String::new(), what: "reset".to_owned() };
        for (other, at, expected) in [
            (What::Policy, 20_000, false),
            (What::Pause(Part::Redirect(1), 0), 21_000, true),
            (What::Pause(Part::Redirect(2), 0), 21_000, false),
            (What::Kill(Part::Redirect(1)), 14_000, true),
            (What::Pause(Part::Proxy(1), 0), 3_000, false),
            (What::Upgrade, 20_500, true),
        ] {
            let all = [term, done(other, at)];
            // What the other one would be the cause of by itself is another matter.
            let found = super::excused_until(&all, 0, flow, Wrong::Broken).is_some();
            assert_eq!(found, expected, "{other:?} at {at}");
            assert!(found || cause(&[term], flow, Wrong::Broken, &trouble).is_none());
        }
    }

    #[test]
    fn a_reset_may_be_lost_on_a_bad_link_outside_of_tunnels() {
        let flow = |nodes| Flow { nodes, crosses: true, fate: Fate::Steady };
        let link =
            |loss| Done { what: What::Link { node: 2, delay: 0, loss, time: 0 }, begun: 500, ended: 5000 };
        let killed = Done { what: What::Kill(Part::Proxy(2)), begun: 1000, ended: 1000 };
        let what = "request 7: stuck".to_owned();
        let trouble = Trouble { begun: 1500, ended: 31_500, target: String::new(), what };
        for (nodes, loss, expected) in
            [([false, true], 9, true), ([false, true], 0, false), ([true, true], 9, false)]
        {
            let found = cause(&[link(loss), killed], flow(nodes), Wrong::Failed, &trouble).is_some();
            assert_eq!(found, expected, "{nodes:?} {loss}");
        }
    }

    #[test]
    fn a_half_open_connection_may_fail_where_a_pod_joins_behind_a_bad_link() {
        let flow = |fate| Flow { nodes: [false; 2], crosses: true, fate };
        let link =
            |loss| Done { what: What::Link { node: 2, delay: 9, loss, time: 0 }, begun: 500, ended: 5000 };
        let label = Done { what: What::Label, begun: 1600, ended: 1605 };
        let trouble = Trouble { begun: 1000, ended: 2100, target: String::new(), what: "reset".to_owned() };
        for (fate, loss, expected) in
            [(Fate::Moving, 9, true), (Fate::Moving, 0, false), (Fate::Steady, 9, false)]
        {
            let found = cause(&[link(loss), label], flow(fate), Wrong::Failed, &trouble).is_some();
            assert_eq!(found, expected, "{fate:?} {loss}");
        }
    }

    #[test]
    fn a_proxy_is_missed_longer_while_who_starts_it_is_paused() {
        let flow = Flow { nodes: [true, true], crosses: true, fate: Fate::Steady };
        let pause = |node, ended| Done { what: What::Pause(Part::Redirect(node), 0), begun: 0, ended };
        let killed = Done { what: What::Kill(Part::Proxy(1)), begun: 1000, ended: 1000 };
        let trouble = Trouble { begun: 5000, ended: 5000, target: String::new(), what: "refused".to_owned() };
        for (pause, expected) in [(pause(1, 4000), true), (pause(1, 1500), false), (pause(2, 4000), false)] {
            let found = cause(&[pause, killed], flow, Wrong::Failed, &trouble).is_some();
            assert_eq!(found, expected, "{pause:?}");
        }
    }
}
