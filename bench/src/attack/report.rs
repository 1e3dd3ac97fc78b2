//! What was seen of attacks: ratios within a round, verdicts, and the table. Pure.

use serde::Serialize;

use super::kinds::{Attack, Door};
use super::strike::Done;
use crate::load::bystander::Seen;
use crate::measure::Memory;
use crate::table::{Spread, lay_out};
use crate::variants::Kind;

/// The bystander's p99 under attack, as a multiple of that in quiet (or beside the control), at most.
const SLOWER: f64 = 1.5;
/// So many rounds more on one side of that than on the other make it clear: of a fair coin the first five throws are alike once in
/// sixteen times.
const CLEAR: usize = 5;
/// Memory more than before the attack, at most, MB.
const MORE: f64 = 32.0;

/// What a bystander saw in one stretch, and what the proxies that are aimed at used, in processors.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    pub seen: Seen,
    pub cpu: f64,
}

impl Phase {
    pub(super) fn of(seen: Seen) -> Self {
        Self { seen, cpu: 0.0 }
    }

    fn failures(&self) -> u64 {
        self.seen.failed + self.seen.broken + self.seen.fresh_failed
    }
}

/// Quiet, control and attack, one after the other.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub quiet: Phase,
    pub control: Option<Phase>,
    pub attacked: Phase,
    pub done: Done,
}

/// Memory of the proxies that are aimed at.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Memories {
    pub before: Memory,
    pub peak: Memory,
    pub after: Memory,
}

/// One attack on one variant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trial {
    pub attack: String,
    pub variant: &'static str,
    #[serde(skip)]
    pub what: Attack,
    pub rounds: Vec<Round>,
    pub memory: Memories,
    /// How often our limit was hit, where there is one for this.
    pub hits: Option<u64>,
    /// What proxies wrote last that have ended; empty if none has.
    pub ended: String,
    pub log_lines: usize,
    /// The bystander, once all is over.
    pub afterwards: Option<Phase>,
}

/// How a trial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything held.
    Held,
    /// The bystander was slower than allowed, but not slower than beside an attack on somebody else.
    ByControl,
    /// This did not hold.
    Missed(&'static str),
}

impl Trial {
    pub(super) fn new(attack: Attack, kind: Kind) -> Self {
        Self {
            attack: attack.name(),
            variant: kind.name(),
            what: attack,
            rounds: Vec::new(),
            memory: Memories::default(),
            hits: None,
            ended: String::new(),
            log_lines: 0,
            afterwards: None,
        }
    }

    /// A figure's ratio to another of the same round, over the rounds.
    fn ratio(
        &self,
        of: impl Fn(&Round) -> Option<f64>,
        to: impl Fn(&Round) -> Option<f64>,
    ) -> Option<Spread> {
        let ratios = self.rounds.iter().filter_map(|round| {
            let base = to(round).filter(|base| *base > 0.0)?;
            Some(of(round)? / base)
        });
        Spread::of(ratios.collect())
    }

    /// Whether there have been rounds enough: so many at least, and then as soon as they make it clear on which side of what is allowed
    /// the bystander's p99 is, whichever it is.
    pub(super) fn is_enough(&self, least: usize, most: usize) -> bool {
        let slower = |round: &&Round| round.attacked.seen.p99_us > SLOWER * round.quiet.seen.p99_us;
        let slower = self.rounds.iter().filter(slower).count();
        let rounds = self.rounds.len();
        rounds >= most || (rounds >= least && slower.abs_diff(rounds - slower) >= CLEAR)
    }

    fn attacked(&self) -> Option<Spread> {
        self.ratio(|round| Some(round.attacked.seen.p99_us), |round| Some(round.quiet.seen.p99_us))
    }

    fn control(&self) -> Option<Spread> {
        self.ratio(
            |round| round.control.as_ref().map(|phase| phase.seen.p99_us),
            |round| Some(round.quiet.seen.p99_us),
        )
    }

    fn beside_control(&self) -> Option<Spread> {
        self.ratio(
            |round| Some(round.attacked.seen.p99_us),
            |round| round.control.as_ref().map(|phase| phase.seen.p99_us),
        )
    }

    fn failures(&self) -> u64 {
        self.rounds.iter().map(|round| round.attacked.failures()).sum()
    }

    /// Megabytes more at the worst than before; of anonymous memory where a build without optimisation is looked at,
    /// whose own pages are large.
    fn more(&self, anonymous: bool) -> f64 {
        let of = |memory: Memory| if anonymous { memory.anonymous } else { memory.resident } as f64;
        (of(self.memory.peak) - of(self.memory.before)) * 1024.0 / 1e6
    }

    /// Whether it is still there and serves as before.
    fn serves(&self) -> bool {
        let answered = self
            .afterwards
            .as_ref()
            .is_some_and(|phase| phase.failures() == 0 && phase.seen.answered > 0 && phase.seen.fresh > 0);
        answered && self.ended.is_empty()
    }

    /// `timed` is whether the times count.
    pub(crate) fn verdict(&self, timed: bool) -> Verdict {
        if !self.serves() {
            return Verdict::Missed("does not serve afterwards");
        }
        if self.failures() > 0 {
            return Verdict::Missed("the bystander's connections or requests failed");
        }
        if self.more(!timed) > MORE {
            return Verdict::Missed("memory");
        }
        if self.hits == Some(0) {
            return Verdict::Missed("its limit was not hit");
        }
        let within = |spread: Option<Spread>| spread.is_some_and(|spread| spread.median <= SLOWER);
        if !timed || within(self.attacked()) {
            Verdict::Held
        } else if within(self.beside_control()) {
            Verdict::ByControl
        } else {
            Verdict::Missed("the bystander's p99")
        }
    }
}

