//! What is kept of endpoints while the mesh and the rules around them change, and who is checked at all.

use std::net::IpAddr;
use std::sync::Arc;

use model::mesh::{Mesh, Update};
use model::service::AppProtocol;
use model::traffic::{Destination, Probe};
use model::workload::{Health, Profile, Workload};
use tracing::subscriber::NoSubscriber;

use super::wanted::wanted;
use super::*;
use crate::tests::fixtures::{edit, identity, key, pod, ports, service, waypoint};

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn endpoint(name: &str, last: u8) -> Workload {
    edit(pod(name, ip(last)), |pod| {
        pod.services = [(key("reviews"), ports(&[(80, 8080, AppProtocol::Http11)]))].into();
    })
}

fn check(port: u16) -> HealthCheck {
    HealthCheck { failure_threshold: 2, ..HealthCheck::of(Probe::Tcp { port }) }
}

/// What is asked of a service's endpoints.
fn asks(check: &HealthCheck, endpoints: &[Workload]) -> Vec<Wanted> {
    let target = |workload: &Workload| Selected {
        workload: Arc::new(workload.clone()),
        port: check.probe.port(),
        ip: workload.addresses[0],
    };
    vec![Wanted {
        service: Arc::new(service("reviews", "10.96.0.1", ports(&[(80, 8080, AppProtocol::Http11)]))),
        rules: "DestinationRule shop/reviews".into(),
        check: check.clone(),
        endpoints: endpoints.iter().map(target).collect(),
    }]
}

fn all(checks: &Checks) -> Arc<[Arc<Checked>]> {
    checks.all.borrow().clone()
}

fn fails(checks: &Checks, times: u32) {
    let all = all(checks);
    (0..times).for_each(|_| checks.note(&all[0], Found::Failed("http status: 500".to_owned())));
}

/// Whether the pod `a` at an address is left out.
fn out(checks: &Checks, last: u8) -> bool {
    checks.of(&key("reviews")).is_some_and(|of| of.is_failing(&endpoint("a", 1).uid, ip(last)))
}

#[test]
fn what_was_found_stays_while_the_endpoint_does() {
    let checks = Checks::default();
    let a = endpoint("a", 1);
    checks.replace(asks(&check(80), std::slice::from_ref(&a)));
    let (first, revision) = (all(&checks), checks.revision());
    // The very same again is nothing new.
    checks.replace(asks(&check(80), std::slice::from_ref(&a)));
    assert!(Arc::ptr_eq(&first, &all(&checks)) && checks.revision() == revision);
    fails(&checks, 1);
    assert!(!out(&checks, 1) && checks.revision() == revision, "one is not enough");

    // Something about the workload is another: it is asked as it is now, when it would have been, and its row goes on; a check
    // that was under way counts.
    let moved = Workload { status: Health::Unhealthy, ..a.clone() };
    checks.replace(asks(&check(80), std::slice::from_ref(&moved)));
    let now = all(&checks)[0].clone();
    assert_eq!((now.id, &*now.target.workload), (first[0].id, &moved));
    checks.note(&first[0], Found::Failed(String::new()));
    assert!(out(&checks, 1));

    // Under another check who is left out stays so until that says otherwise.
    checks.replace(asks(&check(81), std::slice::from_ref(&a)));
    assert_ne!(all(&checks)[0].id, now.id, "it is asked anew");
    assert!(out(&checks, 1));
    checks.note(&all(&checks)[0], Found::NotAsked);
    assert!(out(&checks, 1), "not asked is no answer");
    let before = checks.revision();
    checks.note(&all(&checks)[0], Found::Passed);
    assert!(!out(&checks, 1) && checks.revision() > before);

    // Another address is another endpoint; nothing is known of it, and nothing more of the first.
    fails(&checks, 2);
    checks.replace(asks(&check(81), &[endpoint("a", 2)]));
    assert!(!out(&checks, 2) && !out(&checks, 1));
    fails(&checks, 2);
    assert!(out(&checks, 2));
    checks.replace(Vec::new());
    assert!(checks.is_empty() && all(&checks).is_empty() && !out(&checks, 2));
    checks.replace(asks(&check(81), &[endpoint("a", 2)]));
    assert!(!out(&checks, 2), "who comes back is new");
}

