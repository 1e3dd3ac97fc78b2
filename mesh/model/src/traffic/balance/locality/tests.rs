//! Who comes first, and how much goes where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Arrangement, arrange, matches};
use crate::address::Str;
use crate::fixtures::{edit, ip, workload};
use crate::select::Selected;
use crate::service::{LoadBalancing, LoadBalancingMode, Scope};
use crate::traffic::balance::{Endpoint, Labels, Members, Proxy};
use crate::traffic::{
    Distribute, EffectivePolicy, Failover, LoadBalancer, LocalityLb, OutlierDetection, PriorityLabel,
};
use crate::workload::{Locality, Workload};

fn locality(place: &str) -> Locality {
    let mut parts = place.split('/');
    let [region, zone, subzone] = std::array::from_fn(|_| Str::from(parts.next().unwrap_or_default()));
    Locality { region, zone, subzone }
}

fn at(uid: &str, place: &str) -> Workload {
    edit(workload(uid, &["10.0.0.1"]), |profile| profile.locality = locality(place))
}

fn target(workload: Workload) -> Selected {
    Selected { workload: Arc::new(workload), port: 8080, ip: ip("10.0.0.1") }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Arc::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

/// Endpoints named by where they are.
fn members(places: &[&str]) -> Members {
    let mut members = Members::default();
    for place in places {
        members.put(target(at(place, place)), Labels::default(), Duration::ZERO);
    }
    members
}

fn policy(locality: Option<LocalityLb>, outliers: bool) -> EffectivePolicy {
    EffectivePolicy {
        load_balancer: LoadBalancer { locality, ..LoadBalancer::default() },
        outlier_detection: outliers.then(OutlierDetection::default),
        ..EffectivePolicy::default()
    }
}

fn arranged(
    policy: &EffectivePolicy,
    service: &LoadBalancing,
    proxy: &Workload,
    members: &Members,
) -> Arrangement {
    let labels = BTreeMap::from([("version".into(), "v1".into()), ("team".into(), "a".into())]);
    arrange(policy, service, &Proxy { workload: proxy, labels: &labels }, members.iter())
}

/// The uids of each priority.
fn priorities(arrangement: &Arrangement) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for group in &arrangement.groups {
        found.resize(found.len().max(group.priority as usize + 1), Vec::new());
        let uid = |endpoint: &Arc<Endpoint>| endpoint.uid().to_string();
        found[group.priority as usize].extend(group.members.iter().map(uid));
    }
    found.iter_mut().for_each(|uids| uids.sort());
    found
}

fn distribute(from: &str, to: &[(&str, u32)]) -> Distribute {
    Distribute {
        from: from.into(),
        to: to.iter().map(|(place, weight)| ((*place).into(), *weight)).collect(),
    }
}

fn failover(from: &str, to: &str) -> Failover {
    Failover { from: from.into(), to: to.into() }
}

fn by_label(label: &str) -> PriorityLabel {
    match label.split_once('=') {
        Some((name, value)) => PriorityLabel { name: name.into(), value: Some(value.into()) },
        None => PriorityLabel { name: label.into(), value: None },
    }
}

const PLACES: [&str; 6] = ["eu/1/a", "eu/1/b", "eu/2/a", "us/1/a", "us/2/a", "as/1/a"];

