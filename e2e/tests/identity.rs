//! Certificates of twenty seconds under traffic while the root changes and a workload is revoked.

#![allow(clippy::panic, reason = "a condition that does not hold fails the test")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::client::{Client, Load};
use e2e::report::{counted, size};
use e2e::{Mesh, example, lines, manifests, waypoints};
use serde_json::Value;
use testkit::certificates::TestAuthority;
use testkit::envoy::Credentials;

/// Requests per second in each direction.
const RATE: u32 = 100;

const ECHO: &str = "lateen, echo, --http, \"8080\", --tcp, \"9000\"";

/// Clients and servers on both nodes, under accounts of their own; `victim` is a client and a server.
fn pods() -> String {
    let server = |name: &str, node: &str| manifests::server(name, "test", node, ECHO, &[8080, 9000]);
    [
        manifests::namespace("test", "ambient"),
        manifests::shell("client", "test", "node-1"),
        manifests::shell("other", "test", "node-2"),
        server("server", "node-2"),
        server("near", "node-1"),
        server("victim", "node-1"),
    ]
    .concat()
}

/// A mesh whose certificates live for so many seconds.
fn mesh(seconds: u32) -> Mesh {
    let longest = format!("ctrl.MAX_WORKLOAD_CERT_TTL={seconds}s");
    mesh_with(&[&longest, &format!("ctrl.DEFAULT_WORKLOAD_CERT_TTL={seconds}s")])
}

fn mesh_with(settings: &[&str]) -> Mesh {
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    Mesh::start_with(&[("app.yaml", &pods())], &arguments)
}

fn ca(mesh: &Mesh, arguments: &[&str]) -> String {
    let outcome = mesh.lateen(&[&["ca"], arguments].concat());
    assert!(outcome.ok(), "lateen ca {arguments:?}: {outcome}");
    outcome.stdout
}

fn try_status(mesh: &Mesh) -> Result<Value, String> {
    let outcome = mesh.lateen(&["ca", "status", "-o", "json"]);
    serde_json::from_str(&outcome.stdout).map_err(|error| format!("{error}: {outcome}"))
}

fn status(mesh: &Mesh) -> Value {
    try_status(mesh).unwrap_or_else(|error| panic!("{error}"))
}

/// The serial numbers of the roots in a state.
fn roots(status: &Value, state: &str) -> Vec<String> {
    let all = status["certificates"].as_array().expect("a list");
    let of = all.iter().filter(|row| row["kind"] == "root" && row["state"] == state);
    of.map(|row| row["serial"].as_str().expect("text").to_owned()).collect()
}

/// What an agent holds for a service account: serial numbers of its leaf, and how many roots it trusts.
fn held(mesh: &Mesh, node: &str, account: &str) -> Result<(String, usize), String> {
    let page = mesh.exec(
        "kube-system",
        &format!("node-agent/{node}"),
        &["curl", "-sS", "-m", "10", "http://127.0.0.1:15000/config_dump"],
    );
    let page: Value = serde_json::from_str(&page.stdout).map_err(|error| format!("{error}: {page}"))?;
    let all = page["certificates"].as_array().cloned().unwrap_or_default();
    let identity = format!("spiffe://cluster.local/ns/test/sa/{account}");
    let found = all.iter().find(|one| one["identity"] == identity).ok_or("it holds none")?;
    let serial = found["certChain"][0]["serialNumber"].as_str().ok_or_else(|| found["state"].to_string())?;
    Ok((serial.to_owned(), found["rootCerts"].as_array().map_or(0, Vec::len)))
}

