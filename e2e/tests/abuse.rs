//! Clients outside the mesh that mean harm: what they may not break for others.

use std::time::Duration;

use e2e::{Mesh, example, manifests};

/// Connections that are dead before they are accepted hold nobody up who comes after them.
#[test]
fn clients_that_leave_at_once_do_not_block_a_pod() {
    let app = manifests::client_and_server("ambient");
    let outside = [manifests::namespace("outside", ""), manifests::shell("vandal", "outside", "node-2")];
    let mesh = Mesh::start(&[("app.yaml", &app), ("outside.yaml", &outside.concat())]);
    let tunnel_port = format!("{}:15008", mesh.address("test", "server", false));
    let abuse = mesh.exec("outside", "vandal", &[&example("abuse"), "reset", &tunnel_port, "3000"]);
    assert!(abuse.ok(), "{abuse}");
    mesh.within(Duration::from_secs(10), "a client of the mesh gets through", |mesh| {
        let answer = mesh.exec("test", "client", &["curl", "-sS", "-4", "-m", "5", "http://server:8080/"]);
        if answer.ok() { Ok(()) } else { Err(answer.to_string()) }
    });
}
