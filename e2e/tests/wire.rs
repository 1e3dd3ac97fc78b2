//! The wire is everybody's: Envoy, and Istio's own HBONE package for Go, at either end of a tunnel with the agent of a
//! running mesh. `scripts/peers` gets them.
//!
//! Both hold a certificate of the mesh's controller. As clients they reach a pod that the mesh captured; as servers they
//! stand in a pod that the mesh leaves alone but knows to take tunnels.

use std::time::Duration;

use e2e::client::Client;
use e2e::report::{counted, size};
use e2e::wire::{self, NAMESPACE, Running, at};
use e2e::{Mesh, PATIENCE, example};
use model::Identity;
use testkit::certificates::TestAuthority;
use testkit::envoy::{Credentials, End, bootstrap_many};

/// Where the clients' ends take connections: to the HTTP, echo and half-close applications, and CONNECT as it is.
const HTTP: u16 = 18080;
const ECHO: u16 = 19000;
const HALF: u16 = 17000;
const CONNECT: u16 = 13128;

/// Connections open at once; under the 200 streams that an agent takes on one tunnel.
const MANY: usize = 150;

/// The same for tunnels that an agent opens: it puts 100 on each.
const FEW: usize = 64;

/// As often do Envoys ask whether we are there.
const PING: Duration = Duration::from_millis(500);

/// Where a pod's applications are.
struct Targets {
    http: String,
    echo: String,
    half: String,
}

impl Targets {
    /// Behind a client's end in the same pod.
    fn ends() -> Self {
        Self {
            http: format!("127.0.0.1:{HTTP}"),
            echo: format!("127.0.0.1:{ECHO}"),
            half: format!("127.0.0.1:{HALF}"),
        }
    }

    /// In a pod itself.
    fn of(address: &str) -> Self {
        Self { http: at(address, 8080), echo: at(address, 9000), half: at(address, 7000) }
    }
}

/// Runs a program of ours in a pod; it must succeed, and say this.
#[track_caller]
fn says(mesh: &Mesh, (namespace, pod): (&str, &str), arguments: &[&str], expected: &str) {
    let peer = example("peer");
    let mut command = vec![peer.as_str()];
    command.extend(arguments);
    let said = mesh.exec(namespace, pod, &command);
    assert!(said.ok() && said.stdout == format!("{expected}\n"), "{arguments:?} in {pod}: {said}");
}

/// Kept connections with many requests, a body each way in each order of ending, and many connections at once;
/// `tunnels` counts the tunnels, of which these may only take `at_most` more.
#[track_caller]
fn carries(
    mesh: &Mesh,
    from: (&str, &str),
    targets: &Targets,
    orders: &[&str],
    connections: usize,
    tunnels: (&dyn Fn() -> usize, usize),
) {
    says(mesh, from, &["kept", &targets.http, "8", "50"], "answered: 400");
    let bytes: u64 = size(4 << 20, 256 << 20);
    for order in orders {
        says(mesh, from, &["half", &targets.half, &bytes.to_string(), order], "whole");
    }
    let (tunnels, at_most) = tunnels;
    let before = tunnels();
    let (namespace, pod) = from;
    let many = Client::start(mesh, namespace, pod, &["many", &targets.echo, &connections.to_string()]);
    many.wait_for("open", PATIENCE);
    let total = tunnels();
    let whole = many.finish();
    assert!(whole.starts_with("whole: "), "{whole}");
    assert!(
        total > 0 && total <= before + at_most,
        "{connections} connections: {before} tunnels became {total}"
    );
    counted(&format!(
        "400 requests on 8 connections, {bytes} bytes each way in {} orders, {connections} streams at once: {before} tunnels became {total}",
        orders.len()
    ));
}

