//! What policies say holds, whoever asks and by whichever address; taking a right away takes effect at once; every
//! refusal names what refused.

use std::time::{Duration, Instant};

use e2e::client::Client;
use e2e::report::counted;
use e2e::{Mesh, example, lines, manifests};

/// Who asks: namespace and pod. `outsider` is not enrolled, so that it has no identity.
const CLIENTS: [(&str, &str); 4] =
    [("test", "client"), ("test", "other"), ("far", "far"), ("plain", "outsider")];

/// Ports of the server that speak HTTP.
const PORTS: [u16; 2] = [8080, 8081];

/// Longest time that a change may take to cut what it forbids.
const AT_ONCE: Duration = Duration::from_secs(1);

fn mesh() -> Mesh {
    let echo = "lateen, echo, --http, \"8080\", --http, \"8081\", --tcp, \"9000\"";
    let text = [
        manifests::namespace("test", "ambient"),
        manifests::namespace("far", "ambient"),
        manifests::namespace("plain", ""),
        manifests::shell("client", "test", "node-1"),
        manifests::shell("other", "test", "node-2"),
        manifests::shell("far", "far", "node-1"),
        manifests::shell("outsider", "plain", "node-1"),
        manifests::server("server", "test", "node-2", echo, &[8080, 8081, 9000]),
    ];
    Mesh::start(&[("app.yaml", &text.concat())])
}

/// The addresses that a client tries: the service's name, and the pod's addresses of both families, on each port.
struct Targets {
    v4: String,
    v6: String,
}

impl Targets {
    fn of(mesh: &Mesh) -> Self {
        Self { v4: mesh.address("test", "server", false), v6: mesh.address("test", "server", true) }
    }

    fn on(&self, port: u16) -> [String; 3] {
        [format!("server.test:{port}"), format!("{}:{port}", self.v4), format!("[{}]:{port}", self.v6)]
    }
}

/// Asks as everybody, on every port, by every address, and compares with what should pass.
fn compare(mesh: &Mesh, targets: &Targets, passes: impl Fn(&str, u16) -> bool + Sync) -> Result<(), String> {
    let peer = example("peer");
    let all: Vec<(u16, String)> =
        PORTS.iter().flat_map(|port| targets.on(*port).map(|target| (*port, target))).collect();
    let differences = std::thread::scope(|scope| {
        let asking = CLIENTS.map(|(namespace, pod)| {
            let (peer, all, passes) = (&peer, &all, &passes);
            scope.spawn(move || {
                let mut command = vec![peer.as_str(), "probe"];
                command.extend(all.iter().map(|(_, target)| target.as_str()));
                let outcome = mesh.exec(namespace, pod, &command);
                let mut differences = Vec::new();
                for ((port, target), line) in all.iter().zip(outcome.stdout.lines()) {
                    let passed = line == format!("{target} passed");
                    if passed != passes(pod, *port) {
                        differences.push(format!("{pod}: {line}"));
                    }
                }
                if outcome.stdout.lines().count() != all.len() {
                    differences.push(format!("{pod}: {outcome}"));
                }
                differences
            })
        });
        asking.map(|thread| thread.join().expect("a client's thread ends")).concat()
    });
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

/// A policy for the server in namespace `test`; `spec` is indented by two.
fn policy(name: &str, spec: &str) -> String {
    policy_in("test", name, &format!("  selector:\n    matchLabels:\n      app: server\n{spec}"))
}

fn policy_in(namespace: &str, name: &str, spec: &str) -> String {
    let spec = spec.trim_end_matches('\n');
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n{spec}\n---\n"
    )
}

/// One rule by its `source` in flow style.
fn from(action: &str, source: &str) -> String {
    format!("  action: {action}\n  rules:\n  - from:\n    - source: {source}\n")
}

fn to(action: &str, operation: &str) -> String {
    format!("  action: {action}\n  rules:\n  - to:\n    - operation: {operation}\n")
}

fn when(action: &str, condition: &str) -> String {
    format!("  action: {action}\n  rules:\n  - when:\n    - {condition}\n")
}

const CLIENT: &str = "cluster.local/ns/test/sa/client";

type Passes = Box<dyn Fn(&str, u16) -> bool + Sync>;