/// Who can see that an endpoint is left out, or back, can see that there is something new: threads that are asked after that pick
/// by it.
#[test]
fn what_is_seen_is_in_force() {
    const TURNS: u64 = 3000;
    let checks = Checks::default();
    let once = HealthCheck { failure_threshold: 1, ..check(80) };
    checks.replace(asks(&once, &[endpoint("a", 1)]));
    let (one, of, before) = (all(&checks)[0].clone(), checks.of(&key("reviews")).unwrap(), checks.revision());
    let seen = AtomicU64::new(0);
    let look = |turn| {
        while of.counted().1 as u64 != turn % 2 {
            std::hint::spin_loop();
        }
        let is_new = checks.revision() - before == turn;
        seen.store(turn, Ordering::Release);
        is_new
    };
    let late = std::thread::scope(|threads| {
        let looks = threads.spawn(|| (1..=TURNS).filter(|turn| !look(*turn)).count());
        let _silent = tracing::subscriber::set_default(NoSubscriber::default());
        for turn in 1..=TURNS {
            let sick = turn % 2 == 1;
            checks.note(&one, if sick { Found::Failed(String::new()) } else { Found::Passed });
            while seen.load(Ordering::Acquire) < turn {
                std::thread::yield_now();
            }
        }
        looks.join().unwrap()
    });
    assert_eq!(late, 0);
}

#[test]
fn what_is_known_is_told() {
    let checks = Checks::default();
    checks.replace(asks(&check(80), &[endpoint("a", 1)]));
    fails(&checks, 3);
    let told = checks.describe();
    assert_eq!(told[0]["service"], "shop/reviews.shop.svc.cluster.local");
    assert_eq!(told[0]["probe"], "tcpSocket :80");
    assert_eq!(told[0]["rules"], "DestinationRule shop/reviews");
    let endpoint = &told[0]["endpoints"][0];
    assert_eq!((&endpoint["healthy"], &endpoint["address"]), (&json!(false), &json!("10.0.0.1:80")));
    assert_eq!(endpoint["last_failure"], "http status: 500");
}

/// A mesh of the service `reviews`, bound to this waypoint, `ratings`, bound to none, and `orders`, bound to another.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new("".into(), None);
    let own =
        edit(pod("waypoint", ip(100)), |own| own.services = [(key("waypoint"), Default::default())].into());
    let web = || ports(&[(80, 8080, AppProtocol::Http11), (81, 8081, AppProtocol::Http11)]);
    let bound = |host: &str, vip: &str, to: Option<&str>| {
        Update::Service(Service { waypoint: to.map(waypoint).map(Arc::new), ..service(host, vip, web()) })
    };
    let behind = |name: &str, last, of: &str| {
        edit(pod(name, ip(last)), |pod| pod.services = [(key(of), web())].into())
    };
    let elsewhere = edit(behind("d", 4, "reviews"), |pod| pod.network = "far".into());
    let unready = Workload { status: Health::Unhealthy, ..behind("e", 5, "reviews") };
    for update in [
        Update::Service(service("waypoint", "10.96.0.9", Default::default())),
        Update::Service(service("other", "10.96.0.8", Default::default())),
        bound("reviews", "10.96.0.1", Some("waypoint")),
        bound("ratings", "10.96.0.2", None),
        bound("orders", "10.96.0.3", Some("other")),
        Update::Workload(own),
        Update::Workload(behind("a", 1, "reviews")),
        Update::Workload(behind("b", 2, "ratings")),
        Update::Workload(behind("c", 3, "orders")),
        Update::Workload(elsewhere),
        Update::Workload(unready),
    ] {
        mesh.apply(update);
    }
    mesh
}

