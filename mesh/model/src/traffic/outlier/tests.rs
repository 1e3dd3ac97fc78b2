//! When an endpoint is ejected, for how long, and when it is back.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Detector, EjectionCause, Event, Monitor, Outcome};
use crate::address::Str;
use crate::traffic::OutlierDetection;

use EjectionCause::{Consecutive5xx, ConsecutiveGateway, ConsecutiveLocalOrigin};
use Outcome::{Connected, Failed, Response, TcpConnected, TimedOut};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn settings() -> OutlierDetection {
    OutlierDetection { max_ejection_percent: 100, ..OutlierDetection::default() }
}

/// Which threshold each outcome of a row reaches.
fn causes(settings: &OutlierDetection, outcomes: &[Outcome]) -> Vec<Option<EjectionCause>> {
    let monitor = Monitor::default();
    outcomes.iter().map(|outcome| monitor.record(*outcome, settings)).collect()
}

/// What is reached first, and by the how manyth outcome (from one).
type Tripped = Option<(EjectionCause, usize)>;

fn tripped(settings: &OutlierDetection, outcomes: &[Outcome]) -> Tripped {
    let causes = causes(settings, outcomes);
    let place = causes.iter().position(Option::is_some)?;
    Some((causes[place]?, place + 1))
}

#[test]
fn errors_in_a_row_reach_a_threshold() {
    let of = |consecutive_5xx, consecutive_gateway| OutlierDetection {
        consecutive_5xx,
        consecutive_gateway,
        ..settings()
    };
    let split = |consecutive_local_origin| OutlierDetection {
        split_local_origin: true,
        consecutive_local_origin,
        ..of(3, 2)
    };
    let coded = |codes: &[u16]| OutlierDetection { http_error_codes: codes.into(), ..of(2, 3) };
    #[rustfmt::skip]
    let table: Vec<(OutlierDetection, Vec<Outcome>, Tripped)> = vec![
        (settings(), vec![Response(500); 4], None),
        (settings(), vec![Response(500); 5], Some((Consecutive5xx, 5))),
        (settings(), vec![Response(499); 9], None),
        (settings(), vec![Response(599); 5], Some((Consecutive5xx, 5))),
        (settings(), vec![Response(600); 9], None),
        (settings(), vec![Response(503); 5], Some((Consecutive5xx, 5))),
        // A success in between begins the row anew, and so does a 4xx.
        (of(3, 0), vec![Response(500), Response(500), Response(200), Response(500), Response(500)], None),
        (of(3, 0), vec![Response(500), Response(500), Response(404), Response(500), Response(500)], None),
        // 0 is off.
        (of(0, 0), vec![Response(503); 99], None),
        (of(1, 0), vec![Response(500)], Some((Consecutive5xx, 1))),
        // A gateway's errors are 5xx too; the lower threshold is reached first, and of equal ones the gateway's is named.
        (of(3, 2), vec![Response(502), Response(503)], Some((ConsecutiveGateway, 2))),
        (of(3, 2), vec![Response(504), Response(503)], Some((ConsecutiveGateway, 2))),
        (of(2, 2), vec![Response(503); 2], Some((ConsecutiveGateway, 2))),
        (of(2, 3), vec![Response(503); 3], Some((Consecutive5xx, 2))),
        (of(0, 2), vec![Response(503); 2], Some((ConsecutiveGateway, 2))),
        // Another 5xx ends a row of gateway errors, not a row of 5xx.
        (of(4, 2), vec![Response(503), Response(500), Response(503), Response(501)], Some((Consecutive5xx, 4))),
        (of(9, 2), vec![Response(503), Response(505), Response(503), Response(501)], None),
        // Not reached: as 503 and 504, so gateway errors.
        (of(3, 2), vec![Failed, TimedOut], Some((ConsecutiveGateway, 2))),
        (of(3, 0), vec![Failed, Response(500), TimedOut], Some((Consecutive5xx, 3))),
        // That an HTTP connection stands is no success, that a TCP connection does is one.
        (of(3, 0), vec![Failed, Failed, Connected, Failed], Some((Consecutive5xx, 4))),
        (of(3, 0), vec![Failed, Failed, TcpConnected, Failed, Failed], None),
        // Split: counted for themselves.
        (split(2), vec![Failed, TimedOut], Some((ConsecutiveLocalOrigin, 2))),
        (split(2), vec![Failed, Connected, Failed, TcpConnected, TimedOut], None),
        (split(9), vec![Failed; 8], None),
        // A status says nothing of them, and they nothing of it.
        (split(2), vec![Failed, Response(200), Failed], Some((ConsecutiveLocalOrigin, 3))),
        (split(9), vec![Response(500), Failed, Response(500), Connected, Response(500)], Some((Consecutive5xx, 5))),
        // Istio takes 0 for not said.
        (split(0), vec![Failed; 5], Some((ConsecutiveLocalOrigin, 5))),
        // Codes of one's own stand in place of 5xx.
        (coded(&[429]), vec![Response(429); 2], Some((Consecutive5xx, 2))),
        (coded(&[429]), vec![Response(500); 9], None),
        (coded(&[429]), vec![Response(429), Response(500), Response(429)], None),
        (coded(&[429, 503]), vec![Response(503), Response(429)], Some((Consecutive5xx, 2))),
        (OutlierDetection { consecutive_5xx: 0, ..coded(&[429, 503]) }, vec![Response(503); 3], Some((ConsecutiveGateway, 3))),
        (OutlierDetection { consecutive_5xx: 0, ..coded(&[429, 503]) }, vec![Response(429); 9], None),
        // They are about responses only.
        (coded(&[429]), vec![Failed; 2], Some((Consecutive5xx, 2))),
    ];
    for (settings, outcomes, expected) in table {
        assert_eq!(tripped(&settings, &outcomes), expected, "{outcomes:?} by {settings:?}");
    }
}

