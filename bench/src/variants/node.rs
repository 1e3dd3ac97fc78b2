//! A pair of node proxies, one for each pod, each in a namespace of its own, with a controller. What differs between
//! ztunnel and ours is the command, and who captures the pod and names it to the proxy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use testkit::netns::Netns;

use super::{Kind, Running, Setting, Side, VariantError};
use crate::certs::ATTACKER_ID;
use crate::control::Controller;
use crate::process::Process;
use crate::topology::{OUTSIDE, PORT, SERVER, Topology};

/// What a proxy is told about its place.
pub(super) struct Place<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Its sockets and files; not there before.
    pub run_dir: &'a Path,
    /// The namespace it lives in.
    pub namespace: &'a Netns,
    pub controller: &'a Controller,
    pub threads: usize,
}

/// Starts both; `capture` sees to the pods by name, with a process of its own if it needs one, and `command` makes a proxy's.
pub(super) fn start(
    kind: Kind,
    topology: Topology,
    setting: &Setting,
    capture: impl Fn(&Place<'_>, &[(&str, &Netns)]) -> Result<Option<Process>, VariantError>,
    command: impl Fn(&Place<'_>) -> Command,
) -> Result<Running, VariantError> {
    let controller = Controller::start(&setting.folder)?;
    let one = |node: &str, pods: &[(&str, &Netns)]| {
        let name = format!("{}-{node}", kind.name());
        let namespace = Netns::new(&format!("lbench-{}-{name}", std::process::id()))?;
        controller.listen(&namespace)?;
        let run_dir = setting.folder.join(&name);
        // An earlier start of the same variant may have left its own.
        let _ = fs::remove_dir_all(&run_dir);
        fs::create_dir(&run_dir)
            .map_err(|source| VariantError::Io { doing: format!("making {}", run_dir.display()), source })?;
        let place = Place {
            node,
            run_dir: &run_dir,
            namespace: &namespace,
            controller: &controller,
            threads: setting.threads,
        };
        let capturing = capture(&place, pods)?;
        let mut process = Process::start(&name, &mut command(&place), &namespace, &setting.folder)?;
        let ready = process.wait_ready_http(&namespace, 15021, "/healthz/ready")?;
        let mut side = Side::one(process, ready);
        side.capturing = capturing;
        side.namespaces.push(namespace);
        Ok::<_, VariantError>(side)
    };
    let mut attacker = None;
    let mut clients = vec![("client", &topology.client)];
    if let Some(strangers) = &topology.strangers {
        controller.strangers();
        attacker = Some(controller.issue(ATTACKER_ID)?);
        clients.push(("neighbour", &strangers.neighbour));
    }
    let server_side = one("server", &[("server", &topology.server)])?;
    let client_side = one("client", &clients)?;
    Ok(Running {
        kind,
        client_side,
        server_side,
        topology,
        target: SocketAddr::new(SERVER, PORT),
        outside: Some(SocketAddr::new(OUTSIDE, PORT)),
        controller: Some(controller),
        attacker,
    })
}
