//! Spans: what a collector of OTLP is sent, what endpoints are told, and what a collector that does not answer costs.

use std::time::{Duration, Instant};

use e2e::shop::waypoint_address;
use e2e::{Mesh, example, manifests};
use serde_json::Value;

use crate::{ask, mesh};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Spans go to the pod `collector`, of all requests.
const TRACING: [&str; 2] = [
    "waypoint.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.watch.svc.cluster.local:4317",
    "waypoint.TRACE_SAMPLING=100",
];

/// A collector outside the mesh, with its service.
fn collector(command: &str, ports: &[u16]) -> String {
    manifests::server("collector", "watch", "node-1", command, ports)
}

/// The span with this tag, once it has come.
#[track_caller]
fn span(mesh: &Mesh, tag: &str, value: &str) -> Value {
    let mut found = Value::Null;
    mesh.eventually("the collector has the span", |mesh| {
        let log = mesh.pod_logs("watch", "collector");
        let spans = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = { spans }.find(|span| span["tags"][tag] == value).unwrap_or_default();
        if found.is_null() { Err(format!("none with {tag}={value} in {log}")) } else { Ok(()) }
    });
    found
}

/// The headers that the shop was sent.
#[track_caller]
fn told(mesh: &Mesh, headers: &[&str]) -> Value {
    let headers: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
    let told =
        mesh.exec("test", "client", &[&["curl", "-s", "-m", "10", "http://shop/"][..], &headers].concat());
    let report: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    report["headers"].clone()
}

#[test]
fn requests_leave_spans_with_the_tags_of_istio() {
    let command = format!("{}, \"4317\"", example("collector"));
    let mesh = mesh(&TRACING, &collector(&command, &[4317]));

    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let headers = told(&mesh, &[&parent, "tracestate: other=1", "x-request-id: w3c", "user-agent: tester"]);
    let one = span(&mesh, "guid:x-request-id", "w3c");
    assert_eq!((&one["trace"], &one["parent"]), (&TRACE.into(), &PARENT.into()), "{one}");
    let next = format!("00-{TRACE}-{}-01", one["id"].as_str().unwrap_or_default());
    assert_eq!(headers["traceparent"][0], next, "{headers}");
    assert_eq!(headers["tracestate"][0], "other=1", "{headers}");
    assert!(headers["b3"].is_null() && headers["x-b3-traceid"].is_null(), "{headers}");
    assert_eq!(one["name"], "shop.test.svc.cluster.local:80/*");
    assert_eq!(one["resource"]["service.name"], "shop.test.svc.cluster.local", "{one}");
    assert_eq!((&one["kind"], &one["failed"]), (&2.into(), &false.into()), "a server's, and well");
    assert!(one["micros"].as_u64().is_some_and(|micros| (1..5_000_000).contains(&micros)), "{one}");
    let node = format!("waypoint~{}~way-", waypoint_address(&mesh));
    assert!(one["tags"]["node_id"].as_str().is_some_and(|id| id.starts_with(&node)), "{one}");
    for (tag, value) in [
        ("component", "proxy"),
        ("http.url", "http://shop/"),
        ("http.method", "GET"),
        ("http.protocol", "HTTP/1.1"),
        ("http.status_code", "200"),
        ("response_flags", "-"),
        ("user_agent", "tester"),
        ("peer.address", mesh.address("test", "client", false).as_str()),
        ("upstream_cluster.name", "inbound-vip|80|http/first|shop.test.svc.cluster.local"),
        ("istio.mesh_id", "cluster.local"),
        ("istio.cluster_id", "Kubernetes"),
        ("istio.namespace", "test"),
        ("istio.canonical_service", "way"),
        ("istio.source_workload", "client"),
        ("istio.source_namespace", "test"),
        ("istio.source_canonical_service", "client"),
        ("istio.source_instance_name", "client"),
        ("istio.destination_namespace", "test"),
        ("istio.destination_canonical_service", "shop"),
        ("istio.destination_canonical_revision", "v1"),
        ("istio.destination_instance_name", "shop-v1"),
        ("lateen.cause", "VirtualService test/shop http[3]"),
    ] {
        assert_eq!(one["tags"][tag], value, "{tag} of {one}");
    }

    // B3 in both forms goes on in the form that it came.
    let headers = told(&mesh, &[&format!("b3: {TRACE}-{PARENT}-1"), "x-request-id: single"]);
    let one = span(&mesh, "guid:x-request-id", "single");
    assert_eq!((&one["trace"], &one["parent"]), (&TRACE.into(), &PARENT.into()), "{one}");
    let id = one["id"].as_str().unwrap_or_default();
    assert_eq!(headers["b3"][0], format!("{TRACE}-{id}-1-{PARENT}"), "{headers}");
    let (trace, parent) = (format!("x-b3-traceid: {TRACE}"), format!("x-b3-spanid: {PARENT}"));
    let headers = told(&mesh, &[&trace, &parent, "x-b3-sampled: 1", "x-request-id: several"]);
    let one = span(&mesh, "guid:x-request-id", "several");
    assert_eq!((&headers["x-b3-traceid"][0], &headers["x-b3-spanid"][0]), (&TRACE.into(), &one["id"]));
    assert_eq!(headers["x-b3-parentspanid"][0], PARENT, "{headers}");

    // Who does not want to be sampled is not, and says so to those behind; what fails says so.
    let headers = told(&mesh, &[&format!("traceparent: 00-{TRACE}-{PARENT}-00"), "x-request-id: quiet"]);
    assert!(headers["traceparent"][0].as_str().is_some_and(|text| text.ends_with("-00")), "{headers}");
    ask(&mesh, "http://shop/again?status=503", &["-H", "x-request-id: failing"]);
    let failed = span(&mesh, "guid:x-request-id", "failing");
    assert_eq!((&failed["failed"], &failed["tags"]["error"]), (&true.into(), &"true".into()), "{failed}");
    assert_eq!(
        (&failed["tags"]["response_flags"], &failed["tags"]["lateen.retries"]),
        (&"URX".into(), &"2".into())
    );
    ask(&mesh, "http://shop/admin", &["-H", "x-request-id: denied"]);
    let denied = span(&mesh, "guid:x-request-id", "denied");
    assert_eq!(denied["tags"]["lateen.cause"], "explicitly denied by: test/no-admin (rule 0)", "{denied}");
    assert!(!mesh.pod_logs("watch", "collector").contains("\"quiet\""), "not sampled, and yet there");
}

