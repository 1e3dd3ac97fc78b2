//! Whom an address belongs to, as workloads come and go.

use std::sync::Arc;

use super::Workloads;
use crate::address::NetworkAddress;
use crate::fixtures::{edit, workload};
use crate::workload::{Health, TunnelProtocol, Workload};

const IP: &str = "10.0.0.1";

fn insert(workloads: &mut Workloads, uid: &str, ips: &[&str]) {
    workloads.insert(Arc::new(workload(uid, ips)));
}

fn at<'a>(workloads: &'a Workloads, ip: &str) -> Option<&'a str> {
    let address = NetworkAddress::new("".into(), ip.parse().unwrap());
    workloads.at(&address).map(|workload| &*workload.uid)
}

#[test]
fn a_pod_is_believed_before_others_and_the_first_before_the_next() {
    let mut workloads = Workloads::default();
    let steps: [(&str, bool, Option<&str>); 8] = [
        ("entry-1", true, Some("entry-1")),
        ("entry-2", true, Some("entry-1")),
        ("c//Pod/ns/a", true, Some("c//Pod/ns/a")),
        ("entry-1", false, Some("c//Pod/ns/a")),
        ("c//Pod/ns/a", false, Some("entry-2")),
        ("entry-2", false, None),
        ("entry-2", true, Some("entry-2")),
        ("entry-2", false, None),
    ];
    for (uid, comes, believed) in steps {
        if comes {
            insert(&mut workloads, uid, &[IP]);
        } else {
            assert!(workloads.remove(uid).is_some());
        }
        assert_eq!(at(&workloads, IP), believed, "after {uid}");
    }
    assert!(workloads.contested.is_empty() && workloads.by_address.is_empty() && workloads.by_uid.is_empty());
}

#[test]
fn an_address_named_twice_is_one_claim() {
    let mut workloads = Workloads::default();
    insert(&mut workloads, "other", &[IP]);
    insert(&mut workloads, "twice", &[IP, IP]);
    workloads.remove("twice");
    assert_eq!(at(&workloads, IP), Some("other"));
    insert(&mut workloads, "twice", &[IP, IP]);
    workloads.remove("other");
    assert_eq!(at(&workloads, IP), Some("twice"));
    workloads.remove("twice");
    assert_eq!(at(&workloads, IP), None);
}

#[test]
fn a_changed_workload_is_found_by_its_new_addresses_only() {
    let mut workloads = Workloads::default();
    insert(&mut workloads, "a", &[IP, "10.0.0.2"]);
    insert(&mut workloads, "a", &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(at(&workloads, IP), None);
    assert_eq!(at(&workloads, "10.0.0.2"), Some("a"));
    assert_eq!(at(&workloads, "10.0.0.3"), Some("a"));
    assert_eq!(workloads.iter().count(), 1);
}

#[test]
fn of_several_claimants_one_is_believed_whatever_the_order() {
    let tunnelled =
        |uid: &str| edit(workload(uid, &[IP]), |profile| profile.protocol = TunnelProtocol::Hbone);
    let unready = |uid: &str| Workload { status: Health::Unhealthy, ..tunnelled(uid) };
    // The first of each line is believed before the second.
    let table = [
        (workload("c//Pod/ns/b", &[IP]), tunnelled("c/entry/a")),
        (tunnelled("c//Pod/ns/b"), workload("c//Pod/ns/a", &[IP])),
        (unready("c//Pod/ns/b"), workload("c//Pod/ns/a", &[IP])),
        (tunnelled("c//Pod/ns/b"), unready("c//Pod/ns/a")),
        (tunnelled("c//Pod/ns/a"), tunnelled("c//Pod/ns/b")),
    ];
    for (first, second) in table {
        for order in [[&first, &second], [&second, &first]] {
            let mut workloads = Workloads::default();
            for one in order {
                workloads.insert(Arc::new(one.clone()));
            }
            assert_eq!(at(&workloads, IP), Some(&*first.uid), "beside {}", second.uid);
        }
    }
}

#[test]
fn a_workload_on_its_nodes_address_is_not_found_by_it() {
    let mut workloads = Workloads::default();
    let on_host = edit(workload("c//Pod/ns/host", &[IP]), |profile| profile.host_network = true);
    workloads.insert(Arc::new(on_host));
    assert_eq!(at(&workloads, IP), None);
    assert!(workloads.get("c//Pod/ns/host").is_some());
    workloads.remove("c//Pod/ns/host");
    assert!(workloads.by_uid.is_empty());
}

#[test]
fn an_address_means_another_in_another_network() {
    let mut workloads = Workloads::default();
    insert(&mut workloads, "here", &[IP]);
    workloads.insert(Arc::new(edit(workload("there", &[IP]), |profile| profile.network = "n2".into())));
    let there = NetworkAddress::new("n2".into(), IP.parse().unwrap());
    assert_eq!(at(&workloads, IP), Some("here"));
    assert_eq!(workloads.at(&there).map(|workload| &*workload.uid), Some("there"));
    workloads.remove("here");
    assert_eq!(at(&workloads, IP), None);
    assert!(workloads.at(&there).is_some());
}

#[test]
fn pods_of_this_node_are_found_by_name_and_account() {
    let mut workloads = Workloads::new(Some("node-1".into()));
    let on = |uid: &str, node: &str| Workload { node: node.into(), name: "a".into(), ..workload(uid, &[]) };
    let find = |workloads: &Workloads, name: &str, account: &str| {
        workloads.local("ns", name, account).map(|found| found.uid.to_string())
    };
    workloads.insert(Arc::new(on("elsewhere", "node-2")));
    assert_eq!(find(&workloads, "a", "account"), None);
    // Two clusters on one network may use the same names.
    workloads.insert(Arc::new(on("c2//Pod/ns/a", "node-1")));
    workloads.insert(Arc::new(on("c1//Pod/ns/a", "node-1")));
    assert_eq!(find(&workloads, "a", "account").as_deref(), Some("c1//Pod/ns/a"));
    assert_eq!(find(&workloads, "a", "other"), None);
    assert_eq!(find(&workloads, "b", "account"), None);
    workloads.remove("c1//Pod/ns/a");
    assert_eq!(find(&workloads, "a", "account").as_deref(), Some("c2//Pod/ns/a"));
    // It moves away.
    workloads.insert(Arc::new(on("c2//Pod/ns/a", "node-2")));
    assert_eq!(find(&workloads, "a", "account"), None);
    assert!(workloads.local.is_empty());
}

/// So many that their hashes begin alike.
#[test]
fn each_of_many_is_kept_for_itself() {
    const COUNT: usize = 2000;
    let mut workloads = Workloads::default();
    let uid = |number: usize| format!("uid-{number}");
    for number in 0..COUNT {
        let one = Arc::new(workload(&uid(number), &[]));
        assert!(workloads.insert(one).is_none(), "{number} was not there");
    }
    for number in (0..COUNT).step_by(2) {
        let one = Arc::new(workload(&uid(number), &[]));
        assert_eq!(workloads.insert(one).map(|old| old.uid.to_string()), Some(uid(number)));
    }
    for number in (0..COUNT).step_by(3) {
        assert_eq!(workloads.remove(&uid(number)).map(|old| old.uid.to_string()), Some(uid(number)));
    }
    for number in 0..COUNT {
        let found = workloads.get(&uid(number)).map(|found| found.uid.to_string());
        assert_eq!(found, (number % 3 != 0).then(|| uid(number)));
    }
    assert_eq!(workloads.iter().count(), COUNT - COUNT.div_ceil(3));
}