/// The sum over both nodes' agents of the series of a metric.
fn metric(mesh: &Mesh, name: &str) -> f64 {
    let of = |node: u32| {
        let pod = format!("node-agent/node-{node}");
        let page =
            mesh.exec("kube-system", &pod, &["curl", "-sS", "-m", "10", "http://127.0.0.1:15020/metrics"]);
        let series = page.stdout.lines().filter(|line| line.starts_with(name));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    of(1) + of(2)
}

fn probe(mesh: &Mesh, pod: &str, target: &str) -> String {
    mesh.exec("test", pod, &[&example("peer"), "probe", target]).stdout
}

/// Waits until the change of roots has gone through what is left of its phases; returns how long that took.
fn until_stable(mesh: &Mesh, old: &[String]) -> Duration {
    mesh.within(Duration::from_secs(90), "the old root is gone", |mesh| {
        let status = try_status(mesh)?;
        if status["phase"] == "stable" && roots(&status, "current") != old {
            return Ok(());
        }
        Err(format!("{}: {}", status["phase"], status["explanation"]))
    })
}

#[test]
fn certificates_of_twenty_seconds_a_change_of_roots_and_a_revocation() {
    let mesh = mesh(20);
    let whole = Duration::from_secs(size(45, 300));
    let begun = Instant::now();
    let loads = [("client", "server:8080"), ("other", "near:8080"), ("client", "near:8080")]
        .map(|(pod, target)| Load::start(&mesh, "test", pod, target, RATE));
    // Tunnels of the victim, as a client and as a server, in use and kept.
    let as_client = Client::start(&mesh, "test", "victim", &["hold", "server:9000"]);
    let as_server = Client::start(&mesh, "test", "other", &["hold", "victim:9000"]);
    let bystander = Client::start(&mesh, "test", "client", &["hold", "server:9000"]);
    for held in [&as_client, &as_server, &bystander] {
        held.wait_for("open", e2e::PATIENCE);
    }
    let wait = |part: u32| {
        mesh.within(whole * 2, "time passes", |_| {
            if begun.elapsed() >= whole * part / 10 { Ok(()) } else { Err(String::new()) }
        })
    };

    wait(1);
    let old = roots(&status(&mesh), "current");
    ca(&mesh, &["rotate-root"]);
    mesh.eventually("the new root signs beside the old one", |mesh| {
        let status = try_status(mesh)?;
        if status["phase"] == "retiring" && roots(&status, "retired") == old {
            return Ok(());
        }
        Err(status.to_string())
    });
    let switched = begun.elapsed();
    // The controller crashes in the middle, and goes on where it was.
    mesh.ctrl().kill();

    // The certificates that the tunnels were opened with have ended by now, in the short form too.
    wait(5);
    mesh.eventually("ctrl is back", |mesh| try_status(mesh).map(drop));
    let revoked_at = Instant::now();
    let said = ca(&mesh, &["revoke", "-n", "test", "victim"]);
    assert!(said.contains("spiffe://cluster.local/ns/test/sa/victim is revoked"), "{said}");
    let ended = [&as_client, &as_server].map(|held| {
        let (at, _) = held.wait_for("cut", Duration::from_secs(5));
        at.saturating_duration_since(revoked_at)
    });
    for (pod, target) in [("victim", "server:8080"), ("other", "victim:8080"), ("client", "victim:8080")] {
        mesh.eventually(&format!("{pod} to {target} is refused"), |mesh| {
            let answer = probe(mesh, pod, target);
            if answer.contains("refused") { Ok(()) } else { Err(answer) }
        });
    }
    // The victim's own agent says why, and so does the log of the connections that were ended.
    mesh.eventually_logged(&["direction=\"outbound\"", "no certificate for", "sa/victim", "is revoked"]);
    mesh.eventually_logged(&[
        "connection complete",
        "certificate is revoked",
        "src.identity=\"spiffe://cluster.local/ns/test/sa/victim\"",
    ]);
    let rejections = metric(&mesh, "istio_crl_policy_rejections_total");
    assert!(rejections >= 2.0, "{rejections} tunnels and handshakes");

    let retired = until_stable(&mesh, &old);
    // Another change, from its beginning to its end.
    let second = roots(&status(&mesh), "current");
    ca(&mesh, &["rotate-root"]);
    let took = until_stable(&mesh, &second);
    for (node, account) in [("node-1", "client"), ("node-2", "server")] {
        mesh.eventually("agents trust the new root alone", |mesh| match held(mesh, node, account)? {
            (_, 1) => Ok(()),
            (_, count) => Err(format!("{count} roots")),
        });
    }
    wait(10);
    // Forgiven, it is as any other.
    ca(&mesh, &["restore", "-n", "test", "victim"]);
    for (pod, target) in [("victim", "server:8080"), ("other", "victim:8080")] {
        mesh.eventually(&format!("{pod} to {target}"), |mesh| {
            let answer = probe(mesh, pod, target);
            if answer.contains("passed") { Ok(()) } else { Err(answer) }
        });
    }
    let rounds = bystander.finish();
    assert!(rounds.starts_with("whole"), "a bystander's connection: {rounds}");
    let reports = loads.map(Load::finish);
    let requests: u64 = reports.iter().map(|report| report.requests).sum();
    let slowest = reports.iter().map(|report| report.slowest).max().unwrap_or_default();
    for report in &reports {
        assert_eq!(report.failed, 0, "{}", report.text);
    }
    let fetched = lines(&mesh.agent_logs(), &["certificate fetched"]).len();
    counted(&format!(
        "certificates of 20 s for {:.0} s: {requests} requests, 0 failed, slowest {slowest} ms; {fetched} certificates \
         fetched; two changes of roots, the first signed {switched:.1?} after the start and was alone {retired:.1?} after the \
         revocation, the second took {took:.1?}, ctrl killed once between; a revoked workload's tunnels ended after \
         {ended:.0?} as client and server, {rejections} of its tunnels and handshakes refused",
        begun.elapsed().as_secs_f64()
    ));
}

#[test]
fn one_certificate_is_revoked_by_its_number_and_replaced() {
    let mesh = mesh(3600);
    let held_open = Client::start(&mesh, "test", "client", &["hold", "server:9000"]);
    held_open.wait_for("open", e2e::PATIENCE);
    let (serial, _) = held(&mesh, "node-1", "client").expect("a certificate");
    let said = ca(&mesh, &["revoke", &serial]);
    assert!(said.contains("a certificate of spiffe://cluster.local/ns/test/sa/client is revoked"), "{said}");
    held_open.wait_for("cut", Duration::from_secs(5));
    mesh.eventually("another certificate", |mesh| match held(mesh, "node-1", "client")? {
        (other, _) if other != serial => Ok(()),
        _ => Err("the same".to_owned()),
    });
    assert!(probe(&mesh, "client", "server:8080").contains("passed"));

    // What is revoked is known to a proxy that starts anew, also while ctrl is away (which is not looked at here), and to
    // people.
    let table = ca(&mesh, &["status"]);
    for part in ["authority  made here", "phase      stable", "of them revoked", "root"] {
        assert!(table.contains(part), "{part:?} is missing in\n{table}");
    }
    let refused = mesh.lateen(&["ca", "revoke", "-n", "test", "0123456789abcdef0123"]);
    assert!(!refused.ok() && refused.stderr.contains("neither an identity"), "{refused}");
}

/// Asks for the shop through its waypoint; the status of the answer.
fn shopping(mesh: &Mesh, pod: &str) -> String {
    let url = "http://server:8080/wait/0";
    let told =
        mesh.exec("test", pod, &["curl", "-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", url]);
    told.stdout
}

#[test]
fn who_is_revoked_gets_nothing_through_a_waypoint_and_nobody_else_notices() {
    let mesh = Mesh::start(&[("app.yaml", &waypoints::shop()), ("front.yaml", &waypoints::front(1, 0))]);
    let is = |pod: &str, wanted: fn(&str) -> bool| {
        mesh.eventually(&format!("{pod} is answered otherwise"), |mesh| {
            let answer = shopping(mesh, pod);
            if wanted(&answer) { Ok(()) } else { Err(answer) }
        });
    };
    is("client", |answer| answer == "200");
    // Over a connection that is there already, and goes on.
    let bystander = waypoints::Requests::start(&mesh, "bystander", "http1", (4, 50, 0));
    // Whoever of the two hears of it first ends the tunnel between them.
    let name = "istio_crl_policy_rejections_total";
    let rejected = |mesh: &Mesh| waypoints::metric(mesh, &[name]) + metric(mesh, name);
    assert!(rejected(&mesh) < 1.0);
    ca(&mesh, &["revoke", "-n", "test", "client"]);
    is("client", |answer| answer == "000");
    mesh.eventually("its tunnel to the waypoint is ended", |mesh| match rejected(mesh) {
        1.0.. => Ok(()),
        other => Err(other.to_string()),
    });
    ca(&mesh, &["restore", "-n", "test", "client"]);
    is("client", |answer| answer == "200");
    let seen = bystander.finish();
    assert_eq!(seen.failed, 0, "{}", seen.text);
    // What is asked for can be revoked as well: the waypoint does not go on to it.
    ca(&mesh, &["revoke", "-n", "test", "server"]);
    is("client", |answer| answer == "503");
    ca(&mesh, &["restore", "-n", "test", "server"]);
    is("client", |answer| answer == "200");
    counted(&format!("a client and a server revoked behind a waypoint; meanwhile {}", seen.text));
}

/// A tunnel's client that is not ours, in a pod outside the mesh: what `url` behind it answers.
fn through_tunnel(mesh: &Mesh, credentials: &Credentials, server: &str) -> String {
    let pem = |name: &str, text: &str| {
        let path = format!("/tmp/foreign-{name}.pem");
        let script = format!("umask 077; printf %s '{text}' > {path}");
        let written = mesh.exec("outside", "foreign", &["bash", "-c", &script]);
        assert!(written.ok(), "{written}");
        path
    };
    let (ca, cert, key) =
        (pem("ca", &credentials.roots), pem("cert", &credentials.chain), pem("key", &credentials.key));
    let program = example("tunnel_end");
    let script = format!(
        "{program} client --listen 127.0.0.1:7777 --peer {server}:15008 --authority {server}:8080 --ca {ca} --cert {cert} \
         --key {key} & trap 'kill $!' EXIT; for _ in $(seq 200); do grep -q ':1E61 ' /proc/net/tcp && break; \
         sleep 0.05; done; curl -sS -m 20 -o /dev/null -w '%{{http_code}}' http://127.0.0.1:7777/"
    );
    mesh.exec("outside", "foreign", &["bash", "-c", &script]).to_string()
}

#[test]
fn a_plugged_in_authority_an_alias_of_the_trust_domain_and_a_successor_by_new_files() {
    let plugged = tempfile::tempdir().expect("a folder");
    let top = TestAuthority::new("top");
    let first = top.intermediate("first");
    first.plug(plugged.path()).expect("files");
    let folder = format!("ctrl.ROOT_CA_DIR={}", plugged.path().display());
    let mesh = mesh_with(&[
        &folder,
        "ctrl.TRUST_DOMAIN=new.example",
        "ctrl.TRUST_DOMAIN_ALIASES=old.example",
        "ctrl.MAX_WORKLOAD_CERT_TTL=20s",
    ]);
    mesh.apply(
        "foreign.yaml",
        &(manifests::namespace("outside", "") + &manifests::shell("foreign", "outside", "node-1")),
    );
    let load = Load::start(&mesh, "test", "client", "server:8080", RATE);
    mesh.eventually("the foreign pod runs", |mesh| {
        let ran = mesh.exec("outside", "foreign", &["true"]);
        if ran.ok() { Ok(()) } else { Err(ran.to_string()) }
    });

    // Handshakes: the domain itself and its alias, no other. Policies: a principal of one domain is one of both.
    let server = mesh.address("test", "server", false);
    let of = |domain: &str| {
        let identity = model::Identity::new(domain, "outside", "foreign");
        Credentials::of(&first.bundle(&identity))
    };
    let passes =
        |mesh: &Mesh, domain: &str| through_tunnel(mesh, &of(domain), &server).contains("stdout: 200");
    for (domain, expected) in [("new.example", true), ("old.example", true), ("evil.example", false)] {
        assert_eq!(
            passes(&mesh, domain),
            expected,
            "{domain}: {}",
            through_tunnel(&mesh, &of(domain), &server)
        );
    }
    mesh.eventually_logged(&["spiffe://evil.example/ns/outside/sa/foreign", "foreign trust domain"]);
    let policy = |account: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: some, namespace: test}}\n\
             spec:\n  selector: {{matchLabels: {{app: server}}}}\n  action: ALLOW\n  rules:\n  - from:\n    - source:\n        \
             principals: [new.example/ns/outside/sa/{account}, new.example/ns/test/sa/client]\n"
        )
    };
    mesh.apply("policy.yaml", &policy("somebody"));
    mesh.eventually("the alias is judged", |mesh| {
        if passes(mesh, "old.example") { Err("passes".into()) } else { Ok(()) }
    });
    mesh.apply("policy.yaml", &policy("foreign"));
    mesh.eventually("the alias is meant", |mesh| {
        if passes(mesh, "old.example") { Ok(()) } else { Err("refused".into()) }
    });

    // Files that do not fit change nothing; a successor under another root follows with an overlap.
    let kept = Client::start(&mesh, "test", "client", &["hold", "server:9000"]);
    kept.wait_for("open", e2e::PATIENCE);
    let other = TestAuthority::new("other");
    let successor = other.intermediate("second");
    std::fs::write(plugged.path().join("ca-key.pem"), "no key").expect("a file");
    mesh.eventually("the bad file is named", |mesh| {
        let status = try_status(mesh)?;
        let warned = status["warnings"].to_string();
        if warned.contains("ca-key.pem") { Ok(()) } else { Err(warned) }
    });
    let old = roots(&status(&mesh), "current");
    successor.plug(plugged.path()).expect("files");
    mesh.within(Duration::from_secs(60), "the successor is alone", |mesh| {
        let status = try_status(mesh)?;
        let alone = status["phase"] == "stable" && roots(&status, "current") != old;
        if alone { Ok(()) } else { Err(status["explanation"].to_string()) }
    });
    let report = load.finish();
    assert_eq!(report.failed, 0, "{}", report.text);
    assert!(kept.finish().starts_with("whole"), "what was opened before goes on");

    // The list beside the files: it has the intermediate, and with it all that it signed.
    let held_open = Client::start(&mesh, "test", "client", &["hold", "near:9000"]);
    held_open.wait_for("open", e2e::PATIENCE);
    let serial = identity::revocation::serial_of(&successor.signing_certificate()).expect("a number");
    let list = other.revoke([&*serial], std::time::SystemTime::now());
    std::fs::write(plugged.path().join("ca-crl.pem"), pem_list(&list)).expect("a file");
    held_open.wait_for("cut", Duration::from_secs(15));
    assert!(probe(&mesh, "client", "server:8080").contains("refused"));
    counted(&format!(
        "plugged-in authority replaced by files: {} requests, 0 failed, slowest {} ms; its intermediate revoked",
        report.requests, report.slowest
    ));
}