/// All trials as a table.
pub(crate) fn render(trials: &[Trial], timed: bool) -> String {
    let head = [
        "attack",
        "a second (got)",
        "variant",
        "rounds",
        "p99 quiet",
        "control ÷ quiet",
        "attack ÷ quiet",
        "attack ÷ control",
        "fresh p99 ÷ quiet",
        "failed",
        "MB before / peak / after",
        "CPU quiet / attack",
        "limit hit",
        "verdict",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(trials.iter().map(|trial| line(trial, timed)));
    lay_out(&lines)
}

fn line(trial: &Trial, timed: bool) -> Vec<String> {
    let ratio = |spread: Option<Spread>| {
        spread.map_or("–".to_owned(), |of| format!("{:.2} / {:.2} / {:.2}", of.min, of.median, of.max))
    };
    let median = |figure: &dyn Fn(&Round) -> f64| {
        Spread::of(trial.rounds.iter().map(figure).collect()).map_or(0.0, |spread| spread.median)
    };
    let fresh = trial
        .ratio(|round| Some(round.attacked.seen.fresh_p99_us), |round| Some(round.quiet.seen.fresh_p99_us));
    let mb = |memory: Memory| memory.resident as f64 * 1024.0 / 1e6;
    let plan = trial.what.plan();
    let got = median(&|round| round.done.steps as f64 / round.done.seconds.max(1e-3));
    let pace = match plan.door {
        Door::Controller => plan.step.to_owned(),
        _ => format!("{} {} ({got:.0})", plan.rate, plan.step),
    };
    let verdict = match trial.verdict(timed) {
        Verdict::Held => "held".to_owned(),
        Verdict::ByControl => "held: as beside the control".to_owned(),
        Verdict::Missed(what) => format!("MISSED: {what}"),
    };
    vec![
        trial.attack.clone(),
        pace,
        trial.variant.to_owned(),
        trial.rounds.len().to_string(),
        format!("{:.0} µs", median(&|round| round.quiet.seen.p99_us)),
        ratio(trial.control()),
        ratio(trial.attacked()),
        ratio(trial.beside_control()),
        ratio(fresh),
        trial.failures().to_string(),
        format!(
            "{:.1} / {:.1} / {:.1}",
            mb(trial.memory.before),
            mb(trial.memory.peak),
            mb(trial.memory.after)
        ),
        format!("{:.2} / {:.2}", median(&|round| round.quiet.cpu), median(&|round| round.attacked.cpu)),
        trial.hits.map_or("–".to_owned(), |hits| hits.to_string()),
        verdict,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(p99_us: f64) -> Phase {
        let seen = Seen {
            answered: 100,
            failed: 0,
            broken: 0,
            p50_us: 1.0,
            p99_us,
            fresh: 5,
            fresh_failed: 0,
            fresh_p50_us: 1.0,
            fresh_p99_us: 2.0,
        };
        Phase::of(seen)
    }

    fn round(quiet: f64, control: f64, attacked: f64) -> Round {
        Round {
            quiet: phase(quiet),
            control: Some(phase(control)),
            attacked: phase(attacked),
            done: Done::default(),
        }
    }

    fn trial(quiet: f64, control: f64, attacked: f64) -> Trial {
        let mut trial = Trial::new(Attack::RapidReset, Kind::Lateen);
        trial.rounds = vec![round(quiet, control, attacked)];
        trial.afterwards = Some(phase(1.0));
        trial.hits = Some(3);
        trial
    }

    #[test]
    fn what_the_attacker_costs_by_itself_is_not_the_proxys() {
        assert_eq!(trial(100.0, 100.0, 150.0).verdict(true), Verdict::Held);
        assert_eq!(trial(100.0, 300.0, 400.0).verdict(true), Verdict::ByControl);
        assert_eq!(trial(100.0, 120.0, 200.0).verdict(true), Verdict::Missed("the bystander's p99"));
        assert_eq!(trial(100.0, 120.0, 200.0).verdict(false), Verdict::Held);
    }

    #[test]
    fn rounds_go_on_until_it_is_clear_which_way_it_goes() {
        // Of each round, whether the bystander was slower than allowed; at least three rounds, at most nine.
        let enough = |slower: &str| {
            let mut trial = trial(100.0, 100.0, 100.0);
            let of = |slower| round(100.0, 100.0, if slower == '+' { 151.0 } else { 149.0 });
            trial.rounds = slower.chars().map(of).collect();
            trial.is_enough(3, 9)
        };
        for (slower, is_enough) in [
            ("", false),
            ("---", false),
            ("----", false),
            ("-----", true),
            ("+++++", true),
            ("----+-", false),
            ("----+--", true),
            ("++-++++", true),
            ("+-+-+-+-", false),
            ("+-+-+-+-+", true),
        ] {
            assert_eq!(enough(slower), is_enough, "{slower}");
        }
    }

    #[test]
    fn each_thing_that_breaks_is_a_miss() {
        let broken = |change: &dyn Fn(&mut Trial)| {
            let mut trial = trial(100.0, 100.0, 100.0);
            change(&mut trial);
            trial.verdict(true)
        };
        assert_eq!(broken(&|_| ()), Verdict::Held);
        for change in [
            &(|trial: &mut Trial| trial.ended = "; it has ended".to_owned()) as &dyn Fn(&mut Trial),
            &|trial| trial.afterwards = None,
            &|trial| trial.rounds[0].attacked.seen.broken = 1,
            &|trial| trial.rounds[0].attacked.seen.fresh_failed = 1,
            &|trial| trial.memory.peak.resident = 40_000,
            &|trial| trial.hits = Some(0),
        ] {
            assert!(matches!(broken(change), Verdict::Missed(_)));
        }
    }
}