#[test]
fn grpc_is_judged_by_what_http_would_have_said() {
    #[rustfmt::skip]
    let table = [
        (0, 200), (1, 499), (2, 500), (3, 400), (4, 504), (5, 404), (6, 409), (7, 403), (8, 429), (9, 400), (10, 409),
        (11, 400), (12, 501), (13, 500), (14, 503), (15, 500), (16, 401), (17, 500), (u32::MAX, 500),
    ];
    for (grpc, http) in table {
        assert_eq!(Outcome::of_grpc(grpc), Response(http), "grpc-status {grpc}");
    }
}

/// Where an endpoint may not be ejected, it is named each time that it reaches the threshold again.
#[test]
fn counting_begins_anew_once_a_threshold_is_reached() {
    let settings = OutlierDetection { consecutive_5xx: 2, ..settings() };
    let all = causes(&settings, &[Response(500); 6]);
    let yes = Some(Consecutive5xx);
    assert_eq!(all, [None, yes, None, yes, None, yes]);
    // A threshold that is lowered to below what is counted is reached by the next error.
    let monitor = Monitor::default();
    for _ in 0..4 {
        assert_eq!(monitor.record(Response(500), &OutlierDetection::default()), None);
    }
    assert_eq!(monitor.record(Response(500), &settings), yes);
}

struct Endpoint {
    name: Str,
    monitor: Arc<Monitor>,
}

fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count)
        .map(|number| Endpoint { name: format!("pod-{number}").into(), monitor: Arc::default() })
        .collect()
}

fn eject(
    detector: &mut Detector,
    all: &[Endpoint],
    which: usize,
    settings: &OutlierDetection,
    now: u64,
) -> Option<Event> {
    let Endpoint { name, monitor } = &all[which];
    detector.eject(name, monitor, Consecutive5xx, all.len(), settings, seconds(now))
}