/// Some clients, on every port.
fn only(clients: &'static [&'static str]) -> Passes {
    Box::new(move |client, _| clients.contains(&client))
}

fn but(clients: &'static [&'static str]) -> Passes {
    Box::new(move |client, _| !clients.contains(&client))
}

fn port(number: u16) -> Passes {
    Box::new(move |_, port| port == number)
}

/// What the policies are about, the policies, and who passes.
fn cases(client: &[String; 2]) -> Vec<(&'static str, String, Passes)> {
    let [v4, v6] = client;
    let ips = format!("[{v4:?}, \"{v6}/128\"]");
    let allow_all = policy("all", "  action: ALLOW\n  rules:\n  - {}\n");
    vec![
        (
            "principals",
            policy("p", &from("ALLOW", &format!("{{principals: [{CLIENT}]}}"))),
            only(&["client"]),
        ),
        (
            "a principal's prefix",
            policy("p", &from("ALLOW", "{principals: [\"cluster.local/ns/test/*\"]}")),
            only(&["client", "other"]),
        ),
        (
            "any principal",
            policy("p", &from("ALLOW", "{principals: [\"*\"]}")),
            only(&["client", "other", "far"]),
        ),
        ("namespaces", policy("p", &from("ALLOW", "{namespaces: [far]}")), only(&["far"])),
        (
            "serviceAccounts",
            policy("p", &from("ALLOW", "{serviceAccounts: [other, far/far]}")),
            only(&["other", "far"]),
        ),
        ("ipBlocks", policy("p", &from("ALLOW", &format!("{{ipBlocks: {ips}}}"))), only(&["client"])),
        ("ports", policy("p", &to("ALLOW", "{ports: [\"8081\"]}")), port(8081)),
        ("notPorts", policy("p", &to("DENY", "{notPorts: [\"8080\"]}")), port(8080)),
        (
            "notPrincipals",
            policy("p", &from("DENY", &format!("{{notPrincipals: [{CLIENT}]}}"))),
            only(&["client"]),
        ),
        ("notNamespaces", policy("p", &from("DENY", "{notNamespaces: [test]}")), only(&["client", "other"])),
        (
            "notServiceAccounts",
            policy("p", &from("DENY", "{notServiceAccounts: [test/client, far/far]}")),
            only(&["client", "far"]),
        ),
        ("notIpBlocks", policy("p", &from("DENY", &format!("{{notIpBlocks: {ips}}}"))), only(&["client"])),
        (
            "DENY over ALLOW",
            format!(
                "{allow_all}{}",
                policy("deny", &from("DENY", "{principals: [\"cluster.local/ns/test/sa/other\"]}"))
            ),
            but(&["other"]),
        ),
        (
            "an AND of from, to and when",
            policy(
                "p",
                &format!(
                    "  action: ALLOW\n  rules:\n  - from:\n    - source: {{namespaces: [test, far]}}\n    to:\n    - operation: {{ports: [\"8081\"]}}\n    when:\n    - {{key: source.ip, notValues: {ips}}}\n"
                ),
            ),
            Box::new(|client, port| port == 8081 && ["other", "far"].contains(&client)),
        ),
        ("an ALLOW without rules", policy("p", "  action: ALLOW\n"), only(&[])),
        ("an empty policy", policy_in("test", "p", "  {}"), only(&[])),
        (
            "a whole namespace",
            policy_in("test", "p", &from("ALLOW", "{namespaces: [test]}")),
            only(&["client", "other"]),
        ),
        (
            "the whole mesh",
            policy_in("istio-system", "p", &from("DENY", "{namespaces: [far]}")),
            but(&["far"]),
        ),
        (
            "a policy for others",
            policy_in(
                "test",
                "p",
                &format!(
                    "  selector:\n    matchLabels:\n      app: nobody\n{}",
                    from("DENY", "{principals: [\"*\"]}")
                ),
            ),
            but(&[]),
        ),
        (
            "when source.ip",
            policy("p", &when("ALLOW", &format!("{{key: source.ip, values: {ips}}}"))),
            only(&["client"]),
        ),
        (
            "when source.namespace, notValues",
            policy("p", &when("DENY", "{key: source.namespace, notValues: [far]}")),
            only(&["far"]),
        ),
        (
            "when source.principal",
            policy("p", &when("ALLOW", &format!("{{key: source.principal, values: [{CLIENT}]}}"))),
            only(&["client"]),
        ),
        (
            "when destination.port",
            policy("p", &when("ALLOW", "{key: destination.port, values: [\"8080\"]}")),
            port(8080),
        ),
    ]
}

