//! Which service is meant by an address or a name.

use std::sync::Arc;

use super::Services;
use crate::fixtures::{at, key, service, tunnelled};
use crate::service::{RareFields, Service, Visibility};

fn services(all: &[Service]) -> Services {
    let mut services = Services::default();
    for service in all {
        services.insert(&Arc::new(service.clone()));
    }
    services
}

fn found(service: Option<&Arc<Service>>) -> String {
    service.map_or("none".into(), |service| service.key.to_string())
}

fn over(name: &str, ranges: &[&str]) -> Service {
    let cidr_vips = ranges.iter().map(|range| ("".into(), range.parse().unwrap())).collect();
    Service { rare: RareFields { cidr_vips, ..RareFields::default() }.into(), ..service(name, &[]) }
}

fn canonical(service: Service) -> Service {
    Service { canonical: true, ..service }
}

fn hidden(service: Service) -> Service {
    Service { visibility: Visibility::Namespace, ..service }
}

/// All orders of three things.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn of_several_at_one_address_or_name_one_is_meant() {
    let vip = ["10.96.0.1"];
    let [a, b, c] = ["a/web", "b/web", "c/web"].map(|name| service(name, &vip));
    type Row<'a> = ([Service; 3], &'a str, &'a str);
    let table: [Row<'_>; 7] = [
        // Where the client is, its own; else the canonical one; else the first by name.
        ([a.clone(), b.clone(), c.clone()], "b", "b/web"),
        ([a.clone(), b.clone(), canonical(c.clone())], "b", "b/web"),
        ([a.clone(), b.clone(), canonical(c.clone())], "x", "c/web"),
        ([a.clone(), b.clone(), c.clone()], "x", "a/web"),
        ([hidden(a.clone()), b.clone(), c.clone()], "x", "b/web"),
        ([hidden(a.clone()), b.clone(), hidden(canonical(c.clone()))], "c", "c/web"),
        ([hidden(a), hidden(b), hidden(c)], "x", "none"),
    ];
    for (all, namespace, expected) in table {
        for order in ORDERS {
            let services = services(&order.map(|place| all[place].clone()));
            assert_eq!(found(services.at(&at(vip[0]), namespace)), expected, "for {namespace}: {all:#?}");
            assert_eq!(found(services.named("web", namespace)), expected, "for {namespace}: {all:#?}");
        }
    }
}

#[test]
fn of_several_ranges_one_is_meant() {
    let (wide, long) = (["10.0.0.0/8", "fd00::/16"], ["10.1.0.0/16", "fd00:1::/32"]);
    type Row<'a> = ([Service; 3], &'a str, &'a str);
    let table: [Row<'_>; 7] = [
        // The client's own, else the longest, else the canonical one of those as long, else the first by name.
        ([over("a/a", &wide), over("b/b", &long), over("c/c", &long)], "a", "a/a"),
        ([over("a/a", &wide), over("b/b", &long), over("c/c", &long)], "x", "b/b"),
        ([over("a/a", &wide), over("b/b", &long), canonical(over("c/c", &long))], "x", "c/c"),
        ([canonical(over("a/a", &wide)), over("b/b", &long), over("c/c", &long)], "x", "b/b"),
        ([over("a/a", &wide), hidden(over("b/b", &long)), over("c/c", &long)], "x", "c/c"),
        ([over("a/a", &wide), hidden(over("b/b", &long)), hidden(over("c/c", &long))], "x", "a/a"),
        // An exact address comes before any range.
        ([service("a/a", &["10.1.2.3", "fd00:1::3"]), over("b/b", &long), over("c/c", &wide)], "b", "a/a"),
    ];
    for (all, namespace, expected) in table {
        for order in ORDERS {
            let services = services(&order.map(|place| all[place].clone()));
            for address in ["10.1.2.3", "fd00:1::3"] {
                let met = found(services.at(&at(address), namespace));
                assert_eq!(met, expected, "{address} for {namespace}: {all:#?}");
            }
            assert_eq!(found(services.at(&at("192.0.2.1"), namespace)), "none");
        }
    }
}