#[test]
fn who_is_near_comes_first_if_somebody_may_be_found_unhealthy() {
    let regions = |list: &[Failover]| Some(LocalityLb { failover: list.into(), ..LocalityLb::default() });
    let disabled = Some(LocalityLb { enabled: false, ..LocalityLb::default() });
    let all: &[&str] = &["as/1/a", "eu/1/a", "eu/1/b", "eu/2/a", "us/1/a", "us/2/a"];
    let near: &[&[&str]] = &[&["eu/1/a"], &["eu/1/b"], &["eu/2/a"], &["as/1/a", "us/1/a", "us/2/a"]];
    type Row<'a> = (Option<LocalityLb>, bool, &'a str, &'a [&'a [&'a str]], bool);
    let table: [Row<'_>; 9] = [
        // Without outlier detection nothing is ever failed over from.
        (None, false, "eu/1/a", &[all], false),
        (disabled, true, "eu/1/a", &[all], false),
        (None, true, "eu/1/a", near, false),
        (regions(&[]), true, "eu/1/a", near, false),
        (None, true, "eu/2/b", &[&["eu/2/a"], &["eu/1/a", "eu/1/b"], &["as/1/a", "us/1/a", "us/2/a"]], false),
        // Nobody is in this region: all come first.
        (None, true, "af/1/a", &[all], false),
        // Another region stands in; the rest comes after it. What is said of other regions does not count.
        (
            regions(&[failover("us", "eu"), failover("eu", "us"), failover("eu", "as")]),
            true,
            "eu/1/a",
            &[&["eu/1/a"], &["eu/1/b"], &["eu/2/a"], &["us/1/a", "us/2/a"], &["as/1/a"]],
            true,
        ),
        (regions(&[failover("us", "eu")]), true, "eu/1/a", near, true),
        (regions(&[failover("us", "eu")]), false, "eu/1/a", &[all], false),
    ];
    for (locality, outliers, proxy, expected, by_place) in table {
        let policy = policy(locality, outliers);
        let found = arranged(&policy, &LoadBalancing::default(), &at("proxy", proxy), &members(&PLACES));
        assert_eq!(priorities(&found), expected, "{policy:?} at {proxy}");
        assert_eq!(found.by_place, by_place, "{policy:?}");
    }
}

/// Where endpoints are checked somebody may be found unhealthy: what is written of failing over counts, and what is not written
/// does not.
#[test]
fn checks_fail_over_where_that_is_written() {
    let written = LocalityLb { failover: [failover("eu", "us")].into(), ..LocalityLb::default() };
    for (locality, priorities) in [(None, 1), (Some(written), 5)] {
        let policy = EffectivePolicy { checked: true, ..policy(locality, false) };
        let found = arranged(&policy, &LoadBalancing::default(), &at("proxy", "eu/1/a"), &members(&PLACES));
        assert_eq!(self::priorities(&found).len(), priorities, "{policy:?}");
    }
}

/// Endpoints by labels: name, labels, what of the profile differs.
fn labelled() -> Members {
    let mut members = Members::default();
    let mut put = |uid: &str, pairs: &[(&str, &str)], network: &str, cluster: &str, node: &str| {
        let mut workload = edit(at(uid, "eu/1/a"), |profile| {
            profile.network = network.into();
            profile.cluster = cluster.into();
        });
        workload.node = node.into();
        members.put(target(workload), labels(pairs), Duration::ZERO);
    };
    put("same", &[("version", "v1"), ("team", "a")], "", "", "");
    put("team", &[("version", "v2"), ("team", "a")], "", "", "");
    put("version", &[("version", "v1"), ("team", "b")], "", "", "");
    put("other", &[], "", "one", "node");
    put("far", &[("version", "v1"), ("team", "a")], "net", "", "");
    members
}

#[test]
fn who_shares_more_labels_from_the_first_comes_sooner() {
    let table: [(&[&str], &[&[&str]]); 9] = [
        (&["version", "team"], &[&["far", "same"], &["version"], &["other", "team"]]),
        (&["team", "version"], &[&["far", "same"], &["team"], &["other", "version"]]),
        (&["version=v2"], &[&["team"], &["far", "other", "same", "version"]]),
        (&["version=v2", "team"], &[&["team"], &["far", "other", "same", "version"]]),
        // None has it, so all share that.
        (&["unknown"], &[&["far", "other", "same", "team", "version"]]),
        (&["unknown=x"], &[&["far", "other", "same", "team", "version"]]),
        (&["topology.istio.io/cluster=one"], &[&["other"], &["far", "same", "team", "version"]]),
        (&["kubernetes.io/hostname=node"], &[&["other"], &["far", "same", "team", "version"]]),
        // The network first: all of this one before any of another.
        (&["topology.istio.io/network", "version"], &[&["same", "version"], &["other", "team"], &["far"]]),
    ];
    for (wanted, expected) in table {
        let locality = LocalityLb {
            failover_priority: wanted.iter().map(|label| by_label(label)).collect(),
            ..LocalityLb::default()
        };
        let policy = policy(Some(locality), true);
        let found = arranged(&policy, &LoadBalancing::default(), &at("proxy", "eu/1/a"), &labelled());
        assert_eq!(priorities(&found), expected, "{wanted:?}");
        assert!(found.by_place);
    }
}

/// Those of another network come after all of this one, and among them the labels count likewise.
#[test]
fn labels_count_in_another_network_too() {
    let mut all = Members::default();
    for (uid, network, version) in
        [("near-v1", "", "v1"), ("near-v2", "", "v2"), ("far-v1", "net", "v1"), ("far-v2", "net", "v2")]
    {
        let workload = edit(at(uid, "eu/1/a"), |profile| profile.network = network.into());
        all.put(target(workload), labels(&[("version", version)]), Duration::ZERO);
    }
    for (wanted, expected) in [
        (
            ["topology.istio.io/network", "version"],
            vec![vec!["near-v1"], vec!["near-v2"], vec!["far-v1"], vec!["far-v2"]],
        ),
        // Not the first: it is a label like any other.
        (
            ["version", "topology.istio.io/network"],
            vec![vec!["near-v1"], vec!["far-v1"], vec!["far-v2", "near-v2"]],
        ),
    ] {
        let locality = LocalityLb { failover_priority: wanted.map(by_label).into(), ..LocalityLb::default() };
        let policy = policy(Some(locality), true);
        let found = arranged(&policy, &LoadBalancing::default(), &at("proxy", "eu/1/a"), &all);
        assert_eq!(priorities(&found), expected, "{wanted:?}");
    }
}

#[test]
fn topology_has_labels_of_its_own() {
    for (label, expected) in [
        ("topology.kubernetes.io/region", vec![vec!["eu/1/a", "eu/1/b", "eu/2/a"], vec!["us/1/a"]]),
        ("topology.kubernetes.io/zone", vec![vec!["eu/1/a", "eu/1/b", "us/1/a"], vec!["eu/2/a"]]),
        ("topology.istio.io/subzone", vec![vec!["eu/1/a", "eu/2/a", "us/1/a"], vec!["eu/1/b"]]),
    ] {
        let locality = LocalityLb { failover_priority: [by_label(label)].into(), ..LocalityLb::default() };
        let policy = policy(Some(locality), true);
        let found =
            arranged(&policy, &LoadBalancing::default(), &at("proxy", "eu/1/a"), &members(&PLACES[..4]));
        assert_eq!(priorities(&found), expected, "{label}");
    }
}

#[test]
fn labels_come_before_regions() {
    let locality = LocalityLb {
        failover_priority: [by_label("topology.kubernetes.io/zone=1")].into(),
        failover: [failover("eu", "us")].into(),
        ..LocalityLb::default()
    };
    let found = arranged(
        &policy(Some(locality), true),
        &LoadBalancing::default(),
        &at("proxy", "eu/1/a"),
        &members(&PLACES),
    );
    let expected: [&[&str]; 6] =
        [&["eu/1/a"], &["eu/1/b"], &["us/1/a"], &["as/1/a"], &["eu/2/a"], &["us/2/a"]];
    assert_eq!(priorities(&found), expected);
}

#[test]
fn a_service_prefers_where_no_rule_says_otherwise() {
    let zone = LoadBalancing {
        preference: [Scope::Network, Scope::Region, Scope::Zone].into(),
        mode: LoadBalancingMode::Failover,
        allow_unhealthy: false,
    };
    let proxy = at("proxy", "eu/1/a");
    let all = members(&PLACES);
    // Also without outlier detection: endpoints that are not ready are left out as well.
    for outliers in [false, true] {
        let found = arranged(&policy(None, outliers), &zone, &proxy, &all);
        let expected: [&[&str]; 3] = [&["eu/1/a", "eu/1/b"], &["eu/2/a"], &["as/1/a", "us/1/a", "us/2/a"]];
        assert_eq!(priorities(&found), expected);
    }
    let strict = LoadBalancing { mode: LoadBalancingMode::Strict, ..zone.clone() };
    let found = arranged(&policy(None, true), &strict, &proxy, &all);
    assert_eq!(priorities(&found), [["eu/1/a", "eu/1/b"]]);
    let found = arranged(&policy(Some(LocalityLb::default()), false), &zone, &proxy, &all);
    assert_eq!(priorities(&found).len(), 1, "the rule is believed before the service");
    for scope in [Scope::Node, Scope::Cluster, Scope::Subzone] {
        let service = LoadBalancing { preference: [scope].into(), ..zone.clone() };
        let node = Workload {
            node: "n".into(),
            ..edit(at("proxy", "eu/1/b"), |profile| profile.cluster = "c".into())
        };
        let near = Workload { uid: "near".into(), ..node.clone() };
        let mut both = members(&["eu/1/a"]);
        both.put(target(near), Labels::default(), Duration::ZERO);
        let found = arranged(&policy(None, false), &service, &node, &both);
        assert_eq!(priorities(&found), [["near"], ["eu/1/a"]], "{scope:?}");
    }
}

#[test]
fn traffic_is_spread_over_places_as_written() {
    type Row<'a> = (Vec<Distribute>, &'a str, &'a [(&'a str, u64)]);
    #[rustfmt::skip]
    let table: [Row<'_>; 8] = [
        (vec![distribute("eu/*", &[("eu/1/a", 80), ("us/*", 20)])], "eu/1/a",
         &[("eu/1/a", 80), ("us/1/a", 10), ("us/2/a", 10)]),
        // The first entry for the place counts; others are for others.
        (vec![distribute("us", &[("us", 100)]), distribute("eu/1", &[("eu/2", 100)]), distribute("*", &[("as", 100)])], "eu/1/a",
         &[("eu/2/a", 100)]),
        (vec![distribute("*", &[("as", 100)]), distribute("eu/1", &[("eu/2", 100)])], "eu/1/a", &[("as/1/a", 100)]),
        // Rounded up, each.
        (vec![distribute("*", &[("*", 100)])], "eu/1/a",
         &[("as/1/a", 17), ("eu/1/a", 17), ("eu/1/b", 17), ("eu/2/a", 17), ("us/1/a", 17), ("us/2/a", 17)]),
        // The first of the places that an endpoint is in.
        (vec![distribute("*", &[("eu/1/*", 70), ("eu/*", 30)])], "eu/1/a", &[("eu/1/a", 35), ("eu/1/b", 35), ("eu/2/a", 30)]),
        (vec![distribute("*", &[("eu/1/a", 0), ("us/1", 100)])], "eu/1/a", &[("us/1/a", 100)]),
        // Nobody is there.
        (vec![distribute("*", &[("af", 100)])], "eu/1/a", &[]),
        // Nothing is said of this place: all, by their endpoints.
        (vec![distribute("us", &[("us", 100)])], "eu/1/a",
         &[("as/1/a", 1), ("eu/1/a", 1), ("eu/1/b", 1), ("eu/2/a", 1), ("us/1/a", 1), ("us/2/a", 1)]),
    ];
    for (distribute, proxy, expected) in table {
        for outliers in [false, true] {
            let locality = LocalityLb { distribute: distribute.clone().into(), ..LocalityLb::default() };
            let policy = policy(Some(locality), outliers);
            let found = arranged(&policy, &LoadBalancing::default(), &at("proxy", proxy), &members(&PLACES));
            let mut weights: Vec<(&str, u64)> =
                found.groups.iter().map(|group| (&**group.members[0].uid(), group.weight)).collect();
            weights.sort_unstable();
            assert_eq!(weights, expected, "{distribute:?}");
            assert!(found.by_place && found.groups.iter().all(|group| group.priority == 0));
        }
    }
}