/// The tunnels of an Envoy in pod `near` to the pod `server`.
fn envoy_to(address: &str, credentials: &Credentials) -> String {
    let listen = |port| at("127.0.0.1", port).parse().expect("an address");
    let peer = at(address, 15008).parse().expect("an address");
    let client = |port, application| End::HboneClient {
        listen: listen(port),
        peer,
        authority: at(address, application),
    };
    let proxy = End::ConnectProxy { listen: listen(CONNECT), peer };
    bootstrap_many(&[client(HTTP, 8080), client(ECHO, 9000), client(HALF, 7000), proxy], credentials, PING)
}

/// What an agent answers to a CONNECT by way of Envoy: the status and the cause that is given with it.
fn asked(mesh: &Mesh, authority: &str) -> (u16, String) {
    let (proxy, url) = (format!("http://127.0.0.1:{CONNECT}"), format!("http://{authority}/"));
    let curl = ["curl", "-s", "-m", "20", "-D", "-", "-o", "/dev/null", "-p", "-x", &proxy, &url];
    let said = mesh.exec(NAMESPACE, "near", &curl);
    let status = said.stdout.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    assert!(status.is_some(), "{authority}: {said}");
    let cause = said.stdout.lines().find_map(|line| line.strip_prefix("lateen-cause: "));
    (status.unwrap_or_default(), cause.unwrap_or_default().trim().to_owned())
}

const DENY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: not-near
  namespace: test
