//! Who is picked, how often, and who is picked when others fail.

mod failing;
mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Active, Balancer, Endpoint, Labels, LeftOut, Members, NoEndpoint, Picked, Plan, Proxy, Wanted};
use crate::address::Str;
use crate::fixtures::{draws, edit, ip, workload};
use crate::select::Selected;
use crate::service::LoadBalancing;
use crate::traffic::hash::xxh64;
use crate::traffic::{
    Algorithm, ConsistentHash, Distribute, EffectivePolicy, HashAlgorithm, HashKey, LoadBalancer, LocalityLb,
    OutlierDetection, Warmup,
};
use crate::workload::Locality;

const START: Duration = Duration::ZERO;

/// An endpoint to be: name, weight, region.
type Spec<'a> = (&'a str, u32, &'a str);

/// Each name has an address of its own.
fn target((uid, capacity, region): Spec<'_>) -> Selected {
    let [high, mid, low, ..] = xxh64(uid.as_bytes(), 0).to_le_bytes();
    let address = format!("10.{high}.{mid}.{low}");
    let workload = edit(workload(uid, &[&address]), |profile| {
        profile.capacity = capacity;
        profile.locality = Locality { region: region.into(), ..Locality::default() };
    });
    Selected { workload: Arc::new(workload), port: 8080, ip: ip(&address) }
}

fn members(specs: &[Spec<'_>]) -> Members {
    let mut members = Members::default();
    for spec in specs {
        members.put(target(*spec), Labels::default(), START);
    }
    members
}

/// Endpoints with these weights, named by their places: `a`, `b`, …
fn weighted(weights: &[u32]) -> Members {
    let names: Vec<String> = (b'a'..=b'z').map(|name| char::from(name).to_string()).collect();
    let specs: Vec<Spec<'_>> =
        weights.iter().zip(&names).map(|(weight, name)| (name.as_str(), *weight, "")).collect();
    members(&specs)
}

fn policy(algorithm: Algorithm) -> EffectivePolicy {
    EffectivePolicy {
        load_balancer: LoadBalancer { algorithm, ..LoadBalancer::default() },
        ..EffectivePolicy::default()
    }
}

fn hashing(algorithm: HashAlgorithm) -> EffectivePolicy {
    policy(Algorithm::ConsistentHash(ConsistentHash { key: HashKey::SourceIp, algorithm }))
}

fn plan(policy: &EffectivePolicy, members: &Members) -> Arc<Plan> {
    let proxy = edit(workload("proxy", &[]), |profile| profile.locality.region = "eu".into());
    let labels = BTreeMap::new();
    let proxy = Proxy { workload: &proxy, labels: &labels };
    Arc::new(Plan::new(policy, &LoadBalancing::default(), &proxy, members.iter()))
}

fn balancer(policy: &EffectivePolicy, members: &Members) -> Balancer {
    Balancer::new(plan(policy, members), START, &mut draws(1))
}

fn endpoint(picked: Result<Picked, NoEndpoint>) -> Arc<Endpoint> {
    match picked {
        Ok(Picked::Endpoint { endpoint, .. }) => endpoint,
        other => panic!("{other:?}"),
    }
}

/// Who is picked in a row, nothing being under way when it is.
fn row(balancer: &mut Balancer, count: usize, now: Duration, seed: u64) -> Vec<Str> {
    let mut draw = draws(seed);
    (0..count).map(|_| endpoint(balancer.pick(&Wanted::at(now), &mut draw)).uid().clone()).collect()
}

fn counts(row: &[Str]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for uid in row {
        *counts.entry(&**uid).or_default() += 1;
    }
    counts
}

/// Whether counts are those of the shares, but for so much of each.
fn assert_shares(row: &[Str], shares: &[(&str, f64)], tolerance: f64) {
    let sum: f64 = shares.iter().map(|(_, share)| share).sum();
    let counts = counts(row);
    for (name, share) in shares {
        let (is, should) = (*counts.get(name).unwrap_or(&0) as f64, row.len() as f64 * share / sum);
        assert!((is - should).abs() <= tolerance * should.max(1.0), "{name}: {is} of {should} in {counts:?}");
    }
    assert_eq!(
        shares.iter().filter_map(|(name, _)| counts.get(name)).sum::<usize>(),
        row.len(),
        "{counts:?}"
    );
}

#[test]
fn a_round_goes_round() {
    let mut balancer = balancer(&policy(Algorithm::RoundRobin), &weighted(&[1, 1, 1, 1]));
    let row = row(&mut balancer, 12, START, 3);
    assert_eq!(row[..4], row[4..8]);
    assert_eq!(row[..4], row[8..]);
    assert_eq!(counts(&row).len(), 4);
    // It begins anywhere.
    let begins = |seed| {
        let all = weighted(&[1, 1, 1, 1]);
        let plan = plan(&policy(Algorithm::RoundRobin), &all);
        let mut balancer = Balancer::new(plan, START, &mut draws(seed));
        self::row(&mut balancer, 1, START, seed)[0].clone()
    };
    let firsts: std::collections::BTreeSet<Str> = (0..40).map(begins).collect();
    assert_eq!(firsts.len(), 4);
}

#[test]
fn turns_are_by_weight() {
    let all = weighted(&[1, 2, 7]);
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest] {
        let mut balancer = balancer(&policy(algorithm), &all);
        let row = row(&mut balancer, 1000, START, 5);
        assert_shares(&row, &[("a", 1.0), ("b", 2.0), ("c", 7.0)], 0.02);
        // Evenly spread: of any ten in a row, each has its share but for one.
        for some in row.windows(10) {
            for (name, share) in [("a", 1), ("b", 2), ("c", 7)] {
                let count = some.iter().filter(|uid| &***uid == name).count();
                assert!(usize::abs_diff(count, share) <= 1, "{some:?}");
            }
        }
    }
}

