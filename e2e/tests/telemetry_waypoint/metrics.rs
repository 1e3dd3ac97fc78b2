//! What a real Prometheus makes of a waypoint's series: what Kiali asks to draw its graph, all of it answered.

use e2e::Mesh;
use e2e::shop::waypoint_address;
use serde_json::Value;

use crate::{ask, mesh};

/// Labels that Kiali groups by: a series without one of them is none to it.
const GROUPED: [&str; 13] = [
    "source_cluster",
    "source_workload_namespace",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_cluster",
    "destination_service_namespace",
    "destination_service",
    "destination_service_name",
    "destination_workload_namespace",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
];

/// A pod outside the mesh that scrapes this address.
fn prometheus(address: &str) -> String {
    assert!(std::path::Path::new("/usr/bin/prometheus").exists(), "get it with: apt-get install prometheus");
    let script = format!(
        "echo '{{global: {{scrape_interval: 1s}}, scrape_configs: [{{job_name: way, static_configs: [{{targets: [\"{address}:15020\"]}}]}}]}}' \
         > /tmp/prometheus.yml; exec prometheus --config.file=/tmp/prometheus.yml --storage.tsdb.path=/tmp/data --web.listen-address=127.0.0.1:9090"
    );
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: prometheus, namespace: watch}}\n\
         spec:\n  nodeName: node-1\n  containers: [{{name: prometheus, image: none, command: [{}]}}]\n",
        e2e::manifests::bash(&script)
    )
}

/// What a query answers: labels and value of each series.
fn query(mesh: &Mesh, query: &str) -> Result<Vec<(Value, f64)>, String> {
    let encoded = format!("query={query}");
    let url = "http://127.0.0.1:9090/api/v1/query";
    let told = mesh.exec("watch", "prometheus", &["curl", "-s", "-G", url, "--data-urlencode", &encoded]);
    let answer: Value = serde_json::from_str(&told.stdout).map_err(|error| format!("{error}: {told}"))?;
    let result = answer["data"]["result"].as_array().ok_or_else(|| format!("{query}: {answer}"))?;
    let series = |one: &Value| {
        let value = one["value"][1].as_str().and_then(|value| value.parse().ok());
        (one["metric"].clone(), value.unwrap_or(f64::NAN))
    };
    Ok(result.iter().map(series).collect())
}