#[test]
fn a_range_belongs_to_a_network() {
    let mut there = at("10.1.2.3");
    there.network = "n2".into();
    let all = services(&[over("a/a", &["10.0.0.0/8"]), service("b/b", &["10.1.2.4"])]);
    assert_eq!(found(all.at(&there, "x")), "none");
    there.ip = "10.1.2.4".parse().unwrap();
    assert_eq!(found(all.at(&there, "x")), "none");
}

#[test]
fn a_service_that_goes_or_changes_leaves_nothing_behind() {
    let mut all = services(&[service("a/web", &["10.96.0.1", "10.96.0.2"]), over("b/net", &["10.0.0.0/8"])]);
    all.insert(&Arc::new(service("a/web", &["10.96.0.2", "10.96.0.3"])));
    for (address, expected) in [("10.96.0.1", "b/net"), ("10.96.0.2", "a/web"), ("10.96.0.3", "a/web")] {
        assert_eq!(found(all.at(&at(address), "x")), expected, "{address}");
    }
    all.insert(&Arc::new(over("b/net", &["10.0.0.0/16"])));
    assert_eq!(found(all.at(&at("10.96.0.1"), "x")), "none");
    assert_eq!(found(all.at(&at("10.0.0.1"), "x")), "b/net");
    assert_eq!(all.iter().count(), 2);
    all.remove(&key("a/web"));
    all.remove(&key("b/net"));
    all.remove(&key("c/never"));
    assert_eq!(found(all.named("web", "a")), "none");
    assert!(all.by_host.is_empty() && all.ranges.is_empty());
    assert!(all.by_vip.is_empty());
}

#[test]
fn of_several_those_that_go_leave_the_others() {
    let names = ["a/web", "b/web", "c/web"];
    // One says its address twice.
    let vips: [&[&str]; 3] = [&["10.96.0.1"], &["10.96.0.1", "10.96.0.1"], &["10.96.0.1", "10.96.0.2"]];
    for order in ORDERS {
        let mut all = services(&order.map(|place| service(names[place], vips[place])));
        let mut left = names.to_vec();
        for place in order {
            assert_eq!(all.iter().count(), left.len());
            assert_eq!(found(all.at(&at("10.96.0.1"), "x")), left[0]);
            for name in &left {
                assert_eq!(found(all.get(&key(name))), *name);
            }
            all.remove(&key(names[place]));
            left.retain(|name| *name != names[place]);
            assert_eq!(found(all.get(&key(names[place]))), "none");
        }
        assert!(all.by_host.is_empty() && all.by_vip.is_empty(), "{order:?}");
    }
}

#[test]
fn endpoints_wait_for_their_service_and_outlive_it() {
    let mut all = Services::default();
    let endpoint = Arc::new(tunnelled("a", &["10.0.0.1"], &["ns/web", "ns/web"]));
    let name = key("ns/web");
    let count = |all: &Services| all.endpoints(&name).map(|endpoints| endpoints.all().len());
    all.insert_endpoint(&endpoint);
    assert_eq!((count(&all), found(all.get(&name))), (Some(1), "none".into()));
    all.insert(&Arc::new(service("ns/web", &["10.96.0.1"])));
    assert_eq!((count(&all), found(all.get(&name))), (Some(1), "ns/web".into()));
    all.insert(&Arc::new(service("ns/web", &["10.96.0.2"])));
    assert_eq!(count(&all), Some(1));
    all.remove(&name);
    assert_eq!((count(&all), found(all.get(&name))), (Some(1), "none".into()));
    assert_eq!(all.iter().count(), 0);
    all.remove_endpoint(&endpoint);
    assert_eq!(count(&all), None);
    assert!(all.by_host.is_empty() && all.endpoints.is_empty());
}
