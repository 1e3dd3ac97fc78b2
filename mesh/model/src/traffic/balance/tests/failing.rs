//! Where traffic goes when endpoints are ejected.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::traffic::LocalityLb;
use crate::traffic::outlier::{Detector, Event, Outcome};

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

/// Ten endpoints in the proxy's region, ten in another.
fn two_regions() -> Members {
    let (near, far) = (names("near-", 10), names("far-", 10));
    let near = near.iter().map(|name| (name.as_str(), 1, "eu"));
    let far = far.iter().map(|name| (name.as_str(), 1, "us"));
    members(&near.chain(far).collect::<Vec<_>>())
}

fn judged(algorithm: Algorithm, min_health_percent: u32) -> EffectivePolicy {
    let outliers =
        OutlierDetection { min_health_percent, max_ejection_percent: 100, ..OutlierDetection::default() };
    EffectivePolicy { outlier_detection: Some(outliers), ..policy(algorithm) }
}

fn eject(members: &Members, prefix: &str, count: usize) {
    for name in names(prefix, count) {
        members.get(&name).unwrap().monitor().eject();
    }
}

/// How many of a hundred go to a region.
fn share(row: &[Str], prefix: &str) -> f64 {
    100.0 * row.iter().filter(|uid| uid.starts_with(prefix)).count() as f64 / row.len() as f64
}

#[test]
fn another_region_takes_what_this_one_cannot() {
    // Ejected here, and there; how many of a hundred stay here.
    for (near, far, stays) in [
        (0, 0, 100.0),
        (2, 0, 100.0),
        (3, 0, 98.0),
        (5, 0, 70.0),
        (8, 0, 28.0),
        (10, 0, 0.0),
        (5, 10, 100.0),
        (9, 9, 50.0),
    ] {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::LeastRequest,
            hashing(HashAlgorithm::default()).load_balancer.algorithm,
        ] {
            let all = two_regions();
            eject(&all, "near-", near);
            eject(&all, "far-", far);
            let mut balancer = balancer(&judged(algorithm.clone(), 0), &all);
            let row = row(&mut balancer, 6000, START, 11);
            let found = share(&row, "near-");
            assert!((found - stays).abs() < 2.5, "{near} {far} {algorithm:?}: {found} not {stays}");
            assert!(row.iter().all(|uid| !all.get(uid).unwrap().monitor().is_ejected()));
        }
    }
}

#[test]
fn all_are_used_when_too_few_are_healthy() {
    let all = two_regions();
    eject(&all, "near-", 9);
    eject(&all, "far-", 9);
    let mut calm = balancer(&judged(Algorithm::Random, 10), &all);
    assert!(!calm.plan().is_panicking());
    assert_eq!(counts(&row(&mut calm, 500, START, 1)).len(), 2);
    let mut panicking = balancer(&judged(Algorithm::Random, 11), &all);
    assert!(panicking.plan().is_panicking());
    assert_eq!(counts(&row(&mut panicking, 2000, START, 1)).len(), 20);
    assert_eq!((panicking.plan().left_out().ejected, panicking.plan().total()), (18, 20));
    // A key is led by the same rule.
    let by_hash = judged(hashing(HashAlgorithm::Maglev { table_size: 65_537 }).load_balancer.algorithm, 11);
    assert!(balancer(&by_hash, &all).plan().is_panicking());
}

#[test]
fn nobody_is_left_when_all_are_ejected() {
    let all = weighted(&[1, 1, 0]);
    for uid in ["a", "b"] {
        all.get(uid).unwrap().monitor().eject();
    }
    let mut none = balancer(&judged(Algorithm::LeastRequest, 0), &all);
    assert_eq!(none.pick(&Wanted::at(START), &mut draws(1)).unwrap_err(), NoEndpoint::Ejected(2));
    let mut any = balancer(&judged(Algorithm::LeastRequest, 1), &all);
    assert!(any.pick(&Wanted::at(START), &mut draws(1)).is_ok());
    // Where nobody is judged, nobody is ejected.
    let mut unjudged = balancer(&policy(Algorithm::LeastRequest), &all);
    assert!(unjudged.pick(&Wanted::at(START), &mut draws(1)).is_ok());
}