#[test]
fn so_many_may_be_ejected() {
    // Endpoints, percent, whether one always may; how many are, if all fail.
    #[rustfmt::skip]
    let table = [
        (10, 10, true, 1), (10, 10, false, 1), (10, 9, false, 0), (10, 9, true, 1),
        (10, 19, true, 1), (10, 20, true, 2), (10, 29, true, 2), (10, 100, true, 10), (10, 101, false, 10),
        (10, u32::MAX, false, 10),
        // The default of 10 % is less than one endpoint of few.
        (3, 10, true, 1), (3, 10, false, 0), (1, 10, true, 1), (1, 99, false, 0), (1, 100, false, 1),
        (3, 33, false, 0), (3, 34, false, 1), (3, 66, true, 1), (3, 67, true, 2),
        (10, 0, false, 0), (10, 0, true, 1),
        (100, 10, false, 10), (100, 1, false, 1),
    ];
    for (count, max_ejection_percent, always_eject_one, expected) in table {
        let settings = OutlierDetection { max_ejection_percent, always_eject_one, ..settings() };
        let all = endpoints(count);
        let mut detector = Detector::new(seconds(0));
        for which in 0..count {
            let ejected_before = detector.ejected();
            match eject(&mut detector, &all, which, &settings, 0) {
                Some(Event::Ejected { times, duration, .. }) => {
                    assert_eq!((times, duration), (1, seconds(30)))
                }
                Some(Event::Spared { endpoint, cause, ejected, total }) => {
                    assert_eq!((endpoint, cause), (all[which].name.clone(), Consecutive5xx));
                    assert_eq!((ejected, total), (ejected_before, count));
                }
                other => panic!("{other:?}"),
            }
        }
        let flagged = all.iter().filter(|endpoint| endpoint.monitor.is_ejected()).count();
        let which = format!("{max_ejection_percent} % of {count}, one always: {always_eject_one}");
        assert_eq!((detector.ejected(), flagged), (expected, expected), "{which}");
    }
}

#[test]
fn who_is_ejected_is_not_ejected_again() {
    let all = endpoints(2);
    let mut detector = Detector::new(seconds(0));
    assert!(eject(&mut detector, &all, 0, &settings(), 0).is_some());
    assert_eq!(eject(&mut detector, &all, 0, &settings(), 1), None);
    assert_eq!((detector.ejected(), all[0].monitor.times_ejected()), (1, 1));
}

/// 30 s the first time, 60 s the second: but only a sweep lets return, so it is at the first one after that.
#[test]
fn who_is_ejected_returns_with_the_first_sweep_after_its_time() {
    let settings = OutlierDetection { interval: seconds(7), ..settings() };
    let all = endpoints(1);
    let mut detector = Detector::new(seconds(0));
    let _ = eject(&mut detector, &all, 0, &settings, 3);
    let returned = Event::Returned { endpoint: all[0].name.clone(), cause: Consecutive5xx };
    assert_eq!(detector.next_sweep(&settings), seconds(7));
    for now in 4..35 {
        assert_eq!(detector.sweep(&settings, seconds(now)), [], "at {now} s");
        assert!(all[0].monitor.is_ejected());
    }
    assert_eq!(detector.next_sweep(&settings), seconds(35));
    assert_eq!(detector.sweep(&settings, seconds(35)), [returned]);
    assert!(!all[0].monitor.is_ejected());
    assert_eq!(detector.ejected(), 0);
    // On the second: an ejection's very time counts.
    let mut detector = Detector::new(seconds(0));
    let _ = eject(&mut detector, &all, 0, &settings, 5);
    assert_eq!(detector.sweep(&settings, seconds(34)), []);
    assert_eq!(detector.sweep(&settings, seconds(41)).len(), 1);
}