#[test]
fn what_a_policy_says_holds() {
    let mesh = mesh();
    let targets = Targets::of(&mesh);
    compare(&mesh, &targets, |_, _| true).unwrap_or_else(|what| panic!("without any policy: {what}"));
    let client = [mesh.address("test", "client", false), mesh.address("test", "client", true)];
    let cases = cases(&client);
    let mut asked = 0;
    for (what, manifest, passes) in &cases {
        mesh.apply("policy.yaml", manifest);
        mesh.within(Duration::from_secs(10), what, |mesh| {
            asked += CLIENTS.len() * PORTS.len() * 3;
            compare(mesh, &targets, passes)
        });
        // Not only in passing.
        compare(&mesh, &targets, passes).unwrap_or_else(|different| panic!("{what}, again: {different}"));
    }
    mesh.remove("policy.yaml");
    mesh.within(Duration::from_secs(10), "no policy again", |mesh| compare(mesh, &targets, |_, _| true));
    counted(&format!("{} policies, {asked} connections judged", cases.len()));
}

/// A PeerAuthentication; `spec` is in flow style.
fn peer_authentication(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec: {spec}\n---\n"
    )
}

#[test]
fn strict_refuses_plaintext_also_by_port() {
    let mesh = mesh();
    let targets = Targets::of(&mesh);
    let selector = "selector: {matchLabels: {app: server}}";
    let cases: [(&str, String, Passes); 6] = [
        ("namespace", peer_authentication("test", "default", "{mtls: {mode: STRICT}}"), but(&["outsider"])),
        ("nothing", String::from("# nothing\n"), but(&[])),
        (
            "mesh",
            peer_authentication("istio-system", "default", "{mtls: {mode: STRICT}}"),
            but(&["outsider"]),
        ),
        (
            "a port of a permissive workload",
            peer_authentication(
                "test",
                "p",
                &format!("{{{selector}, portLevelMtls: {{8081: {{mode: STRICT}}}}}}"),
            ),
            Box::new(|client, port| client != "outsider" || port == 8080),
        ),
        (
            "a permissive port of a strict workload",
            peer_authentication(
                "test",
                "p",
                &format!(
                    "{{{selector}, mtls: {{mode: STRICT}}, portLevelMtls: {{8081: {{mode: PERMISSIVE}}}}}}"
                ),
            ),
            Box::new(|client, port| client != "outsider" || port == 8081),
        ),
        (
            "a permissive workload in a strict mesh",
            peer_authentication("istio-system", "default", "{mtls: {mode: STRICT}}")
                + &peer_authentication("test", "p", &format!("{{{selector}, mtls: {{mode: PERMISSIVE}}}}")),
            but(&[]),
        ),
    ];
    for (what, manifest, passes) in &cases {
        mesh.apply("strict.yaml", manifest);
        mesh.within(Duration::from_secs(10), what, |mesh| compare(mesh, &targets, passes));
        compare(&mesh, &targets, passes).unwrap_or_else(|different| panic!("{what}, again: {different}"));
    }
    mesh.eventually_logged(&["istio_converted_static_strict", "direction=\"inbound\"", "error="]);
    counted(&format!("{} settings of mutual TLS", cases.len()));
}

