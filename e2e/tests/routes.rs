//! What a VirtualService, a DestinationRule and a layer-7 AuthorizationPolicy make of requests, end to end: by `lateen up`, a
//! waypoint of its own, and two versions of a server behind it.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::collections::BTreeMap;

use e2e::report::counted;
use e2e::shop::{self, NO_ADMIN, SHOP, WAY, echo, logged, version};
use e2e::{Mesh, manifests};

/// Nineteen of twenty requests to one version; all that ask for it by a header to the other; a fault on one path.
const RULES: &str = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: test}
spec:
  hosts: [shop]
  http:
  - match: [{headers: {x-dark: {exact: \"yes\"}}}]
    route: [{destination: {host: shop, subset: v2}}]
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: shop, subset: v1}}]
  - route:
    - {destination: {host: shop, subset: v1}, weight: 95}
    - {destination: {host: shop, subset: v2}, weight: 5}
";

/// Asks N times, each on a connection of its own, and says how often which version answered.
const ASK: &str = "
import collections, http.client, sys
seen = collections.Counter()
for _ in range(int(sys.argv[1])):
    connection = http.client.HTTPConnection('shop', timeout=10)
    connection.request('GET', sys.argv[2], headers=dict(pair.split('=') for pair in sys.argv[3:]))
    answer = connection.getresponse()
    answer.read()
    seen[answer.headers.get('x-echo-version') or answer.status] += 1
    connection.close()
for version, count in seen.items():
    print(version, count)
";

/// A DestinationRule with these subsets, each a name and the version that it is.
fn subsets(of: &[(&str, &str)]) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: test}}\n\
         spec: {{host: shop, subsets: {}}}\n",
        shop::subsets(of.iter().copied())
    )
}

fn mesh() -> Mesh {
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::shell("client", "test", "node-1"),
        version("v1", &echo("v1")),
        version("v2", &echo("v2")),
        WAY.to_owned(),
        SHOP.to_owned(),
    ];
    Mesh::start(&[
        ("app.yaml", &app.concat()),
        ("rules.yaml", RULES),
        ("subsets.yaml", &subsets(&[("v1", "v1"), ("v2", "v2")])),
        ("policy.yaml", NO_ADMIN),
    ])
}

/// How often which version answered, or which status there was instead.
#[track_caller]
fn ask(mesh: &Mesh, times: u32, path: &str, headers: &[&str]) -> BTreeMap<String, u32> {
    let times = times.to_string();
    let told = mesh.exec("test", "client", &[&["python3", "-c", ASK, &times, path][..], headers].concat());
    assert!(told.ok(), "{told}");
    let line = |line: &str| {
        let (version, count) = line.split_once(' ').unwrap_or_else(|| panic!("{told}"));
        (version.to_owned(), count.parse().unwrap_or_else(|_| panic!("{told}")))
    };
    told.stdout.lines().map(line).collect()
}

fn only(version: &str, times: u32) -> BTreeMap<String, u32> {
    BTreeMap::from([(version.to_owned(), times)])
}

/// Status and body, of a path as it is written.
#[track_caller]
fn curl(mesh: &Mesh, method: &str, path: &str) -> (String, String) {
    shop::curl(mesh, "client", &["-X", method], &format!("http://shop{path}"))
}

#[test]
fn requests_go_where_the_rules_say() {
    let mesh = mesh();
    let seen = ask(&mesh, 1000, "/", &[]);
    let canary = seen.get("v2").copied().unwrap_or_default();
    assert_eq!(seen.values().sum::<u32>(), 1000, "{seen:?}");
    assert_eq!(seen.get("v1").copied().unwrap_or_default() + canary, 1000, "{seen:?}");
    // Fifty, and five times what chance makes of them.
    assert!((16..=84).contains(&canary), "{seen:?}");
    assert_eq!(ask(&mesh, 20, "/", &["x-dark=yes"]), only("v2", 20));
    assert_eq!(curl(&mesh, "GET", "/broken"), ("418".into(), "fault filter abort".into()));
    logged(&mesh, &["\"GET / HTTP/1.1\" 200", "\"VirtualService test/shop http[2]\""]);
    logged(&mesh, &["\"GET /broken HTTP/1.1\" 418 FI"]);
    counted(&format!("of 1,000 requests {canary} to the canary of 5 %"));
}

#[test]
fn a_policy_refuses_a_path_however_it_is_written() {
    let mesh = mesh();
    let refused = ("403".to_owned(), "RBAC: access denied".to_owned());
    for path in ["/admin", "/admin/x?y", "//admin", "/./admin", "/x/../admin", "/%61dmin"] {
        assert_eq!(curl(&mesh, "GET", path), refused, "{path}");
    }
    for (method, path) in [("POST", "/admin"), ("GET", "/ADMIN"), ("GET", "/x/admin"), ("GET", "/adm")] {
        assert_eq!(curl(&mesh, method, path).0, "200", "{method} {path}");
    }
    // What has two readings has none.
    assert_eq!(curl(&mesh, "GET", "/x%2f..%2fadmin").0, "400");
    logged(&mesh, &["\"GET /admin HTTP/1.1\" 403", "test/no-admin"]);
}

/// Design decision D4: a rule that names a subset before there is one changes nothing, until there is.
#[test]
fn the_order_of_changes_does_not_matter() {
    let mesh = mesh();
    assert_eq!(ask(&mesh, 5, "/", &["x-dark=yes"]), only("v2", 5));
    mesh.apply(
        "rules.yaml",
        &RULES.replace("subset: v1", "subset: next").replace("subset: v2", "subset: next"),
    );
    mesh.eventually("the rules are held", |mesh| {
        let told = mesh.lateen(&["get", "virtualservice", "-n", "test", "-o", "yaml"]);
        if told.stdout.contains("type: Held") { Ok(()) } else { Err(told.to_string()) }
    });
    assert_eq!(ask(&mesh, 20, "/", &["x-dark=yes"]), only("v2", 20), "as before");
    // What denies is never held.
    mesh.apply("policy.yaml", &NO_ADMIN.replace("/admin*", "/closed"));
    mesh.eventually("the policy is in force", |mesh| match curl(mesh, "GET", "/closed").0.as_str() {
        "403" => Ok(()),
        other => Err(other.to_owned()),
    });
    mesh.apply("subsets.yaml", &subsets(&[("next", "v1")]));
    mesh.eventually("the rules are in force", |mesh| {
        let seen = ask(mesh, 1, "/", &["x-dark=yes"]);
        if seen == only("v1", 1) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(ask(&mesh, 100, "/", &[]), only("v1", 100));
}