/// Who is ejected and who fails its checks: an endpoint is used only if neither holds, unless too few are left.
#[test]
fn who_is_ejected_or_fails_its_checks_is_left_out() {
    let checked = |min_health_percent| EffectivePolicy {
        checked: true,
        ..judged(Algorithm::RoundRobin, min_health_percent)
    };
    let unjudged = EffectivePolicy { checked: true, ..policy(Algorithm::RoundRobin) };
    let unchecked = judged(Algorithm::RoundRobin, 0);
    /// Ejected, failing, under which policy: who is used, or why nobody is.
    type Row<'a> = (&'a str, &'a str, &'a EffectivePolicy, Result<&'a str, NoEndpoint>);
    #[rustfmt::skip]
    let table: [Row<'_>; 12] = [
        ("", "", &checked(0), Ok("abc")),
        ("a", "", &checked(0), Ok("bc")),
        ("", "a", &checked(0), Ok("bc")),
        ("a", "a", &checked(0), Ok("bc")),
        ("a", "b", &checked(0), Ok("c")),
        ("a", "bc", &checked(0), Err(NoEndpoint::LeftOut {
            total: 3, left_out: LeftOut { all: 3, ejected: 1, failing: 2 }
        })),
        ("", "abc", &checked(0), Err(NoEndpoint::Failing(3))),
        // Below the panic threshold neither counts.
        ("a", "b", &checked(40), Ok("abc")),
        ("a", "b", &checked(30), Ok("c")),
        ("", "abc", &checked(1), Ok("abc")),
        // Without the setting what was found once does not count.
        ("a", "b", &unjudged, Ok("ac")),
        ("a", "b", &unchecked, Ok("bc")),
    ];
    for (ejected, failing, policy, expected) in table {
        let all = weighted(&[1, 1, 1]);
        for uid in ["a", "b", "c"] {
            let endpoint = all.get(uid).unwrap();
            if ejected.contains(uid) {
                endpoint.monitor().eject();
            }
            assert_eq!(endpoint.note_check(failing.contains(uid), START), failing.contains(uid));
            assert!(!endpoint.note_check(failing.contains(uid), START), "nothing new");
        }
        let mut balancer = balancer(policy, &all);
        let found = match expected {
            Err(_) => Err(balancer.pick(&Wanted::at(START), &mut draws(1)).unwrap_err()),
            Ok(_) => Ok(counts(&row(&mut balancer, 60, START, 1)).keys().copied().collect::<String>()),
        };
        assert_eq!(found.as_deref().map_err(|none| *none), expected, "{ejected} {failing}");
    }
}

/// Who passes its checks again has its share, and warms up first where that is asked for.
#[test]
fn who_passes_its_checks_again_has_its_share() {
    let seconds = Duration::from_secs;
    let warmup = Warmup { duration: seconds(100), minimum_percent: 10.0, aggression: 1.0 };
    for (warmup, at_first) in [(None, 1.0), (Some(warmup), 0.1)] {
        let mut policy = EffectivePolicy { checked: true, ..policy(Algorithm::RoundRobin) };
        policy.load_balancer.warmup = warmup;
        let all = weighted(&[1, 1]);
        let b = all.get("b").unwrap().clone();
        let mut balancer = balancer(&policy, &all);
        let mut turn = |failing, now| {
            assert!(b.note_check(failing, now));
            balancer.replace(plan(&policy, &all), now, &mut draws(1));
            row(&mut balancer, 1000, now, 1)
        };
        assert_shares(&turn(true, seconds(1000)), &[("a", 1.0)], 0.0);
        assert_shares(&turn(false, seconds(1100)), &[("a", 1.0), ("b", at_first)], 0.05);
        let mut warm = Balancer::new(plan(&policy, &all), seconds(1200), &mut draws(1));
        assert_shares(&row(&mut warm, 1000, seconds(1200), 1), &[("a", 1.0), ("b", 1.0)], 0.01);
    }
}

/// A place weighs less only once more than two sevenths of it are gone, and its share goes to the others.
#[test]
fn a_place_that_fails_gives_its_share_away() {
    let to = [("eu".into(), 50), ("us".into(), 50)].into();
    let distribute = Distribute { from: "*".into(), to };
    for (ejected, stays) in [(0, 50.0), (2, 50.0), (5, 100.0 * 0.7 / 1.7), (10, 0.0)] {
        let all = two_regions();
        eject(&all, "near-", ejected);
        let mut policy = judged(Algorithm::RoundRobin, 0);
        let locality = LocalityLb { distribute: [distribute.clone()].into(), ..LocalityLb::default() };
        policy.load_balancer.locality = Some(locality);
        let mut balancer = balancer(&policy, &all);
        let found = share(&row(&mut balancer, 4000, START, 2), "near-");
        assert!((found - stays).abs() < 1.0, "{ejected}: {found}");
        // Keys stay where they are as long as somebody is there: half of them belong to the place.
        policy.load_balancer.algorithm = hashing(HashAlgorithm::default()).load_balancer.algorithm;
        let mut balancer = Balancer::new(plan(&policy, &all), START, &mut draws(2));
        let found = share(&row(&mut balancer, 4000, START, 2), "near-");
        let stays = if ejected < 10 { 50.0 } else { 0.0 };
        assert!((found - stays).abs() < 8.0, "{ejected}: {found}");
    }
}

