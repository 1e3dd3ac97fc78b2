//! What h2spec says of the two servers of HTTP/2 that clients reach: that of tunnels (an agent's and a waypoint's), and
//! the one inside a tunnel, where a waypoint serves requests. `scripts/peers` gets it.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::time::Duration;

use e2e::report::counted;
use e2e::shop::{WAY, waypoint_address};
use e2e::wire::{self, NAMESPACE, Running, at};
use e2e::{Mesh, Outcome, manifests};
use testkit::envoy::{End, bootstrap_many};

/// Where an Envoy takes plain connections and puts each into TLS of its own: to the waypoint's port, and to the agent's.
const TO_WAYPOINT: u16 = 18001;
const TO_AGENT: u16 = 18002;

/// A service that goes by the waypoint.
const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: test, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: server}, ports: [{name: http2, port: 80, targetPort: 8080}]}
";

fn mesh() -> Mesh {
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::namespace(NAMESPACE, ""),
        manifests::shell("client", "test", "node-1"),
        manifests::server("server", "test", "node-2", "lateen, echo, --http, \"8080\"", &[8080]),
        manifests::shell("near", NAMESPACE, "node-1"),
        WAY.to_owned(),
        SERVICE.to_owned(),
    ];
    Mesh::start(&[("app.yaml", &app.concat())])
}

/// Runs it in a pod, and returns what it says.
fn h2spec(mesh: &Mesh, (namespace, pod): (&str, &str), host: &str, port: u16) -> Outcome {
    let (program, port) = (wire::h2spec(), port.to_string());
    mesh.exec(namespace, pod, &[&program, "--strict", "--timeout", "2", "--host", host, "--port", &port])
}

/// The tests that fail, by their numbers and titles, and how many there were.
fn failing(told: &Outcome) -> (Vec<String>, String) {
    let (_, failures) = told.stdout.split_once("\nFailures:").unwrap_or_default();
    let failures = failures.lines().filter_map(|line| line.trim().strip_prefix("× ")).map(str::to_owned);
    let count =
        told.stdout.lines().find(|line| line.contains(" tests, ")).unwrap_or_else(|| panic!("{told}"));
    (failures.collect(), count.to_owned())
}

/// What a tunnel's server does that h2spec does not expect: it takes CONNECT alone, and all that h2spec sends are requests to
/// `/`. One that is well formed is answered with 400 and is over with that.
const ANSWERED_AND_OVER: [&str; 16] = [
    // Answered without a body, while h2spec waits for one.
    "2: Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    "3: Sends a PRIORITY frame on half-closed (remote) stream",
    // It has 20 KB, and we announce that we take 1 MB.
    "3: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
    // Over before this comes, and not remembered: what comes for streams that were is dropped, and counted so that a flood
    // of it ends the connection (RFC 9113, section 5.1, asks for that where we reset a stream, and for an error elsewhere).
    "5: half closed (remote): Sends a DATA frame",
    "6: half closed (remote): Sends a HEADERS frame",
    "8: closed: Sends a DATA frame after sending RST_STREAM frame",
    "9: closed: Sends a HEADERS frame after sending RST_STREAM frame",
    "11: closed: Sends a DATA frame",
    "12: closed: Sends a HEADERS frame",
    "2: Sends stream identifier that is numerically smaller than previous",
    // So many are never open at once.
    "1: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    // Priorities are read over (RFC 9113, section 5.3.2, has them no more).
    "2: Sends PRIORITY frame that depend on itself",
    // Over before this comes, as above.
    "2: Sends a DATA frame on the stream that is not in \"open\" or \"half-closed (local)\" state",
    "2: Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
    "3: Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    "1: Sends a second HEADERS frame without the END_STREAM flag",
];

/// The same for what would have to be seen in a body or in trailers, of which none is looked at.
const ANSWERED_BEFORE: [&str; 3] = [
    "3: Sends a HEADERS frame that contains a pseudo-header field as trailers",
    "1: Sends a HEADERS frame with the \"content-length\" header field which does not equal the DATA frame payload length",
    "2: Sends a HEADERS frame with the \"content-length\" header field which does not equal the sum of the multiple DATA frames payload length",
];

#[track_caller]
fn passes(of: &str, told: &Outcome, but: &[&str]) {
    let (failures, count) = failing(told);
    counted(&format!("h2spec on {of}: {count}"));
    assert_eq!(failures, but, "{told}");
}

/// What does not begin as HTTP/2 does is taken for HTTP/1.1 on a waypoint's port, as by Envoy, which h2spec does not
/// expect: it gets an answer of HTTP/1.1 and then the end of the connection.
const TAKEN_FOR_HTTP_1: &str = "2: Sends invalid connection preface";

#[test]
fn a_waypoint_s_requests() {
    let mesh = mesh();
    // A long name: h2spec cuts a block of header fields in three, ten bytes each.
    let told = h2spec(&mesh, ("test", "client"), "shop.test.svc.cluster.local", 80);
    passes("a waypoint's requests", &told, &[TAKEN_FOR_HTTP_1]);
}

#[test]
fn tunnels() {
    let mesh = mesh();
    let credentials = wire::certificate(&mesh, "near");
    let end = |port: u16, peer: &str| End::TlsClient {
        listen: at("127.0.0.1", port).parse().expect("an address"),
        peer: at(peer, 15008).parse().expect("an address"),
    };
    let ends =
        [end(TO_WAYPOINT, &waypoint_address(&mesh)), end(TO_AGENT, &mesh.address("test", "server", false))];
    let file = bootstrap_many(&ends, &credentials, Duration::from_secs(60));
    let _envoy = Running::envoy(&mesh, "near", &file, TO_AGENT);
    for (of, port) in [("a waypoint's tunnels", TO_WAYPOINT), ("an agent's tunnels", TO_AGENT)] {
        let told = h2spec(&mesh, (NAMESPACE, "near"), "localhost", port);
        passes(of, &told, &[&ANSWERED_AND_OVER[..], &ANSWERED_BEFORE].concat());
    }
}
