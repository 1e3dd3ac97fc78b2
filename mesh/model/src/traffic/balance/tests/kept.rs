//! What stays when endpoints and policies are replaced.

use super::*;

#[test]
fn a_member_that_changes_keeps_what_is_known_of_it() {
    let mut all = Members::default();
    assert!(all.is_empty());
    assert!(all.put(target(("a", 1, "eu")), Labels::default(), START));
    assert!(!all.is_empty());
    let active = all.get("a").unwrap().begin();
    all.get("a").unwrap().monitor().eject();
    // The same again is no change; other labels, another weight, another port are.
    assert!(!all.put(target(("a", 1, "eu")), Labels::default(), START));
    let labels: Labels = Arc::new([("version".into(), "v2".into())].into());
    assert!(all.put(target(("a", 1, "eu")), labels.clone(), START));
    assert!(all.put(target(("a", 9, "eu")), labels.clone(), START));
    assert!(all.put(Selected { port: 9090, ..target(("a", 9, "eu")) }, labels, START));
    let changed = all.get("a").unwrap();
    assert_eq!((changed.weight(), changed.target.port, changed.labels.len()), (9, 9090, 1));
    assert!(changed.monitor().is_ejected());
    assert_eq!(changed.active(), 1);
    drop(active);
    assert_eq!(changed.active(), 0);
    // Who is removed and comes again is another.
    assert!(all.remove("a") && !all.remove("a"));
    assert!(all.put(target(("a", 1, "eu")), Labels::default(), START));
    assert!(!all.get("a").unwrap().monitor().is_ejected());
    assert_eq!((all.len(), all.iter().count()), (1, 1));
    assert!(all.get("b").is_none());
    assert!(all.put(target(("b", 1, "eu")), Labels::default(), START));
    assert_eq!((all.len(), all.iter().count()), (2, 2), "of so many a share may be ejected");
}

#[test]
fn a_round_goes_on_where_it_was() {
    let all = weighted(&[1; 6]);
    let policy = policy(Algorithm::RoundRobin);
    let mut straight = balancer(&policy, &all);
    let expected = row(&mut straight, 30, START, 5);
    let mut replaced = balancer(&policy, &all);
    let mut found = Vec::new();
    for pick in 0..30 {
        found.extend(row(&mut replaced, 1, START, 5));
        if pick % 4 == 1 {
            replaced.replace(plan(&policy, &all), START, &mut draws(pick));
        }
    }
    assert_eq!(found, expected);
}

/// If turns began anew with each plan, those that come first would have all of them.
#[test]
fn turns_by_weight_go_on_where_they_were() {
    let all = weighted(&[1, 2, 3, 4]);
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest] {
        let policy = policy(algorithm);
        let mut balancer = balancer(&policy, &all);
        let mut found = Vec::new();
        for pick in 0..1000 {
            found.extend(row(&mut balancer, 1, START, 5));
            balancer.replace(plan(&policy, &all), START, &mut draws(pick));
        }
        assert_shares(&found, &[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)], 0.02);
    }
}

/// Else it would wait for as many turns of others as its old weight was worth.
#[test]
fn who_weighs_more_now_does_not_wait_by_its_old_weight() {
    let policy = policy(Algorithm::RoundRobin);
    let mut all = members(&[("a", 1, ""), ("b", 1000, "")]);
    let mut balancer = balancer(&policy, &all);
    while &*row(&mut balancer, 1, START, 5)[0] != "a" {}
    all.put(target(("a", 1000, "")), Labels::default(), START);
    all.put(target(("c", 500, "")), Labels::default(), START);
    balancer.replace(plan(&policy, &all), START, &mut draws(1));
    let row = row(&mut balancer, 50, START, 5);
    assert_shares(&row, &[("a", 2.0), ("b", 2.0), ("c", 1.0)], 0.15);
}

#[test]
fn who_comes_and_goes_does_not_disturb_the_others_turns() {
    let policy = policy(Algorithm::RoundRobin);
    let mut all = weighted(&[1, 2, 3]);
    let mut balancer = balancer(&policy, &all);
    let mut found = Vec::new();
    for pick in 0..3000u64 {
        found.extend(row(&mut balancer, 1, START, 5));
        if pick % 2 == 0 {
            all.put(target(("new", 3, "")), Labels::default(), START);
        } else {
            all.remove("new");
        }
        balancer.replace(plan(&policy, &all), START, &mut draws(pick));
    }
    found.retain(|uid| &**uid != "new");
    assert_shares(&found, &[("a", 1.0), ("b", 2.0), ("c", 3.0)], 0.1);
}

#[test]
fn another_algorithm_takes_over() {
    let all = weighted(&[1, 1, 8]);
    let mut balancer = balancer(&policy(Algorithm::RoundRobin), &all);
    let mut draw = draws(1);
    for (algorithm, third) in [
        (Algorithm::Random, 1.0),
        (Algorithm::LeastRequest, 8.0),
        (hashing(HashAlgorithm::default()).load_balancer.algorithm, 8.0),
        (Algorithm::RoundRobin, 8.0),
        (Algorithm::Random, 1.0),
    ] {
        balancer.replace(plan(&policy(algorithm), &all), START, &mut draw);
        let row = row(&mut balancer, 5000, START, 4);
        assert_shares(&row, &[("a", 1.0), ("b", 1.0), ("c", third)], 0.15);
    }
    balancer.replace(plan(&policy(Algorithm::Passthrough), &all), START, &mut draw);
    assert!(matches!(balancer.pick(&Wanted::at(START), &mut draw), Ok(Picked::Original)));
    balancer.replace(plan(&policy(Algorithm::Random), &Members::default()), START, &mut draw);
    assert!(balancer.pick(&Wanted::at(START), &mut draw).is_err());
}
