//! Names: what a captured pod is told is what the mesh knows, and everything else is asked of those who know it.

#![allow(clippy::panic, reason = "a condition that does not hold fails the test")]

use std::collections::BTreeSet;

use e2e::report::counted;
use e2e::{Mesh, example, manifests};

/// A StatefulSet `web` of two behind a headless service, and services of each kind of family.
const SET: &str = r#"---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: test
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  selector:
    app: web
  ports:
    - name: http
      port: 8080
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
  namespace: test
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
        - name: echo
          image: lateen
          command: [lateen, echo, --http, "8080"]
          readinessProbe:
            tcpSocket:
              port: 8080
            periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: four
  namespace: test
spec:
  selector:
    app: web
  ports:
    - name: http
      port: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: six
  namespace: test
spec:
  ipFamilies: [IPv6]
  selector:
    app: web
  ports:
    - name: http
      port: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: both
  namespace: test
spec:
  ipFamilyPolicy: RequireDualStack
  selector:
    app: web
  ports:
    - name: http
      port: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: alias
  namespace: test
spec:
  type: ExternalName
  externalName: both.test.svc.cluster.local
"#;

fn mesh() -> Mesh {
    let text = [
        manifests::namespace("test", "ambient"),
        manifests::namespace("elsewhere", "ambient"),
        manifests::shell("client", "test", "node-1"),
        manifests::shell("far", "elsewhere", "node-2"),
        SET.to_owned(),
    ];
    Mesh::start(&[("app.yaml", &text.concat())])
}

/// The response code, and the answers' data by type.
fn ask(mesh: &Mesh, namespace: &str, pod: &str, kind: &str, name: &str) -> (String, BTreeSet<String>) {
    let outcome = mesh.exec(namespace, pod, &[&example("peer"), "dns", kind, name]);
    let mut lines = outcome.stdout.lines();
    let code = lines.next().unwrap_or_else(|| panic!("{kind} {name}: {outcome}")).to_owned();
    let data = lines.filter_map(|line| {
        let mut words = line.splitn(3, ' ').skip(1);
        (words.next()? == kind).then(|| words.next().unwrap_or_default().to_owned())
    });
    (code, data.collect())
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&one| one.to_owned()).collect()
}