#[test]
fn whose_rules_count_and_who_is_asked() {
    let mesh = mesh();
    let own = mesh.workload_at(&model::address::NetworkAddress::new("".into(), ip(100))).unwrap();
    let says = |service: &str, port| {
        let rules = Destination { health_check: Some(check(port)), ..Destination::default() };
        (key(service), Arc::new(rules))
    };
    let asking = |host: &str, all: Vec<_>| (key(host), all);
    // What hosts' rules say: who is asked, at which address.
    for (asked, expected) in [
        (vec![], ""),
        (vec![asking("reviews", vec![says("reviews", 9000)])], "10.0.0.1:9000"),
        // What a rule leads to is checked, too, if this waypoint chooses there.
        (vec![asking("reviews", vec![says("ratings", 9001)])], "10.0.0.2:9001"),
        (vec![asking("reviews", vec![says("orders", 9002)])], ""),
        (vec![asking("reviews", vec![says("missing", 9002)])], ""),
        // Hosts that others serve.
        (vec![asking("ratings", vec![says("ratings", 9001)])], ""),
        (vec![asking("orders", vec![says("orders", 9002), says("reviews", 9003)])], ""),
        (
            vec![asking("reviews", vec![says("ratings", 9001), says("reviews", 9000)])],
            "10.0.0.2:9001 10.0.0.1:9000",
        ),
    ] {
        let found = wanted(&mesh, own, &asked);
        let at = |one: &Selected| SocketAddr::new(one.ip, one.port).to_string();
        let found: Vec<String> = found.iter().flat_map(|one| one.endpoints.iter().map(at)).collect();
        assert_eq!(found.join(" "), expected, "{asked:?}");
    }
}

/// Whoever may write an EndpointSlice may name anybody's pod in it: such a one is not checked under an identity that it
/// believes, whether its own label or its services bind it to this waypoint.
#[test]
fn whom_another_namespace_names_is_not_asked_where_it_is_judged_for() {
    let web = || ports(&[(80, 8080, AppProtocol::Http11)]);
    let lure = NamespacedHostname::new("other", "lure.other.svc.cluster.local");
    let own_label = |pod: &mut Profile| pod.waypoint = Some(waypoint("waypoint"));
    let judged = |pod: &mut Profile| pod.enforced_by = Some([identity("waypoint")].into());
    type Change<'a> = (&'a dyn Fn(&mut Profile), &'a str);
    let changes: [Change<'_>; 4] = [
        (&|_| {}, "10.0.0.6:9000"),
        (&judged, ""),
        (
            &|pod| {
                own_label(pod);
                judged(pod);
            },
            "",
        ),
        (&|pod| pod.waypoint = Some(waypoint("other")), "10.0.0.6:9000"),
    ];
    for (number, (change, expected)) in changes.into_iter().enumerate() {
        let mut mesh = mesh();
        let bound =
            Service { waypoint: Some(waypoint("waypoint").into()), ..service("lure", "10.96.0.7", web()) };
        mesh.apply(Update::Service(Service { key: lure.clone(), ..bound }));
        mesh.apply(Update::Workload(edit(pod("f", ip(6)), |pod| {
            pod.services = [(lure.clone(), web())].into();
            change(pod);
        })));
        let own = mesh.workload_at(&model::address::NetworkAddress::new("".into(), ip(100))).unwrap();
        let rules = Destination { health_check: Some(check(9000)), ..Destination::default() };
        let found = wanted(&mesh, own, &[(lure.clone(), vec![(lure.clone(), Arc::new(rules))])]);
        let at = |one: &Selected| SocketAddr::new(one.ip, one.port).to_string();
        let found: Vec<String> = found.iter().flat_map(|one| one.endpoints.iter().map(at)).collect();
        assert_eq!(found.join(" "), expected, "row {number}");
    }
}