/// Waits until a query has an answer that satisfies, and returns it.
#[track_caller]
fn answered(mesh: &Mesh, asked: &str, enough: impl Fn(&[(Value, f64)]) -> bool) -> Vec<(Value, f64)> {
    let mut all = Vec::new();
    mesh.eventually(asked, |mesh| {
        all = query(mesh, asked)?;
        if enough(&all) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    all
}

#[test]
fn prometheus_has_what_kiali_asks_for() {
    let mesh = mesh(&[], "");
    mesh.apply("prometheus.yaml", &prometheus(&waypoint_address(&mesh)));
    for (path, times) in [("/", 7), ("/admin", 3), ("/broken", 2)] {
        (0..times).for_each(|_| drop(ask(&mesh, &format!("http://shop{path}"), &[])));
    }
    let call = mesh.exec("test", "client", &[&e2e::example("grpc"), "call", "calls:50051"]);
    assert!(call.ok(), "{call}");
    let by = GROUPED.join(",");
    let shop = "destination_service=\"shop.test.svc.cluster.local\"";
    let edges = format!(
        "sum(istio_requests_total{{reporter=~\"waypoint|source\",destination_workload_namespace=\"test\"}}) by \
         ({by},request_protocol,response_code,grpc_response_status,response_flags) > 0"
    );
    // Three kinds of answers of the shop, and the calls: a unary one, one that failed, and a stream.
    let all = answered(&mesh, &edges, |all| all.iter().map(|(_, value)| value).sum::<f64>() >= 15.0);
    for (labels, _) in &all {
        for name in GROUPED.iter().chain(&["request_protocol", "response_code", "response_flags"]) {
            let value = labels[*name].as_str().unwrap_or_default();
            assert!(!value.is_empty() && value != "unknown", "{name} in {labels}");
        }
        assert_eq!(labels["source_workload"], "client", "{labels}");
        assert_eq!(labels["destination_cluster"], "Kubernetes", "{labels}");
    }
    let count = |code: &str, flags: &str, grpc: Option<&str>| {
        let of = |labels: &Value| {
            labels["response_code"] == code
                && labels["response_flags"] == flags
                && labels["grpc_response_status"].as_str() == grpc
        };
        all.iter().filter(|(labels, _)| of(labels)).map(|(_, value)| value).sum::<f64>()
    };
    let seen = [
        count("200", "-", None),
        count("403", "-", None),
        count("418", "FI", None),
        count("200", "-", Some("0")),
        count("200", "-", Some("9")),
    ];
    assert_eq!(seen, [7.0, 3.0, 2.0, 2.0, 1.0], "{all:?}");

    let mutual = "connection_security_policy=\"mutual_tls\",source_principal=\"spiffe://cluster.local/ns/test/sa/client\"";
    for (asked, least) in [
        (
            format!(
                "sum(istio_requests_total{{{mutual},destination_principal=\"spiffe://cluster.local/ns/test/sa/shop\",{shop}}})"
            ),
            12.0,
        ),
        (format!("sum(istio_request_duration_milliseconds_count{{{shop}}})"), 12.0),
        (
            format!(
                "histogram_quantile(0.99,sum(istio_request_duration_milliseconds_bucket{{{shop}}}) by (le))"
            ),
            0.1,
        ),
        (format!("sum(istio_request_bytes_sum{{{shop}}})"), 100.0),
        (format!("sum(istio_response_bytes_sum{{{shop}}})"), 1000.0),
        (format!("sum(istio_request_messages_total{{request_protocol=\"grpc\"}}) by ({by})"), 502.0),
        (format!("sum(istio_response_messages_total{{request_protocol=\"grpc\"}}) by ({by})"), 501.0),
        ("istio_build{component=\"waypoint\"}".to_owned(), 1.0),
        // What the node agents tell of their way to the controller and of certificates, this proxy tells too.
        ("sum(istio_xds_message_total{url=~\".*istio.workload.Address\"})".to_owned(), 1.0),
        ("sum(istio_xds_message_bytes_total{url=~\".*istio.workload.Address\"})".to_owned(), 1000.0),
        ("lateen_certificate_expiry_timestamp_seconds{kind=\"workload\"} - time()".to_owned(), 60.0),
        ("lateen_certificate_expiry_timestamp_seconds{kind=\"root\"} - time()".to_owned(), 3600.0),
        ("istio_agent_cert_expiry_seconds{resource_name=\"default\"}".to_owned(), 60.0),
        ("lateen_certificates_late".to_owned(), 0.0),
    ] {
        answered(&mesh, &asked, |all| matches!(all, [(_, value)] if *value >= least));
    }
    // A request is one of the waypoint's, never one more of an agent's.
    let others = query(&mesh, "count(istio_requests_total{reporter!=\"waypoint\"})").unwrap_or_default();
    assert!(others.is_empty(), "{others:?}");
    carried_while_it_lasts(&mesh);
}

/// A connection that stays open is seen by who scrapes.
fn carried_while_it_lasts(mesh: &Mesh) {
    let script = "exec 3<>/dev/tcp/bytes/9000; echo hello >&3; sleep infinity";
    let mut open = mesh.command("test", "client", &["bash", "-c", script]).spawn().expect("it starts");
    for (series, least) in
        [("istio_tcp_connections_opened_total", 1.0), ("istio_tcp_received_bytes_total", 6.0)]
    {
        let asked = format!("sum({series}{{reporter=\"waypoint\",source_workload=\"client\"}})");
        answered(mesh, &asked, |all| matches!(all, [(_, seen)] if *seen >= least));
    }
    let _ = open.kill();
    let _ = open.wait();
}