/// How many queries the agent of node-1 has passed on.
fn passed_on(mesh: &Mesh) -> u64 {
    let command = ["curl", "-sS", "-m", "10", "http://127.0.0.1:15020/metrics"];
    let page = mesh.exec("kube-system", "node-agent/node-1", &command).stdout;
    assert!(page.contains("# TYPE istio_dns_requests counter"), "{page}");
    // A series for each kind of query; none before the first.
    let series = page.lines().filter(|line| line.starts_with("istio_dns_upstream_requests_total"));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn names_are_those_of_kubernetes_and_the_rest_is_passed_on() {
    let mesh = mesh();
    let [a4, b4] = ["web-0", "web-1"].map(|pod| mesh.address("test", pod, false));
    let [a6, b6] = ["web-0", "web-1"].map(|pod| mesh.address("test", pod, true));
    let mut asked = 0;
    let mut check = |pod: (&str, &str), kind: &str, name: &str, expected: &BTreeSet<String>| {
        asked += 1;
        let (code, data) = ask(&mesh, pod.0, pod.1, kind, name);
        assert_eq!((code.as_str(), &data), ("NoError", expected), "{kind} {name} asked by {pod:?}");
    };
    let client = ("test", "client");
    // Headless: the pods' own addresses, and each pod by its name.
    check(client, "A", "web.test.svc.cluster.local.", &set(&[&a4, &b4]));
    check(client, "AAAA", "web.test.svc.cluster.local.", &set(&[&a6, &b6]));
    for (name, v4, v6) in [("web-0", &a4, &a6), ("web-1", &b4, &b6)] {
        check(client, "A", &format!("{name}.web.test.svc.cluster.local."), &set(&[v4]));
        check(client, "AAAA", &format!("{name}.web.test.svc.cluster.local."), &set(&[v6]));
    }
    // A service has addresses of its families only; the other family is an empty answer, not an error.
    check(client, "AAAA", "four.test.svc.cluster.local.", &set(&[]));
    check(client, "A", "six.test.svc.cluster.local.", &set(&[]));
    for (kind, name) in [("A", "four"), ("AAAA", "six"), ("A", "both"), ("AAAA", "both")] {
        let full = format!("{name}.test.svc.cluster.local.");
        let (code, data) = ask(&mesh, "test", "client", kind, &full);
        assert_eq!((code.as_str(), data.len()), ("NoError", 1), "{kind} {full}: {data:?}");
        // The same by all the names that a resolver makes of it, from both namespaces.
        check(("elsewhere", "far"), kind, &full, &data);
    }
    let (_, both) = ask(&mesh, "test", "client", "A", "both.test.svc.cluster.local.");
    // What the mesh does not answer itself is passed on, whole.
    let before = passed_on(&mesh);
    check(
        client,
        "SRV",
        "_http._tcp.both.test.svc.cluster.local.",
        &set(&["0 100 8080 both.test.svc.cluster.local."]),
    );
    check(
        client,
        "SRV",
        "_http._tcp.web.test.svc.cluster.local.",
        &set(&[
            "0 100 8080 web-0.web.test.svc.cluster.local.",
            "0 100 8080 web-1.web.test.svc.cluster.local.",
        ]),
    );
    let reverse = a4.split('.').rev().collect::<Vec<_>>().join(".") + ".in-addr.arpa.";
    check(client, "PTR", &reverse, &set(&["web-0.web.test.svc.cluster.local."]));
    check(client, "TXT", "both.test.svc.cluster.local.", &set(&[]));
    // Another namespace may be called as a domain of the world is: only who has a search list, or says `svc`, means it.
    check(client, "A", "both.test.", &both);
    check(("elsewhere", "far"), "A", "both.test.svc.", &both);
    asked += 1;
    let (code, data) = ask(&mesh, "elsewhere", "far", "A", "both.test.");
    assert_eq!((code.as_str(), data.len()), ("NXDomain", 0), "{data:?}");
    for name in ["example.com.", "nobody.test.svc.cluster.local.", "web-7.web.test.svc.cluster.local."] {
        asked += 1;
        let (code, data) = ask(&mesh, "test", "client", "A", name);
        assert_eq!((code.as_str(), data.len()), ("NXDomain", 0), "{name}: {data:?}");
    }
    let passed = passed_on(&mesh) - before;
    assert!(passed >= 7, "{passed} queries passed on");
    counted(&format!("{asked} queries, {passed} of them passed on"));
}

#[test]
fn applications_reach_names_by_way_of_their_resolver() {
    let mesh = mesh();
    let v4 = mesh.address("test", "web-1", false);
    for (namespace, pod, host, family, peer) in [
        ("test", "client", "both", "-4", true),
        ("test", "client", "both", "-6", true),
        ("test", "client", "four", "-4", true),
        ("test", "client", "four", "-6", false),
        ("test", "client", "six", "-6", true),
        ("test", "client", "web-1.web", "-4", true),
        ("test", "client", "web-0.web", "-6", true),
        ("test", "client", "web", "-4", true),
        ("test", "client", "alias", "-4", true),
        ("elsewhere", "far", "both.test", "-4", true),
        ("elsewhere", "far", "web-1.web.test", "-4", true),
        ("elsewhere", "far", "web-1.web.test.svc.cluster.local", "-6", true),
        ("elsewhere", "far", "both", "-4", false),
    ] {
        let url = format!("http://{host}:8080/?format=text");
        let answer = mesh.exec(namespace, pod, &["curl", "-sS", "-m", "10", family, &url]);
        assert_eq!(answer.ok(), peer, "{url} {family} from {namespace}: {answer}");
        if host.starts_with("web-1") && family == "-4" {
            assert!(answer.stdout.contains(&format!("local: {v4}:8080")), "{url} is another pod: {answer}");
        }
        if !peer {
            // 6: not resolved; 7: nothing to connect to, as curl puts it where the name has another family only.
            assert!([6, 7].contains(&answer.code), "{url} {family} has no address: {answer}");
        }
    }
    // Pods by name and address go through tunnels as services do.
    mesh.eventually_logged(&[
        "direction=\"outbound\"",
        "dst.workload=\"web-1\"",
        "dst.hbone_addr=",
        "src.workload=\"far\"",
    ]);
    // A new pod has its name as soon as it is ready.
    mesh.apply("app.yaml", &{
        let text = [
            manifests::namespace("test", "ambient"),
            manifests::namespace("elsewhere", "ambient"),
            manifests::shell("client", "test", "node-1"),
            manifests::shell("far", "elsewhere", "node-2"),
            SET.replace("replicas: 2", "replicas: 3"),
        ];
        text.concat()
    });
    let url = "http://web-2.web:8080/?format=text";
    mesh.eventually_exec("test", "client", &["curl", "-sS", "-m", "10", url], e2e::Outcome::ok);
    counted("13 names by curl, and one that came later");
}
