//! Who is refused what, by whom and why, for every kind of client, target, binding and policy: the table of
//! `docs/verdicts.md`, asked of a running mesh.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use e2e::report::{counted, full};
use e2e::shop::{curl, logged_by};
use e2e::verdicts::asking::World;
use e2e::verdicts::manifests::{GONE, mesh, policies, replicas};
use e2e::verdicts::policies::{Case, cases};
use e2e::verdicts::table::page;
use e2e::{Mesh, manifests};

/// How long a change may take to be in force everywhere, on a machine that has other things to do.
const IN_FORCE: Duration = Duration::from_secs(30);

/// How many differences are told.
const TOLD: usize = 40;

fn told(differences: &[String]) -> String {
    let first = differences.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n");
    format!("{} cells differ:\n{first}", differences.len())
}

#[test]
fn every_verdict_is_the_one_of_the_table() {
    let files = mesh();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mesh = Mesh::start(&files);
    let world = World::of(&mesh);
    // It has been ready, and is no more.
    mesh.apply(GONE, &(replicas("gone", 0) + &replicas("never", 0)));
    let begun = Instant::now();
    let only = std::env::var("LATEEN_VERDICTS").unwrap_or_default();
    let chosen: Vec<Case> = cases()
        .into_iter()
        .filter(|case| (case.short || full() || !only.is_empty()) && case.title.contains(&only))
        .collect();
    for case in &chosen {
        mesh.apply("policies.yaml", &policies(case));
        mesh.within(IN_FORCE, case.title, |_| match &world.compare(case, false)[..] {
            [] => Ok(()),
            differences => Err(told(differences)),
        });
        // Not only in passing, and for the reasons that are to be.
        let differences = world.compare(case, true);
        assert!(differences.is_empty(), "{}, again: {}", case.title, told(&differences));
    }
    let (cells, took) = (world.size(), begun.elapsed());
    counted(&format!("{} sets of policies, {cells} verdicts and causes each, in {took:.0?}", chosen.len()));
}

#[test]
fn the_documentation_agrees() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verdicts.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the documentation can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/verdicts.md is not what the table says; run `make docs`");
}

/// Orders and a counter, each with a waypoint in front of its account; the counter's rules lead to the orders.
const SHOP: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: desk, namespace: test, annotations: {istio.io/for-service-account: orders}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: till, namespace: test, annotations: {istio.io/for-service-account: counter}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: counter, namespace: test}
spec:
  hosts: [counter]
  http:
  - route: [{destination: {host: orders, port: {number: 8080}}}]
";

