//! A pair of ztunnels, one for each pod, without a control plane: workloads from a file, its test certificates.
//!
//! Needs a binary built with `--features testing` (for `FAKE_CA`); nothing on the path of bytes differs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use testkit::netns::Netns;

use super::{Kind, Running, Setting, Side, VariantError, rules, write, zds};
use crate::process::Process;
use crate::topology::{CLIENT, OUTSIDE, PORT, SERVER, Topology};

/// Starts both.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting.ztunnel.as_deref().ok_or(VariantError::NotGiven("--ztunnel PATH"))?;
    let workloads = setting.folder.join("ztunnel-workloads.json");
    write(&workloads, &mesh())?;
    let server_side = node(binary, "server", &workloads, &topology.server, setting)?;
    let client_side = node(binary, "client", &workloads, &topology.client, setting)?;
    Ok(Running {
        kind: Kind::Ztunnel,
        client_side,
        server_side,
        topology,
        target: SocketAddr::new(SERVER, PORT),
        outside: Some(SocketAddr::new(OUTSIDE, PORT)),
    })
}

/// The two pods, each on a node of its own; the outside is in no mesh.
fn mesh() -> String {
    let pod = |name: &str, ip| {
        json!({
            "uid": format!("bench//Pod/bench/{name}"), "name": name, "namespace": "bench",
            "serviceAccount": name, "trustDomain": "cluster.local", "workloadIps": [ip], "protocol": "HBONE", "node": name,
            "network": "", "services": {},
        })
    };
    json!({ "workloads": [pod("client", CLIENT), pod("server", SERVER)] }).to_string()
}

/// Starts the ztunnel of one node, in a namespace of its own, and captures its pod.
fn node(
    binary: &Path,
    name: &str,
    workloads: &Path,
    pod: &Netns,
    setting: &Setting,
) -> Result<Side, VariantError> {
    let node = Netns::new(&format!("lbench-{}-ztunnel-node-{name}", std::process::id()))?;
    let socket = setting.folder.join(format!("ztunnel-{name}.sock"));
    zds::announce(&socket, pod, name)
        .map_err(|source| VariantError::Io { doing: format!("listening at {}", socket.display()), source })?;
    rules::capture(pod)?;
    let mut command = Command::new(binary);
    command
        .arg("proxy")
        .env_clear()
        .env("NODE_NAME", name)
        .env("INPOD_UDS", &socket)
        .env("LOCAL_XDS_PATH", workloads)
        .env("FAKE_CA", "true")
        .env("XDS_ADDRESS", "")
        .env("ZTUNNEL_WORKER_THREADS", setting.threads.to_string());
    let mut process = Process::start(&format!("ztunnel-{name}"), &mut command, &node, &setting.folder)?;
    let ready = process.wait_ready_http(&node, 15021, "/healthz/ready")?;
    let mut side = Side::one(process, ready);
    side.namespaces.push(node);
    Ok(side)
}
