//! Pods talk through tunnels that they know nothing about.

use e2e::{Mesh, lines, manifests};

fn mesh() -> Mesh {
    Mesh::start(&[("app.yaml", &manifests::client_and_server("ambient"))])
}

#[test]
fn by_name_and_by_address_over_both_families() {
    let mesh = mesh();
    for url in
        ["http://server:8080/", "http://server.test:8080/", "http://server.test.svc.cluster.local:8080/"]
    {
        for family in ["-4", "-6"] {
            let answer = mesh.exec("test", "client", &["curl", "-sS", "-m", "10", family, url]);
            assert!(
                answer.ok() && answer.stdout.contains("\"name\": \"server\""),
                "{family} {url}: {answer}"
            );
        }
    }
    mesh.eventually("both ends log the connection", |mesh| {
        let log = mesh.agent_logs();
        for (direction, bytes) in [("outbound", "bytes_sent="), ("inbound", "bytes_recv=")] {
            let found = lines(
                &log,
                &[
                    "connection complete",
                    &format!("direction=\"{direction}\""),
                    "src.identity=\"spiffe://cluster.local/ns/test/sa/client\"",
                    "dst.identity=\"spiffe://cluster.local/ns/test/sa/server\"",
                    "dst.service=\"server.test.svc.cluster.local\"",
                    ":15008 ",
                    bytes,
                ],
            );
            if found.len() < 6 {
                return Err(format!("{direction}: {} lines of 6\n{log}", found.len()));
            }
        }
        Ok(())
    });
}

#[test]
fn the_application_sees_the_client_s_own_address() {
    let mesh = mesh();
    let own = mesh.exec("test", "client", &["hostname", "-I"]);
    let answer = mesh.exec("test", "client", &["curl", "-sS", "-m", "10", "-4", "http://server:8080/"]);
    let peer = own.stdout.split_whitespace().find(|ip| ip.contains('.')).unwrap_or_default().to_owned();
    assert!(answer.stdout.contains(&format!("\"peer\": \"{peer}:")), "{own}\n{answer}");
}

#[test]
fn a_refused_port_is_a_reset_and_not_an_empty_success() {
    let mesh = mesh();
    let address = mesh.exec("test", "server", &["hostname", "-I"]).stdout;
    let address = address.split_whitespace().next().unwrap_or_default().to_owned();
    let url = format!("http://{address}:8099/");
    let answer = mesh.exec("test", "client", &["curl", "-sS", "-m", "10", &url]);
    // 52: empty reply, 56: reset, 7: refused.
    assert!([7, 52, 56].contains(&answer.code), "{answer}");
    mesh.eventually("the log says why", |mesh| {
        let log = mesh.agent_logs();
        let found = lines(&log, &["direction=\"inbound\"", "error=", ":8099"]);
        if found.is_empty() { Err(log) } else { Ok(()) }
    });
}

#[test]
fn what_is_not_enrolled_still_reaches_what_is() {
    let mut text = manifests::client_and_server("ambient");
    text.push_str("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: plain\n---\n");
    text.push_str(&manifests::shell("outsider", "plain", "node-1"));
    let mesh = Mesh::start(&[("app.yaml", &text)]);
    let url = "http://server.test:8080/";
    let answer = mesh.exec("plain", "outsider", &["curl", "-sS", "-m", "10", url]);
    assert!(answer.ok(), "a permissive workload takes plaintext: {answer}");
    mesh.apply(
        "strict.yaml",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n  namespace: test\nspec:\n  mtls:\n    mode: STRICT\n",
    );
    mesh.eventually_exec("plain", "outsider", &["curl", "-sS", "-m", "10", url], |answer| !answer.ok());
    let inside = mesh.exec("test", "client", &["curl", "-sS", "-m", "10", "http://server:8080/"]);
    assert!(inside.ok(), "the mesh itself goes on: {inside}");
    mesh.eventually("the log names the policy", |mesh| {
        let log = mesh.agent_logs();
        let found = lines(&log, &["istio_converted_static_strict", "direction=\"inbound\""]);
        if found.is_empty() { Err(log) } else { Ok(()) }
    });
}