/// As application teams write them: one for whom, by account, method and path; one that keeps something from all.
const TEAMS: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: test}
spec:
  selector: {matchLabels: {app: orders}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/test/sa/web]}}]
    to: [{operation: {methods: [GET, HEAD], paths: [/orders, /orders/*]}}]
  - from: [{source: {principals: [cluster.local/ns/test/sa/batch]}}]
    to: [{operation: {methods: [POST], paths: [/orders]}}]
  - from: [{source: {principals: [cluster.local/ns/test/sa/till]}}]
    to: [{operation: {methods: [GET], paths: [/orders*]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: internal, namespace: test}
spec:
  selector: {matchLabels: {app: orders}}
  action: DENY
  rules: [{to: [{operation: {paths: [/orders/internal*]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: counter, namespace: test}
spec:
  targetRefs: [{kind: Service, group: \"\", name: counter}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/test/sa/web]}}]
    to: [{operation: {methods: [GET]}}]
";

const NONE_ALLOWED: &str = "allow policies exist, but none allowed (considered: test/orders)";
const INTERNAL: &str = "explicitly denied by: test/internal (rule 0)";

/// Who asks the orders for what, and why not.
const ORDERS: [(&str, &str, &str, Option<&str>); 10] = [
    ("web", "GET", "/orders", None),
    ("web", "HEAD", "/orders/7", None),
    ("web", "POST", "/orders", Some(NONE_ALLOWED)),
    ("web", "GET", "/", Some(NONE_ALLOWED)),
    ("web", "GET", "/orders/internal/all", Some(INTERNAL)),
    ("web", "GET", "/x/../orders/internal", Some(INTERNAL)),
    ("batch", "POST", "/orders", None),
    ("batch", "GET", "/orders", Some(NONE_ALLOWED)),
    ("batch", "POST", "/orders/7", Some(NONE_ALLOWED)),
    ("batch", "POST", "/orders/internal", Some(INTERNAL)),
];

/// Client, method and path, and the waypoint that refuses it with its cause.
type AtCounter = (&'static str, &'static str, &'static str, Option<(&'static str, &'static str)>);

/// Who asks the counter, which leads to the orders; whose waypoint refuses, and why.
const COUNTER: [AtCounter; 6] = [
    ("web", "GET", "/orders", None),
    ("web", "GET", "/other", Some(("desk", NONE_ALLOWED))),
    ("web", "GET", "/orders/internal", Some(("desk", INTERNAL))),
    ("web", "POST", "/orders", Some(("till", "none allowed (considered: test/counter)"))),
    // What the account may at the orders does not help it at the counter.
    ("batch", "POST", "/orders", Some(("till", "none allowed (considered: test/counter)"))),
    ("batch", "GET", "/orders", Some(("till", "none allowed (considered: test/counter)"))),
];

/// Asks, and compares the status and the body; returns by what the request is found in logs.
#[track_caller]
fn asks(mesh: &Mesh, client: &str, method: &str, url: &str, refused: bool) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("id={}-", COUNT.fetch_add(1, Ordering::Relaxed));
    let arguments = if method == "HEAD" { ["-o", "/dev/null", "-I"] } else { ["-X", method, "-4"] };
    let (status, body) = curl(mesh, client, &arguments, &format!("http://{url}?{id}"));
    assert_eq!(status, if refused { "403" } else { "200" }, "{client} {method} {url}: {body}");
    assert!(!refused || body == "RBAC: access denied", "{client} {method} {url}: {body}");
    id
}

#[test]
fn policies_as_teams_write_them_hold_by_name_by_address_and_from_one_waypoint_to_the_next() {
    let echo = "lateen, echo, --http, \"8080\"";
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::shell("web", "test", "node-1"),
        manifests::shell("batch", "test", "node-2"),
        manifests::server("orders", "test", "node-2", echo, &[8080]),
        manifests::server("counter", "test", "node-1", echo, &[8080]),
        SHOP.to_owned(),
    ];
    let mesh = Mesh::start(&[("app.yaml", &app.concat()), ("policies.yaml", TEAMS)]);
    let address = mesh.address("test", "orders", false);
    for (client, method, path, refused) in ORDERS {
        for host in ["orders:8080", &format!("{address}:8080")] {
            let id = asks(&mesh, client, method, &format!("{host}{path}"), refused.is_some());
            if let Some(cause) = refused {
                logged_by(&mesh, "desk", &[&id, cause]);
            }
        }
    }
    for (client, method, path, refused) in COUNTER {
        let id = asks(&mesh, client, method, &format!("counter:8080{path}"), refused.is_some());
        if let Some((waypoint, cause)) = refused {
            logged_by(&mesh, waypoint, &[&id, cause]);
        }
    }
    // The counter's waypoint is no more than any client to the orders.
    mesh.apply("policies.yaml", &TEAMS.replace("sa/till", "sa/nobody"));
    mesh.eventually("the counter is not let through any more", |mesh| {
        let told = curl(mesh, "web", &["-4"], "http://counter:8080/orders?last");
        if told == ("403".into(), "RBAC: access denied".into()) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    logged_by(&mesh, "desk", &["/orders?last", NONE_ALLOWED]);
    counted(&format!(
        "{} requests judged, by name, by address and by two waypoints",
        2 * ORDERS.len() + COUNTER.len()
    ));
}