fn pem_list(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("X509 CRL", der.to_vec()))
}

#[test]
fn certificates_of_another_authority_by_the_same_service() {
    // A second controller, on node-1, whose root is another; the mesh's own says nothing of it.
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root-cert.pem");
    let roots_setting = format!("node-agent.CA_ROOT_CA={}", root.display());
    let mesh = mesh_with(&["node-agent.CA_ADDRESS=https://172.31.0.11:16012", &roots_setting]);
    let refused = probe(&mesh, "client", "server:8080");
    assert!(refused.contains("refused"), "nobody issues yet: {refused}");

    let state = mesh.state();
    let ctrl = e2e::lateen().with_file_name("ctrl");
    let path = |name: &str| state.join(name).display().to_string();
    let arguments = [
        ctrl.display().to_string(),
        "--listen".into(),
        "172.31.0.11:16012".into(),
        "--monitoring-addr".into(),
        "127.0.0.1:16014".into(),
        "--state".into(),
        folder.path().display().to_string(),
        "--objects".into(),
        path("objects"),
        "--tokens".into(),
        path("tokens"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut other = mesh.command("kube-system", "node-agent/node-1", &arguments);
    let mut other = other.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    mesh.eventually("requests pass", |mesh| {
        let answer = probe(mesh, "client", "server:8080");
        if answer.contains("passed") { Ok(()) } else { Err(answer) }
    });
    let issued = std::fs::read_to_string(folder.path().join("issued.jsonl")).expect("its list");
    assert!(issued.contains("spiffe://cluster.local/ns/test/sa/server"), "{issued}");
    assert_eq!(status(&mesh)["issued"], 0, "the mesh's own controller issued nothing");
    // Its change of roots is nobody's concern.
    ca(&mesh, &["rotate-root"]);
    mesh.eventually("it is over", |mesh| {
        let status = try_status(mesh)?;
        if status["phase"] == "stable" { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(probe(&mesh, "client", "server:8080").contains("passed"));
    assert!(probe(&mesh, "other", "near:8080").contains("passed"));
    other.kill().expect("it runs");
    let _ = other.wait();
}