/// A breaker that opens and closes: an endpoint fails, is left out, returns, and has its full share.
#[test]
fn who_fails_is_left_out_and_has_its_full_share_when_it_is_back() {
    let all = weighted(&[1, 1, 1, 1]);
    let policy = judged(Algorithm::RoundRobin, 0);
    let settings = policy.outlier_detection.clone().unwrap();
    let mut detector = Detector::new(START);
    let mut balancer = balancer(&policy, &all);
    let mut draw = draws(3);
    let (mut now, mut errors, mut events) = (START, 0, Vec::new());
    // Ten requests a second; "b" fails for the first minute.
    while now < Duration::from_secs(180) {
        let found = endpoint(balancer.pick(&Wanted::at(now), &mut draw));
        let fails = &**found.uid() == "b" && now < Duration::from_secs(60);
        errors += u32::from(fails);
        let outcome = Outcome::Response(if fails { 503 } else { 200 });
        let mut changes = Vec::new();
        if let Some(cause) = found.monitor().record(outcome, &settings) {
            changes.extend(detector.eject(found.uid(), found.monitor(), cause, all.len(), &settings, now));
        }
        changes.extend(detector.sweep(&settings, now));
        if !changes.is_empty() {
            balancer.replace(plan(&policy, &all), now, &mut draw);
            events.extend(changes.into_iter().map(|event| (now.as_secs(), event)));
        }
        now += Duration::from_millis(100);
    }
    // Twice five errors, 30 s and 60 s of rest.
    let times: Vec<(u64, bool)> =
        events.iter().map(|(at, event)| (*at, matches!(event, Event::Ejected { .. }))).collect();
    assert_eq!(errors, 10, "{times:?}");
    assert_eq!(times.iter().map(|(_, ejected)| *ejected).collect::<Vec<_>>(), [true, false, true, false]);
    assert!(times[0].0 <= 2 && times[1].0 - times[0].0 >= 30 && times[1].0 - times[0].0 <= 40, "{times:?}");
    assert!(times[3].0 - times[2].0 >= 60 && times[3].0 - times[2].0 <= 70, "{times:?}");
    assert_shares(&row(&mut balancer, 400, now, 1), &[("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)], 0.0);
}

/// A hundred thousand endpoints, all of which fail: nothing takes longer than it should, and no more than may are ejected.
#[test]
fn so_many_endpoints_do_no_harm() {
    let count = 100_000;
    let mut all = Members::default();
    let model = target(("model", 1, "eu"));
    for number in 0..count {
        let mut workload = (*model.workload).clone();
        workload.uid = format!("pod-{number:06}").into();
        all.put(Selected { workload: Arc::new(workload), ..model.clone() }, Labels::default(), START);
    }
    let policy = EffectivePolicy {
        outlier_detection: Some(OutlierDetection::default()),
        ..policy(Algorithm::LeastRequest)
    };
    let settings = policy.outlier_detection.clone().unwrap();
    let mut detector = Detector::new(START);
    for endpoint in all.iter() {
        let cause = (0..5).find_map(|_| endpoint.monitor().record(Outcome::Failed, &settings)).unwrap();
        detector.eject(endpoint.uid(), endpoint.monitor(), cause, all.len(), &settings, START).unwrap();
    }
    assert_eq!(detector.ejected(), count / 10);
    let mut balancer = balancer(&policy, &all);
    assert_eq!((balancer.plan().total(), balancer.plan().left_out().ejected), (count, count / 10));
    let row = row(&mut balancer, 2000, START, 1);
    assert!(row.iter().all(|uid| !all.get(uid).unwrap().monitor().is_ejected()));
    assert!(counts(&row).len() > 1900);
    assert_eq!(detector.sweep(&settings, Duration::from_secs(30)).len(), count / 10);
}

/// `retryRemoteLocalities`: after two attempts in one place, others are tried.
#[test]
fn a_retry_goes_to_another_place_after_two_attempts() {
    let all = two_regions();
    for algorithm in [Algorithm::RoundRobin, hashing(HashAlgorithm::default()).load_balancer.algorithm] {
        let mut balancer = balancer(&judged(algorithm, 0), &all);
        let mut draw = draws(1);
        let mut tried = Vec::new();
        for expected in [0, 0, 1, 1, 0, 0, 1] {
            let wanted = Wanted { hash: Some(77), tried: &tried, ..Wanted::at(START) };
            let Ok(Picked::Endpoint { endpoint, priority }) = balancer.pick(&wanted, &mut draw) else {
                panic!()
            };
            assert_eq!(priority, expected, "after {tried:?}");
            assert!(endpoint.uid().starts_with(["near-", "far-"][priority]));
            tried.push(priority);
        }
        // What was tried of an earlier plan does no harm.
        let wanted = Wanted { tried: &[7, usize::MAX], ..Wanted::at(START) };
        assert!(balancer.pick(&wanted, &mut draw).is_ok());
    }
}