/// As in Envoy.
#[test]
fn random_does_not_heed_weights() {
    let mut balancer = balancer(&policy(Algorithm::Random), &weighted(&[1, 2, 7, 0]));
    let row = row(&mut balancer, 9000, START, 5);
    assert_shares(&row, &[("a", 1.0), ("b", 1.0), ("c", 1.0)], 0.05);
}

#[test]
fn the_less_busy_of_two_is_picked() {
    let all = weighted(&[1, 1, 1]);
    let busy: Vec<Active> = (0..5).map(|_| all.get("a").unwrap().begin()).collect();
    let mut balancer = balancer(&policy(Algorithm::LeastRequest), &all);
    // Of nine pairs, one is the busy endpoint twice, and four are each other one's.
    let shares = [("a", 1.0), ("b", 4.0), ("c", 4.0)];
    assert_shares(&row(&mut balancer, 9000, START, 5), &shares, 0.06);
    drop(busy);
    assert_eq!(all.get("a").unwrap().active(), 0);
    assert_shares(&row(&mut balancer, 9000, START, 6), &[("a", 1.0), ("b", 1.0), ("c", 1.0)], 0.05);
}

/// The weight is divided by one more than what is under way.
#[test]
fn of_different_weights_the_busy_weigh_less() {
    let all = weighted(&[1, 4]);
    let _busy: Vec<Active> = (0..7).map(|_| all.get("b").unwrap().begin()).collect();
    let mut balancer = balancer(&policy(Algorithm::LeastRequest), &all);
    assert_shares(&row(&mut balancer, 900, START, 5), &[("a", 2.0), ("b", 1.0)], 0.02);
    let mut balancer = self::balancer(&policy(Algorithm::RoundRobin), &all);
    assert_shares(&row(&mut balancer, 900, START, 5), &[("a", 1.0), ("b", 4.0)], 0.02);
}

#[test]
fn requests_that_last_are_spread_by_least_request() {
    let all = weighted(&[1; 10]);
    let mut balancer = balancer(&policy(Algorithm::LeastRequest), &all);
    let mut draw = draws(9);
    let active: Vec<Active> =
        (0..1000).map(|_| endpoint(balancer.pick(&Wanted::at(START), &mut draw)).begin()).collect();
    // Two choices keep the busiest within a few of the mean; one choice would have it twenty or more above.
    let busiest = all.iter().map(|endpoint| endpoint.active()).max();
    assert!(busiest.is_some_and(|busiest| busiest <= 105), "{busiest:?}");
    drop(active);
    assert!(all.iter().all(|endpoint| endpoint.active() == 0));
}

#[test]
fn the_same_key_leads_to_the_same_endpoint() {
    let all = weighted(&[1; 5]);
    for algorithm in [HashAlgorithm::default(), HashAlgorithm::Maglev { table_size: 65_537 }] {
        let mut balancer = balancer(&hashing(algorithm), &all);
        let mut draw = draws(4);
        let mut found = Vec::new();
        for key in 0..200u64 {
            let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let wanted = Wanted { hash: Some(hash), ..Wanted::at(START) };
            let first = endpoint(balancer.pick(&wanted, &mut draw));
            for _ in 0..3 {
                assert_eq!(endpoint(balancer.pick(&wanted, &mut draw)).uid(), first.uid());
            }
            // Kept away from, it leads to another, and always to the same.
            let avoid = |endpoint: &Endpoint| endpoint.uid() == first.uid();
            let wanted = Wanted { avoid: &avoid, ..wanted };
            let other = endpoint(balancer.pick(&wanted, &mut draw));
            assert_eq!(endpoint(balancer.pick(&wanted, &mut draw)).uid(), other.uid());
            found.extend([first.uid().clone(), other.uid().clone()]);
        }
        assert_eq!(counts(&found).len(), 5);
        // Without a key: any.
        let row = row(&mut balancer, 500, START, 8);
        assert_eq!(counts(&row).len(), 5, "{:?}", counts(&row));
    }
}