#[test]
fn a_right_taken_away_cuts_what_lives_on_it() {
    let mesh = mesh();
    let peer_lines = |cause: &str, direction: &str| {
        mesh.eventually_logged(&[
            "connection complete",
            &format!("direction=\"{direction}\""),
            "src.workload=\"client\"",
            cause,
        ]);
    };
    let v6 = format!("[{}]:9000", mesh.address("test", "server", true));
    let deny = from("DENY", &format!("{{principals: [{CLIENT}]}}"));
    let allow = from("ALLOW", "{principals: [\"cluster.local/ns/test/sa/other\"]}");
    // What is written, and what both logs then say of it.
    let cases = [
        (
            "server:9000",
            policy(
                "no-client",
                &format!(
                    "  action: DENY\n  rules:\n  - from:\n    - source: {{namespaces: [nowhere]}}\n{}",
                    deny.split_once("rules:\n").map_or("", |(_, rules)| rules)
                ),
            ),
            "explicitly denied by: test/no-client (rule 1)",
        ),
        (v6.as_str(), policy("no-client", &deny), "explicitly denied by: test/no-client (rule 0)"),
        (
            "server:9000",
            policy("others", &allow),
            "allow policies exist, but none allowed (considered: test/others)",
        ),
    ];
    let mut slowest = Duration::ZERO;
    for (target, manifest, cause) in &cases {
        let cut = Client::start(&mesh, "test", "client", &["hold", target]);
        let stays = Client::start(&mesh, "test", "other", &["hold", target]);
        cut.wait_for("open", e2e::PATIENCE);
        stays.wait_for("open", e2e::PATIENCE);
        let written = Instant::now();
        mesh.apply("policy.yaml", manifest);
        let (at, _) = cut.wait_for("cut", Duration::from_secs(10));
        let took = at.duration_since(written);
        assert!(took < AT_ONCE, "{cause}: cut after {took:?}");
        slowest = slowest.max(took);
        for direction in ["inbound", "outbound"] {
            peer_lines(&format!("connection closed due to policy change: {cause}"), direction);
        }
        let refused = mesh.exec("test", "client", &[&example("peer"), "probe", "server:8080"]);
        assert!(refused.stdout.contains("refused"), "{refused}");
        for direction in ["inbound", "outbound"] {
            peer_lines(&format!("connection closed due to policy rejection: {cause}"), direction);
        }
        assert!(stays.finish().starts_with("whole"), "what is still allowed stays");
        mesh.remove("policy.yaml");
        mesh.eventually_exec("test", "client", &[&example("peer"), "probe", "server:8080"], |outcome| {
            outcome.stdout.contains("passed")
        });
    }
    counted(&format!("{} live connections cut, the slowest after {slowest:?}", cases.len()));
}

#[test]
fn layer_7_without_a_waypoint_refuses_what_it_might_forbid() {
    let mesh = mesh();
    let targets = Targets::of(&mesh);
    let cases: [(&str, &str, String, Passes, &str); 3] = [
        (
            "a DENY by path refuses all that it might mean",
            "UnsupportedValue",
            policy(
                "l7",
                "  action: DENY\n  rules:\n  - from:\n    - source: {namespaces: [test]}\n    to:\n    - operation: {paths: [/admin*], ports: [\"8080\"]}\n",
            ),
            Box::new(|client, port| port == 8081 || !["client", "other"].contains(&client)),
            "explicitly denied by: test/l7 (rule 0, which restricts to.operation.paths that layer 4 cannot see)",
        ),
        (
            "an ALLOW by method lets nothing through by that rule",
            "UnsupportedValue",
            policy(
                "l7",
                "  action: ALLOW\n  rules:\n  - to:\n    - operation: {methods: [GET]}\n  - to:\n    - operation: {ports: [\"8081\"]}\n",
            ),
            port(8081),
            "allow policies exist, but none allowed (considered: test/l7; layer 4 cannot see to.operation.methods)",
        ),
        (
            "a condition on a header",
            "UnsupportedValue",
            policy("l7", &when("DENY", "{key: \"request.headers[x-debug]\", values: [\"1\"]}")),
            only(&[]),
            "that layer 4 cannot see)",
        ),
    ];
    for (what, reason, manifest, passes, cause) in &cases {
        mesh.apply("policy.yaml", manifest);
        mesh.within(Duration::from_secs(10), what, |mesh| compare(mesh, &targets, passes));
        mesh.eventually_logged(&["direction=\"inbound\"", cause]);
        mesh.eventually_logged(&["direction=\"outbound\"", cause]);
        let shown = mesh.lateen(&["get", "ap", "l7", "-n", "test", "-o", "yaml"]);
        for part in ["ZtunnelAccepted", reason, "layer 7 attributes are not seen at layer 4", "policy.yaml:"]
        {
            assert!(shown.stdout.contains(part), "{what}: no {part} in {shown}");
        }
    }
    let log = mesh.agent_logs();
    let both = lines(&log, &["to.operation.paths", "error="]);
    counted(&format!(
        "{} policies with layer 7 attributes, {} refusals by path logged",
        cases.len(),
        both.len()
    ));
}