spec:
  action: DENY
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/peers/sa/near]
    to:
    - operation:
        ports: [\"8080\"]
";

/// What a CONNECT is refused for, and with which status; what each authority is told of the cause.
fn refusals(own: &str, other: &str) -> Vec<(String, u16, &'static str)> {
    vec![
        (at(own, 8080), 200, ""),
        ("server.test.svc.cluster.local:8080".to_owned(), 200, ""),
        (at(own, 8099), 503, "refused"),
        (at(other, 8080), 400, "this pod is"),
        (at(own, 15008), 503, "the proxy's own"),
        ("nobody.test.svc.cluster.local:8080".to_owned(), 503, "no service"),
    ]
}

#[test]
fn envoy_is_a_client_of_our_agent() {
    let mesh = wire::mesh();
    let mut credentials = wire::certificate(&mesh, "near");
    credentials.peers = vec![wire::identity("test", "server")];
    for v6 in [false, true] {
        let (own, other) = (mesh.address("test", "server", v6), mesh.address(NAMESPACE, "far", v6));
        let _envoy = Running::envoy(&mesh, "near", &envoy_to(&own, &credentials), CONNECT);
        let tunnels = || wire::tunnels_to(&mesh, "test", "server");
        carries(&mesh, (NAMESPACE, "near"), &Targets::ends(), &["a", "b", "c", "s"], MANY, (&tunnels, 1));
        for (authority, status, cause) in refusals(&own, &other) {
            let (answered, told) = asked(&mesh, &authority);
            assert!(answered == status && told.contains(cause), "{authority}: {answered} {told:?}");
        }
        mesh.apply("deny.yaml", DENY);
        mesh.eventually("the policy is in force", |mesh| match asked(mesh, &at(&own, 8080)) {
            (401, cause) if cause.contains("not-near") => Ok(()),
            (status, cause) => Err(format!("{status} {cause:?}")),
        });
        says(&mesh, (NAMESPACE, "near"), &["half", &Targets::ends().half, "1000"], "whole");
        mesh.remove("deny.yaml");
        mesh.eventually("the policy is gone", |mesh| match asked(mesh, &at(&own, 8080)) {
            (200, _) => Ok(()),
            (status, cause) => Err(format!("{status} {cause:?}")),
        });
    }
    let near = format!("src.identity=\"{}\"", wire::identity(NAMESPACE, "near"));
    mesh.eventually_logged(&["connection complete", "direction=\"inbound\"", &near, "src.workload=\"near\""]);
    mesh.eventually_logged(&["direction=\"inbound\"", &near, "not-near", "error="]);
}

#[test]
fn a_stranger_s_certificate_opens_no_tunnel() {
    let mesh = wire::mesh();
    let real = wire::certificate(&mesh, "near");
    let near: Identity = wire::identity(NAMESPACE, "near").parse().expect("an identity");
    let stranger = Credentials::of(&TestAuthority::new("another mesh").bundle(&near));
    let own = mesh.address("test", "server", false);
    // It trusts our mesh, as one would who wants to get in; only who signed its own certificate is wrong.
    let credentials = Credentials { roots: real.roots, ..stranger };
    let _envoy = Running::envoy(&mesh, "near", &envoy_to(&own, &credentials), CONNECT);
    let (status, cause) = asked(&mesh, &at(&own, 8080));
    assert_eq!((status, cause.as_str()), (503, ""), "Envoy's own answer, as there is no tunnel");
    mesh.eventually_logged(&["connection failed", "direction=\"inbound\"", "certificate"]);
}

#[test]
fn envoy_is_a_server_behind_our_agent() {
    let mesh = wire::mesh();
    let mut credentials = wire::certificate(&mesh, "far");
    credentials.peers = vec![wire::identity("test", "client")];
    let addresses = [false, true].map(|v6| mesh.address(NAMESPACE, "far", v6));
    let server = |refuse| End::HboneServer { listen: "[::]:15008".parse().expect("an address"), refuse };
    let refused = addresses.iter().map(|address| at(address, 8099)).collect();
    let file = bootstrap_many(&[server(refused)], &credentials, PING);
    let envoy = Running::envoy(&mesh, "far", &file, 15008);
    // An Envoy with a certificate of the mesh, but not of the pod it stands in.
    let _impostor = Running::envoy(&mesh, "impostor", &file, 15008);

    for address in &addresses {
        // It gives up what still comes once the application behind it has ended its half.
        behind(&mesh, address, &["a", "b", "c"]);
        refuses(&mesh, &at(address, 8099), &["http status: 403"]);
        refuses(&mesh, &at(address, 8098), &["http status: 503"]);
    }
    says(&mesh, ("test", "client"), &["probe", "far.peers:8080"], "far.peers:8080 passed");
    // Envoy resets what an application has hung up on, after its last byte: that is no failure.
    let log = mesh.agent_logs();
    assert_eq!(e2e::lines(&log, &["reset by the far side"]), Vec::<&str>::new());
    breaks(&mesh, &addresses[0], envoy);
    refuses(&mesh, "impostor.peers:8080", &["dst.service=\"impostor.peers.svc.cluster.local\"", "identity"]);
    let far = format!("dst.identity=\"{}\"", wire::identity(NAMESPACE, "far"));
    mesh.eventually_logged(&[
        "connection complete",
        "direction=\"outbound\"",
        &far,
        "dst.service=\"far.peers",
    ]);
}

/// What holds for every server behind our agent.
#[track_caller]
fn behind(mesh: &Mesh, address: &str, orders: &[&str]) {
    let tunnels = || wire::tunnels_from(mesh, "test", "client");
    // A tunnel belongs to a thread of the agent.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    carries(mesh, ("test", "client"), &Targets::of(address), orders, FEW, (&tunnels, threads));
}

/// The application is refused, and the agent of its node says why.
#[track_caller]
fn refuses(mesh: &Mesh, target: &str, why: &[&str]) {
    let said = mesh.exec("test", "client", &[&example("peer"), "probe", target]);
    assert!(said.ok() && said.stdout.starts_with(&format!("{target} refused: ")), "{said}");
    let mut parts = vec!["direction=\"outbound\"", "error="];
    parts.extend(why);
    mesh.eventually_logged(&parts);
}

/// The options of Istio's program that say who it is.
fn istio_hbone(mesh: &Mesh, pod: &str, accept: &str) -> String {
    let credentials = wire::certificate(mesh, pod);
    for (name, text) in
        [("chain", &credentials.chain), ("key", &credentials.key), ("roots", &credentials.roots)]
    {
        wire::put(mesh, pod, &format!("/tmp/{name}.pem"), text);
    }
    format!("--cert /tmp/chain.pem --key /tmp/key.pem --root /tmp/roots.pem --accept {accept}")
}

#[test]
fn istio_s_go_package_is_a_client_of_our_agent() {
    let mesh = wire::mesh();
    let (program, who) = (wire::istio_hbone(), istio_hbone(&mesh, "near", &wire::identity("test", "server")));
    for v6 in [false, true] {
        let (own, other) = (mesh.address("test", "server", v6), mesh.address(NAMESPACE, "far", v6));
        let forward = |port, application| format!("--forward 127.0.0.1:{port}={}", at(&own, application));
        let forwards = [forward(HTTP, 8080), forward(ECHO, 9000), forward(HALF, 7000)].join(" ");
        let peer = at(&own, 15008);
        let command = format!("{program} client --peer {peer} {forwards} {who}");
        let _client = Running::start(&mesh, "near", &command, HALF);
        let tunnels = || wire::tunnels_to(&mesh, "test", "server");
        // Its connections end both ways at once: no order of ending but none.
        carries(&mesh, (NAMESPACE, "near"), &Targets::ends(), &["a", "b"], MANY, (&tunnels, 1));

        mesh.apply("deny.yaml", DENY);
        let ask = |authorities: &[&str]| {
            let mut command = vec![program.as_str(), "ask", "--peer", &peer];
            command.extend(who.split(' '));
            command.extend(authorities.iter().flat_map(|authority| ["--authority", authority]));
            mesh.exec(NAMESPACE, "near", &command).stdout
        };
        mesh.eventually("the policy is in force", |_| {
            let said = ask(&[&at(&own, 8080)]);
            if said.contains("401") { Ok(()) } else { Err(said) }
        });
        mesh.remove("deny.yaml");
        mesh.eventually("the policy is gone", |_| {
            let said = ask(&[&at(&own, 8080)]);
            if said.ends_with("open\n") { Ok(()) } else { Err(said) }
        });
        let cases = refusals(&own, &other);
        let authorities: Vec<&str> = cases.iter().map(|(authority, ..)| authority.as_str()).collect();
        let said = ask(&authorities);
        assert_eq!(said.lines().count(), cases.len(), "{said}");
        for (line, (authority, status, _)) in said.lines().zip(&cases) {
            let word = if *status == 200 { "open".to_owned() } else { status.to_string() };
            assert!(line.starts_with(authority.as_str()) && line.contains(&word), "{line}: not {word}");
        }
    }
}

#[test]
fn istio_s_go_package_is_a_server_behind_our_agent() {
    let mesh = wire::mesh();
    let (program, who) = (wire::istio_hbone(), istio_hbone(&mesh, "far", &wire::identity("test", "client")));
    let command = format!("{program} server --listen [::]:15008 {who}");
    let server = Running::start(&mesh, "far", &command, 15008);
    for v6 in [false, true] {
        // As Envoy, it gives up what still comes once the application behind it has ended its half.
        behind(&mesh, &mesh.address(NAMESPACE, "far", v6), &["a", "b", "c"]);
    }
    says(&mesh, ("test", "client"), &["probe", "far.peers:8080"], "far.peers:8080 passed");
    breaks(&mesh, &mesh.address(NAMESPACE, "far", false), server);
}

/// A server that ends under an open connection: the application must not take that for the end of what was said.
#[track_caller]
fn breaks(mesh: &Mesh, address: &str, server: Running) {
    let held = Client::start(mesh, "test", "client", &["hold", &at(address, 9000)]);
    held.wait_for("open", PATIENCE);
    drop(server);
    let (_, cut) = held.wait_for("cut: ", PATIENCE);
    assert!(cut.contains("reset by peer") || cut.contains("Broken pipe"), "{cut}");
}