#[test]
fn each_further_time_is_longer_up_to_a_bound_and_shorter_again_later() {
    // Base time; how long each ejection of a row lasts.
    let table: [(u64, &[u64]); 5] = [
        (30, &[30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]),
        (100, &[100, 200, 300, 300]),
        (200, &[200, 300, 300]),
        // A base time that is longer than the bound is the bound.
        (400, &[400, 400, 400]),
        (900, &[900, 900]),
    ];
    for (base, expected) in table {
        let settings =
            OutlierDetection { base_ejection_time: seconds(base), interval: seconds(1), ..settings() };
        let all = endpoints(1);
        let mut detector = Detector::new(seconds(0));
        let mut now = 0;
        for (time, lasts) in expected.iter().enumerate() {
            let event = eject(&mut detector, &all, 0, &settings, now);
            let Some(Event::Ejected { times, duration, .. }) = event else { panic!("{event:?}") };
            assert_eq!((times as usize, duration), (time + 1, seconds(*lasts)), "base {base}");
            assert_eq!(detector.sweep(&settings, seconds(now + lasts - 1)), []);
            now += lasts;
            assert_eq!(detector.sweep(&settings, seconds(now)).len(), 1);
        }
    }
}

#[test]
fn good_conduct_shortens_the_next_ejection() {
    let settings = settings();
    let all = endpoints(1);
    let mut detector = Detector::new(seconds(0));
    let mut now = 0;
    let lasted = |detector: &mut Detector, now: &mut u64| {
        let Some(Event::Ejected { duration, .. }) = eject(detector, &all, 0, &settings, *now) else {
            panic!()
        };
        *now += duration.as_secs();
        assert_eq!(detector.sweep(&settings, seconds(*now)).len(), 1);
        duration.as_secs()
    };
    assert_eq!([lasted(&mut detector, &mut now), lasted(&mut detector, &mut now)], [30, 60]);
    // The sweep that lets return does not lower it, the next one does.
    now += 10;
    detector.sweep(&settings, seconds(now));
    assert_eq!(lasted(&mut detector, &mut now), 60);
    // Two sweeps, two less; a sweep too early is none.
    for _ in 0..2 {
        now += 10;
        detector.sweep(&settings, seconds(now));
        detector.sweep(&settings, seconds(now + 5));
    }
    assert_eq!(lasted(&mut detector, &mut now), 30);
    // It does not go below nothing, and then nothing is kept of the endpoint.
    for _ in 0..5 {
        now += 10;
        detector.sweep(&settings, seconds(now));
    }
    assert!(detector.records.is_empty());
    assert_eq!(lasted(&mut detector, &mut now), 30);
}

/// The multiplier grows by one beyond what gives the longest time, and no further: so long it takes to be rid of it again.
#[test]
fn after_many_ejections_good_conduct_is_seen_soon() {
    let settings = OutlierDetection { interval: seconds(1), ..settings() };
    for (sweeps, expected) in [(0, 300), (2, 300), (3, 270), (11, 30)] {
        let all = endpoints(1);
        let mut detector = Detector::new(seconds(0));
        let mut now = 0;
        for _ in 0..50 {
            let _ = eject(&mut detector, &all, 0, &settings, now);
            now += 300;
            assert_eq!(detector.sweep(&settings, seconds(now)).len(), 1);
        }
        for _ in 0..sweeps {
            now += 1;
            detector.sweep(&settings, seconds(now));
        }
        let event = eject(&mut detector, &all, 0, &settings, now);
        let Some(Event::Ejected { times, duration, .. }) = event else { panic!("{event:?}") };
        assert_eq!((times, duration), (51, seconds(expected)), "after {sweeps} sweeps");
    }
}

#[test]
fn a_return_begins_all_rows_anew() {
    let settings = OutlierDetection {
        split_local_origin: true,
        consecutive_5xx: 2,
        consecutive_gateway: 3,
        consecutive_local_origin: 2,
        ..settings()
    };
    let all = endpoints(1);
    let monitor = &all[0].monitor;
    let mut detector = Detector::new(seconds(0));
    let _ = eject(&mut detector, &all, 0, &settings, 0);
    // Answers to what was under way still come in.
    assert_eq!(monitor.record(Response(503), &settings), None);
    assert_eq!(monitor.record(Failed, &settings), None);
    assert_eq!(detector.sweep(&settings, seconds(30)).len(), 1);
    assert_eq!(monitor.record(Response(503), &settings), None);
    assert_eq!(monitor.record(Failed, &settings), None);
    assert_eq!(monitor.record(Failed, &settings), Some(ConsecutiveLocalOrigin));
}

