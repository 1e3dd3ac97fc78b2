//! Our node agent, both roles: one captures the pod as it does in a mesh, the other, which is measured, proxies it.

use std::fs;
use std::process::Command;

use testkit::netns::Netns;

use super::node::{self, Place};
use super::{Kind, Running, Setting, VariantError, write};
use crate::control::Controller;
use crate::process::Process;
use crate::topology::Topology;

/// Starts one for each pod.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting
        .lateen
        .as_deref()
        .ok_or(VariantError::NotGiven("--lateen PATH (cargo build --release -p node-agent)"))?;
    let role = |role: &str, place: &Place<'_>| {
        let mut command = Command::new(binary);
        command.arg(role).env_clear().env("NODE_NAME", place.node).env("RUN_DIR", place.run_dir);
        command
    };
    let capture = |place: &Place<'_>, pods: &[(&str, &Netns)]| {
        let objects = place.run_dir.join("objects");
        fs::create_dir(&objects)
            .map_err(|source| VariantError::Io { doing: format!("making {}", objects.display()), source })?;
        for (name, pod) in pods {
            write(&objects.join(format!("{name}.yaml")), &manifest(place.node, name, &pod.path()))?;
        }
        let mut command = role("redirect", place);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("OBJECTS", &objects).env("START_PROXY", "false");
        let name = format!("lateen-redirect-{}", place.node);
        let mut process = Process::start(&name, &mut command, place.namespace, &setting.folder)?;
        let sockets = ["zds.sock", "redirect.sock"].map(|socket| place.run_dir.join(socket));
        process.wait_until(|| sockets.iter().all(|socket| socket.exists()))?;
        Ok(Some(process))
    };
    node::start(Kind::Lateen, topology, setting, capture, |place: &Place<'_>| {
        let mut command = role("proxy", place);
        command
            .env("INPOD_UDS", place.run_dir.join("zds.sock"))
            .env("REDIRECT_UDS", place.run_dir.join("redirect.sock"))
            .env("XDS_ADDRESS", Controller::address())
            .env("CA_ADDRESS", Controller::address())
            .env("XDS_ROOT_CA", &place.controller.roots)
            .env("CA_ROOT_CA", &place.controller.roots)
            .env("TOKEN_FILE", &place.controller.token)
            .env("WORKER_THREADS", place.threads.to_string())
            .env("XDS_ON_DEMAND", setting.on_demand.to_string());
        command
    })
}

/// The pod, and the namespace that puts it into the mesh.
fn manifest(node: &str, name: &str, netns: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Namespace
metadata: {{name: bench, labels: {{istio.io/dataplane-mode: ambient}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: bench, uid: {name}, annotations: {{lateen.dev/netns: {netns}}}}}
spec: {{nodeName: {node}, serviceAccountName: {name}, containers: [{{name: c, image: i}}]}}
status: {{phase: Running}}
"
    )
}