#[test]
fn a_place_weighs_what_its_endpoints_do_and_who_has_no_weight_is_not_there() {
    let mut all = Members::default();
    for (uid, place, capacity) in
        [("a", "eu/1", 3), ("b", "eu/1", 2), ("c", "eu/2", u32::MAX), ("d", "eu/3", 0)]
    {
        let workload = edit(at(uid, place), |profile| profile.capacity = capacity);
        all.put(target(workload), Labels::default(), Duration::ZERO);
    }
    let entry = distribute("us", &[("us", 100)]);
    let locality = LocalityLb { distribute: [entry].into(), ..LocalityLb::default() };
    let proxy = at("proxy", "eu/1");
    let found = arranged(&policy(Some(locality), false), &LoadBalancing::default(), &proxy, &all);
    let mut weights: Vec<u64> = found.groups.iter().map(|group| group.weight).collect();
    weights.sort_unstable();
    assert_eq!(weights, [5, u64::from(u32::MAX)]);
    // A weight shared by what their endpoints weigh: 2 of 100, rounded up, and the rest.
    let entry = distribute("eu", &[("eu", 100)]);
    let locality = LocalityLb { distribute: [entry].into(), ..LocalityLb::default() };
    let found = arranged(&policy(Some(locality), false), &LoadBalancing::default(), &proxy, &all);
    let mut weights: Vec<u64> = found.groups.iter().map(|group| group.weight).collect();
    weights.sort_unstable();
    assert_eq!(weights, [1, 100]);
}

#[test]
fn a_place_may_be_named_by_its_beginning() {
    #[rustfmt::skip]
    let table = [
        ("eu/1/a", "eu/1/a", true), ("eu/1/a", "eu/1/b", false), ("eu/1/a", "eu/1", true), ("eu/1/a", "eu/1/*", true),
        ("eu/1/a", "eu", true), ("eu/1/a", "eu/*", true), ("eu/1/a", "*", true), ("eu/1/a", "us/*", false),
        ("eu/1/a", "eu/2", false), ("eu/1/a", "eu/*/a", true), ("eu/1/a", "eu/*/b", false), ("eu/1/a", "*/1/a", true),
        ("eu/1/a", "", false), ("", "", true), ("", "*", true), ("", "eu", false), ("eu", "eu/1", false),
    ];
    for (place, rule, expected) in table {
        assert_eq!(matches(&locality(place), rule), expected, "{place} by {rule}");
    }
}