#[test]
fn passthrough_picks_nobody() {
    for all in [weighted(&[1, 1]), Members::default()] {
        let mut balancer = balancer(&policy(Algorithm::Passthrough), &all);
        assert!(matches!(balancer.pick(&Wanted::at(START), &mut draws(1)), Ok(Picked::Original)));
    }
}

#[test]
fn who_failed_is_kept_away_from_while_there_are_others() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastRequest] {
        let mut balancer = balancer(&policy(algorithm.clone()), &weighted(&[1, 1]));
        let avoid = |endpoint: &Endpoint| &**endpoint.uid() == "a";
        let wanted = Wanted { avoid: &avoid, ..Wanted::at(START) };
        let mut draw = draws(7);
        let avoided =
            (0..1000).filter(|_| &**endpoint(balancer.pick(&wanted, &mut draw)).uid() == "b").count();
        // Six attempts do not always find another.
        assert!(avoided >= 900, "{algorithm:?}: {avoided}");
        let nobody = Wanted { avoid: &|_| true, ..Wanted::at(START) };
        assert!(balancer.pick(&nobody, &mut draw).is_ok(), "better somebody that failed than nobody");
    }
}

#[test]
fn a_new_endpoint_is_warmed_up() {
    let seconds = Duration::from_secs;
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest] {
        let warmup = Some(Warmup::of(seconds(100)));
        let load_balancer = LoadBalancer { algorithm, warmup, ..LoadBalancer::default() };
        let policy = EffectivePolicy { load_balancer, ..EffectivePolicy::default() };
        let mut all = weighted(&[1, 1]);
        all.put(target(("new", 1, "")), Labels::default(), seconds(1000));
        // Seconds after it came, its share of the others'.
        for (gone, share) in [(0, 0.1), (10, 0.1), (50, 0.5), (90, 0.9), (100, 1.0), (500, 1.0)] {
            let now = seconds(1000 + gone);
            let mut balancer = Balancer::new(plan(&policy, &all), now, &mut draws(2));
            let row = row(&mut balancer, 2100, now, 3);
            assert_shares(&row, &[("a", 1.0), ("b", 1.0), ("new", share)], 0.1);
        }
        // A balancer that was made while it was cold finds it warm in time.
        let mut balancer = Balancer::new(plan(&policy, &all), seconds(1000), &mut draws(2));
        let _ = row(&mut balancer, 50, seconds(1000), 3);
        let row = row(&mut balancer, 300, seconds(1100), 3);
        assert_shares(&row, &[("a", 1.0), ("b", 1.0), ("new", 1.0)], 0.15);
    }
    // Random and hashes know no warm-up.
    let warmup = Some(Warmup::of(seconds(100)));
    let load_balancer = LoadBalancer { algorithm: Algorithm::Random, warmup, ..LoadBalancer::default() };
    let policy = EffectivePolicy { load_balancer, ..EffectivePolicy::default() };
    let mut balancer = balancer(&policy, &weighted(&[1, 1]));
    assert_shares(&row(&mut balancer, 2000, START, 3), &[("a", 1.0), ("b", 1.0)], 0.1);
}

