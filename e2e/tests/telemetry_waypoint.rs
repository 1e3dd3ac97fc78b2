//! What a waypoint tells its operators of the traffic that it carries: series that a real Prometheus scrapes, the access
//! log, traces, and records of decisions.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

#[path = "telemetry_waypoint/decisions.rs"]
mod decisions;
#[path = "telemetry_waypoint/metrics.rs"]
mod metrics;
#[path = "telemetry_waypoint/traces.rs"]
mod traces;

use e2e::shop::{NO_ADMIN, WAY, curl, logged};
use e2e::{Mesh, example, manifests};
use serde_json::Value;

/// Services that go by the waypoint: requests, calls of gRPC, and bytes.
const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: test, labels: {istio.io/use-waypoint: way}}
spec:
  selector: {app: shop}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp-echo, port: 9000, targetPort: 9000}
---
apiVersion: v1
kind: Service
metadata: {name: bytes, namespace: test, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: shop}, ports: [{name: tcp-echo, port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: calls, namespace: test, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: calls}, ports: [{name: grpc, port: 50051}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: test, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
";

/// A rule with a subset, one that delays, and one that aborts.
const RULES: &str = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: test}
spec: {host: shop, subsets: [{name: first, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: test}
spec:
  hosts: [shop]
  http:
  - match: [{uri: {prefix: /slow}}]
    fault: {delay: {fixedDelay: 50ms, percentage: {value: 100}}}
    route: [{destination: {host: shop, subset: first}}]
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: shop, subset: first}}]
  - match: [{uri: {prefix: /again}}]
    retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: shop, subset: first}}]
  - route: [{destination: {host: shop, subset: first}}]
";

/// A server under its own account, of version v1, on node-2.
fn pod(name: &str, command: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: test}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-v1, namespace: test, labels: {{app: {name}, version: v1}}}}\n\
         spec:\n  serviceAccountName: {name}\n  nodeName: node-2\n  containers:\n  - name: server\n    image: none\n    \
         command: [{command}]\n    readinessProbe: {{tcpSocket: {{port: {port}}}}}\n"
    )
}

/// Everything that the tests of this file ask, with settings of its waypoint.
fn mesh(settings: &[&str], more: &str) -> Mesh {
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::namespace("watch", ""),
        manifests::shell("client", "test", "node-1"),
        pod("shop", "lateen, echo, --http, \"8080\", --tcp, \"9000\"", 8080),
        pod("calls", &format!("{}, serve, \"50051\"", example("grpc")), 50051),
        WAY.to_owned(),
        SERVICES.to_owned(),
        RULES.to_owned(),
        NO_ADMIN.to_owned(),
        more.to_owned(),
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    Mesh::start_with(&[("app.yaml", &app.concat())], &arguments)
}

/// The status of a request of the client's, with headers in front of the URL.
#[track_caller]
fn ask(mesh: &Mesh, url: &str, more: &[&str]) -> String {
    curl(mesh, "client", more, url).0
}

/// Istio's default format, field by field, with the rule that decided behind it.
#[test]
fn the_access_log_is_istio_s_and_names_what_decided() {
    let mesh = mesh(&[], "");
    for (path, status, fields) in [
        ("/", "200", "200 - via_upstream - \"-\" 0 "),
        ("/slow", "200", "200 DI via_upstream - \"-\" 0 "),
        ("/broken", "418", "418 FI fault_filter_abort - \"-\" 0 "),
        ("/again?status=503", "503", "503 URX via_upstream - \"-\" 0 "),
        (
            "/admin",
            "403",
            "403 - rbac_access_denied_matched_policy[ns[test]-policy[no-admin]-rule[0]] - \"-\" 0 ",
        ),
    ] {
        assert_eq!(ask(&mesh, &format!("http://shop{path}"), &[]), status, "{path}");
        let line = logged(&mesh, &[&format!("\"GET {path} HTTP/1.1\" {fields}"), "\"shop\""]);
        assert!(line.contains(" inbound-vip|80|http/first|shop.test.svc.cluster.local "), "{line}");
        let id = line.split('"').nth(9).unwrap_or_default();
        assert!(id.len() == 36 && id.matches('-').count() == 4, "an id of its own: {id:?} in {line}");
    }
    assert_eq!(ask(&mesh, "http://empty/", &["-H", "x-request-id: mine"]), "503");
    logged(&mesh, &["\"GET / HTTP/1.1\" 503 UH no_healthy_upstream", "\"mine\" \"empty\""]);
    logged(&mesh, &["\"GET / HTTP/1.1\" 200", "\"VirtualService test/shop http[3]\""]);
    logged(&mesh, &["\"GET /admin HTTP/1.1\" 403", "explicitly denied by: test/no-admin (rule 0)"]);

    // Connections that are carried as bytes, or not: what a policy cannot see of one it denies.
    let said = mesh.exec(
        "test",
        "client",
        &["bash", "-c", "exec 3<>/dev/tcp/bytes/9000; echo hello >&3; grep -m 1 hello <&3"],
    );
    assert!(said.stdout.contains("hello"), "{said}");
    let line =
        logged(&mesh, &["\"- - -\" 0 - - - \"-\" 6 ", "inbound-vip|9000|tcp|bytes.test.svc.cluster.local"]);
    assert!(!line.contains("denied"), "{line}");
    mesh.exec("test", "client", &["bash", "-c", "exec 3<>/dev/tcp/shop/9000; cat <&3"]);
    logged(
        &mesh,
        &[
            "\"- - -\" 0 - - rbac_access_denied_matched_policy[ns[test]-policy[no-admin]-rule[0]]",
            "shop.test.svc",
        ],
    );
}

/// The same as JSON, which other programs read.
#[test]
fn the_access_log_as_json_has_the_same_fields() {
    let mesh = mesh(&["waypoint.LOG_FORMAT=json"], "");
    assert_eq!(ask(&mesh, "http://shop/admin", &["-A", "tester \"1\""]), "403");
    let line = logged(&mesh, &["\"path\":\"/admin\""]);
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    for (key, expected) in [
        ("method", "GET"),
        ("protocol", "HTTP/1.1"),
        ("response_flags", "-"),
        ("response_code_details", "rbac_access_denied_matched_policy[ns[test]-policy[no-admin]-rule[0]]"),
        ("user_agent", "tester \"1\""),
        ("authority", "shop"),
        ("upstream_cluster", "inbound-vip|80|http/first|shop.test.svc.cluster.local"),
        ("downstream_peer", "spiffe://cluster.local/ns/test/sa/client"),
        ("cause", "explicitly denied by: test/no-admin (rule 0)"),
    ] {
        assert_eq!(line[key], expected, "{key} in {line}");
    }
    assert_eq!(line["response_code"], 403);
}