#[test]
fn who_is_gone_makes_room_and_who_is_cleared_returns() {
    let settings = OutlierDetection { max_ejection_percent: 50, ..settings() };
    let all = endpoints(2);
    let mut detector = Detector::new(seconds(0));
    let _ = eject(&mut detector, &all, 0, &settings, 0);
    assert!(matches!(eject(&mut detector, &all, 1, &settings, 0), Some(Event::Spared { .. })));
    detector.remove(&all[0].name);
    detector.remove("nobody");
    assert_eq!(detector.ejected(), 0);
    assert!(matches!(eject(&mut detector, &all, 1, &settings, 0), Some(Event::Ejected { .. })));
    assert_eq!(detector.clear().len(), 1);
    assert!(!all[1].monitor.is_ejected());
    assert_eq!((detector.ejected(), detector.clear()), (0, vec![]));
    // One that has returned and is then removed does not count twice.
    let _ = eject(&mut detector, &all, 1, &settings, 2);
    assert_eq!(detector.sweep(&settings, seconds(100)).len(), 1);
    detector.remove(&all[1].name);
    assert_eq!(detector.ejected(), 0);
}

#[test]
fn events_name_their_cause() {
    let endpoint: Str = "pod-1".into();
    let ejected =
        Event::Ejected { endpoint: endpoint.clone(), cause: Consecutive5xx, times: 2, duration: seconds(60) };
    assert_eq!(ejected.to_string(), "pod-1 ejected for 60s by outlierDetection.consecutive5xxErrors, time 2");
    let spared =
        Event::Spared { endpoint: endpoint.clone(), cause: ConsecutiveGateway, ejected: 1, total: 10 };
    assert_eq!(
        spared.to_string(),
        "pod-1 not ejected by outlierDetection.consecutiveGatewayErrors: 1 of 10 are, and \
         outlierDetection.maxEjectionPercent allows no more"
    );
    let returned = Event::Returned { endpoint, cause: ConsecutiveLocalOrigin };
    assert_eq!(
        returned.to_string(),
        "pod-1 returned, was ejected by outlierDetection.consecutiveLocalOriginFailures"
    );
    let statistics =
        [Consecutive5xx, ConsecutiveGateway, ConsecutiveLocalOrigin].map(EjectionCause::statistic);
    assert_eq!(
        statistics,
        ["consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure"]
    );
}

proptest! {
    /// Whatever fails, returns and goes, the count is right and the share not above what is allowed.
    #[test]
    fn the_share_of_ejected_is_never_above_the_limit(
        percent in 0u32..120,
        always_eject_one: bool,
        base in 0u64..400,
        interval in 0u64..40,
        steps in prop::collection::vec((0usize..12, 0u8..4, 0u64..50), 1..200),
    ) {
        let settings = OutlierDetection {
            max_ejection_percent: percent,
            always_eject_one,
            base_ejection_time: seconds(base),
            interval: seconds(interval),
            ..OutlierDetection::default()
        };
        let mut all = endpoints(12);
        let mut detector = Detector::new(seconds(0));
        let mut now = 0;
        for (which, what, later) in steps {
            now += later;
            match what {
                0 | 1 => {
                    let event = eject(&mut detector, &all, which, &settings, now);
                    if let Some(Event::Ejected { duration, .. }) = event {
                        let share = 100 * detector.ejected() <= percent as usize * all.len();
                        prop_assert!(share || always_eject_one && detector.ejected() == 1);
                        prop_assert!(duration >= seconds(base) && duration <= seconds(base.max(300)));
                    }
                }
                2 => {
                    detector.sweep(&settings, seconds(now));
                }
                _ => {
                    detector.remove(&all[which].name);
                    all[which].monitor = Arc::default();
                }
            }
            let flagged = all.iter().filter(|endpoint| endpoint.monitor.is_ejected()).count();
            prop_assert_eq!(flagged, detector.ejected());
        }
        detector.sweep(&settings, seconds(now + 1000));
        prop_assert_eq!(detector.ejected(), 0);
    }
}