/// A collector that takes calls and never answers: requests are as fast as without, and what is lost is counted.
#[test]
fn a_collector_that_does_not_answer_costs_spans_only() {
    let command = format!("{}, \"4317\", silent", example("collector"));
    let mesh = mesh(&TRACING, &collector(&command, &[4317]));
    ask(&mesh, "http://shop/", &[]);
    mesh.eventually("the collector is asked", |mesh| match mesh.pod_logs("watch", "collector") {
        log if log.contains("silent") => Ok(()),
        log => Err(log),
    });
    let script = "import http.client\nc = http.client.HTTPConnection('shop')\nfor _ in range(3500):\n    \
                  c.request('GET', '/broken')\n    assert c.getresponse().read()";
    let began = Instant::now();
    let asked = mesh.exec("test", "client", &["python3", "-c", script]);
    assert!(asked.ok() && began.elapsed() < Duration::from_secs(60), "{asked} in {:?}", began.elapsed());
    let address = waypoint_address(&mesh);
    let url = format!("http://{address}:15020/metrics");
    let metrics = mesh.exec("watch", "collector", &["curl", "-s", &url]).stdout;
    let lost: u64 = e2e::lines(&metrics, &["lateen_spans_lost_total{"])
        .iter()
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    // What waits is no more than the queue and the batches on their way.
    assert!((100..=3501).contains(&lost), "{lost} lost in\n{metrics}");
}

/// A real Jaeger, all in one, whose program `LATEEN_JAEGER` names (`scripts/jaeger` builds one).
#[test]
#[ignore = "needs Jaeger: scripts/jaeger, and LATEEN_JAEGER"]
fn jaeger_shows_what_kiali_asks_of_it() {
    let jaeger = std::env::var("LATEEN_JAEGER").expect("LATEEN_JAEGER names Jaeger's program");
    let script = format!(
        "sed 's/localhost/0.0.0.0/' /dev/null; exec {jaeger} --set=receivers.otlp.protocols.grpc.endpoint=0.0.0.0:4317"
    );
    let mesh = mesh(&TRACING, &collector(&manifests::bash(&script), &[4317]));
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    assert_eq!(ask(&mesh, "http://shop/", &["-H", &parent]), "200");
    let of = |path: &str| {
        let url = format!("http://127.0.0.1:16686/api/{path}");
        let told = mesh.exec("watch", "collector", &["curl", "-s", "-g", &url]);
        serde_json::from_str::<Value>(&told.stdout).map_err(|error| format!("{error}: {told}"))
    };
    mesh.eventually("Jaeger has the trace", |_| {
        // As Kiali asks: by service, and by the tag of the cluster.
        let tags = "tags=%7B%22istio.cluster_id%22%3A%22Kubernetes%22%7D";
        let answer = of(&format!("traces?service=shop.test.svc.cluster.local&{tags}"))?;
        let found = answer["data"].as_array().into_iter().flatten().any(|trace| trace["traceID"] == TRACE);
        if found { Ok(()) } else { Err(answer.to_string()) }
    });
    let services = of("services").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(services["data"][0], "shop.test.svc.cluster.local", "{services}");
}