#[test]
fn traffic_goes_to_places_as_written() {
    let all = members(&[("a", 1, "eu"), ("b", 1, "eu"), ("c", 1, "eu"), ("d", 1, "us"), ("e", 5, "as")]);
    let distribute = Distribute { from: "eu".into(), to: [("eu".into(), 75), ("us".into(), 25)].into() };
    for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
        let locality = LocalityLb { distribute: [distribute.clone()].into(), ..LocalityLb::default() };
        let load_balancer = LoadBalancer { algorithm, locality: Some(locality), ..LoadBalancer::default() };
        let policy = EffectivePolicy { load_balancer, ..EffectivePolicy::default() };
        let mut balancer = balancer(&policy, &all);
        let row = row(&mut balancer, 8000, START, 3);
        assert_shares(&row, &[("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)], 0.06);
    }
}

#[test]
fn nobody_is_said_to_be_absent() {
    for all in [Members::default(), weighted(&[0, 0])] {
        for algorithm in [Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastRequest] {
            let mut balancer = balancer(&policy(algorithm), &all);
            let found = balancer.pick(&Wanted::at(START), &mut draws(1));
            assert_eq!(found.unwrap_err(), NoEndpoint::Absent);
        }
        for algorithm in [HashAlgorithm::default(), HashAlgorithm::Maglev { table_size: 7 }] {
            let mut balancer = balancer(&hashing(algorithm), &all);
            let found = balancer.pick(&Wanted::at(START), &mut draws(1));
            assert_eq!(found.unwrap_err(), NoEndpoint::Absent);
        }
    }
    assert_eq!(NoEndpoint::FLAG, "UH");
    assert!(NoEndpoint::Absent.to_string().contains("no endpoint"));
    assert!(NoEndpoint::Ejected(3).to_string().contains("all of its 3 endpoints are ejected"));
    assert!(NoEndpoint::Failing(3).to_string().contains("all of its 3 endpoints fail their health check"));
    let left_out = LeftOut { all: 3, ejected: 1, failing: 2 };
    let text = NoEndpoint::LeftOut { total: 3, left_out }.to_string();
    assert!(text.contains("of its 3 endpoints 1 are ejected by outlierDetection and 2 fail"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the weights, each has its share; without any weight nothing.
    #[test]
    fn shares_are_by_weight(weights in prop::collection::vec(0u32..20, 2..10), seed: u64) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let all = weighted(&weights);
        let sum: u32 = weights.iter().sum();
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest] {
            let equal = weights.iter().filter(|weight| **weight > 0).collect::<std::collections::BTreeSet<_>>().len() == 1;
            let mut draw = draws(seed);
            let mut balancer = Balancer::new(plan(&policy(algorithm.clone()), &all), START, &mut draw);
            let rounds = 20;
            let row = row(&mut balancer, (rounds * sum) as usize, START, seed);
            let counts = counts(&row);
            for (weight, endpoint) in weights.iter().zip(all.iter()) {
                let is = *counts.get(&**endpoint.uid()).unwrap_or(&0);
                prop_assert!(*weight > 0 || is == 0);
                // Two choices among equals are random, turns are not.
                if !(equal && algorithm == Algorithm::LeastRequest) {
                    prop_assert!(is.abs_diff((rounds * weight) as usize) <= 2, "{} of {}", is, rounds * weight);
                }
            }
        }
    }

    /// Whatever the weights, priorities and algorithm: somebody who may be picked is.
    #[test]
    fn who_is_picked_has_weight_and_is_not_ejected(
        specs in prop::collection::vec((0u32..4, 0u8..3, any::<bool>()), 1..12),
        which in 0u8..5,
        min_health_percent in 0u32..110,
        seed: u64,
        hash: u64,
    ) {
        let algorithm = match which {
            0 => Algorithm::RoundRobin,
            1 => Algorithm::Random,
            2 => Algorithm::LeastRequest,
            3 => hashing(HashAlgorithm::default()).load_balancer.algorithm,
            _ => hashing(HashAlgorithm::Maglev { table_size: 101 }).load_balancer.algorithm,
        };
        let names: Vec<String> = (0..specs.len()).map(|number| format!("e{number}")).collect();
        let regions = ["eu", "us", "as"];
        let all: Vec<Spec<'_>> = specs
            .iter()
            .zip(&names)
            .map(|((weight, region, _), name)| (name.as_str(), *weight, regions[usize::from(*region)]))
            .collect();
        let all = members(&all);
        for ((_, _, ejected), name) in specs.iter().zip(&names) {
            if *ejected {
                all.get(name).unwrap().monitor().eject();
            }
        }
        let outliers = OutlierDetection { min_health_percent, ..OutlierDetection::default() };
        let policy = EffectivePolicy { outlier_detection: Some(outliers), ..policy(algorithm) };
        let mut draw = draws(seed);
        let mut balancer = Balancer::new(plan(&policy, &all), START, &mut draw);
        let healthy = all.iter().filter(|one| one.weight() > 0 && !one.monitor().is_ejected()).count();
        let present = all.iter().filter(|one| one.weight() > 0).count();
        for _ in 0..20 {
            let wanted = Wanted { hash: Some(hash), ..Wanted::at(START) };
            match balancer.pick(&wanted, &mut draw) {
                Ok(Picked::Endpoint { endpoint: found, .. }) => {
                    prop_assert!(found.weight() > 0);
                    prop_assert!(!found.monitor().is_ejected() || balancer.plan().is_panicking());
                }
                Ok(Picked::Original) => prop_assert!(false),
                Err(NoEndpoint::Absent) => prop_assert_eq!(present, 0),
                Err(NoEndpoint::Ejected(count)) => {
                    prop_assert_eq!(count, present);
                    prop_assert!(healthy == 0 && min_health_percent == 0);
                }
                Err(NoEndpoint::Failing(_) | NoEndpoint::LeftOut { .. }) => prop_assert!(false),
            }
        }
    }
}
