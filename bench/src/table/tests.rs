//! Samples in, ratios and verdicts out.

use super::*;

fn sample(round: usize, variant: &'static str, row: &'static str, value: f64) -> Sample {
    Sample { round, variant, row, value }
}

#[test]
fn the_median_of_an_even_number_lies_between_the_middle_two() {
    let cases: [(&[f64], Option<[f64; 3]>); 4] = [
        (&[], None),
        (&[3.0], Some([3.0, 3.0, 3.0])),
        (&[9.0, 1.0, 2.0], Some([1.0, 2.0, 9.0])),
        (&[4.0, 1.0, 2.0, 9.0], Some([1.0, 3.0, 9.0])),
    ];
    for (values, wanted) in cases {
        let wanted = wanted.map(|[min, median, max]| Spread { min, median, max });
        assert_eq!(Spread::of(values.to_vec()), wanted, "{values:?}");
    }
}

#[test]
fn ratios_are_taken_within_a_round() {
    // The second round ran on a machine half as fast: the figures differ, their ratio does not.
    let figures = Figures::new(&[
        sample(0, "ztunnel", "c64.cpu", 30.0),
        sample(0, "lateen", "c64.cpu", 15.0),
        sample(1, "ztunnel", "c64.cpu", 60.0),
        sample(1, "lateen", "c64.cpu", 30.0),
        // A round in which the base failed gives no ratio.
        sample(2, "lateen", "c64.cpu", 1.0),
    ]);
    let half = Spread { min: 0.5, median: 0.5, max: 0.5 };
    assert_eq!(figures.ratio("c64.cpu", "lateen", "ztunnel"), Some(half));
    assert_eq!(figures.absolute("c64.cpu", "lateen"), Some(Spread { min: 1.0, median: 15.0, max: 30.0 }));
    assert_eq!(figures.ratio("c64.cpu", "plain", "ztunnel"), None);
    assert_eq!(figures.ratio("c64.cpu", "lateen", "plain"), None);
}

#[test]
fn added_latency_is_what_lies_above_the_plain_path_of_the_same_round() {
    let figures = Figures::new(&[
        sample(0, "plain", "c1.p50", 20.0),
        sample(0, "ztunnel", "c1.p50", 100.0),
        sample(0, "lateen", "c1.p50", 60.0),
        sample(1, "lateen", "c1.p50", 90.0),
    ]);
    let ratio = figures.ratio("c1.added", "lateen", "ztunnel").unwrap();
    assert_eq!(ratio.median, 0.5);
    assert_eq!(figures.absolute("c1.added", "plain"), None);
}

#[test]
fn a_target_is_met_by_the_median() {
    let spread = |median| Some(Spread { min: 0.0, median, max: 99.0 });
    let cases = [
        (Target::AtLeast(1.5), spread(1.5), None, Some(true)),
        (Target::AtLeast(1.5), spread(1.4), None, Some(false)),
        (Target::AtMost(0.5), spread(0.6), None, Some(false)),
        (Target::AtMost(0.5), None, spread(0.1), None),
        (Target::Below(10.0), None, spread(9.0), Some(true)),
        (Target::Below(10.0), spread(1.0), spread(11.0), Some(false)),
        (Target::Open, spread(1.0), spread(1.0), None),
    ];
    for (target, ratio, absolute, wanted) in cases {
        assert_eq!(target.met(ratio, absolute), wanted, "{target:?} {ratio:?} {absolute:?}");
    }
}

#[test]
fn the_table_shows_the_base_absolute_the_others_as_ratios_and_our_verdict() {
    let figures = Figures::new(&[
        sample(0, "ztunnel", "bulk1.rate", 10.0),
        sample(0, "lateen", "bulk1.rate", 14.0),
        sample(0, "ztunnel", "start.rss", 18.0),
        sample(0, "lateen", "start.rss", 7.0),
    ]);
    let text = render(&figures, &["plain", "lateen", "ztunnel"], "ztunnel");
    let lines: Vec<_> = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()).collect();
    assert_eq!(lines.len(), 4, "head, rule, two rows:\n{text}");
    assert_eq!(lines[0][4..7], ["plain", "lateen", "ztunnel (absolute)"]);
    assert_eq!(
        lines[2][1..7],
        ["P1", "bulk, 1 stream (Gbit/s)", "≥ 1.45: MISSED", "–", "1.40 / 1.40 / 1.40", "10.0 Gbit/s"]
    );
    assert_eq!(lines[3][3..7], ["≤ 10 MB: met", "–", "7.00 MB", "18.0 MB"]);
}

#[test]
fn targets_against_another_base_are_not_judged() {
    let figures =
        Figures::new(&[sample(0, "plain", "bulk1.rate", 40.0), sample(0, "lateen", "bulk1.rate", 14.0)]);
    let text = render(&figures, &["plain", "lateen"], "plain");
    assert!(text.contains("| ≥ 1.45 "), "{text}");
}
