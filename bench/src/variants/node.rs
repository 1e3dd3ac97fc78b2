//! A pair of node proxies, one for each pod, each in a namespace of its own, with a controller and the part of a
//! CNI agent they need. What differs between ztunnel and ours is the command.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use testkit::netns::Netns;

use super::{Kind, Running, Setting, Side, VariantError, rules, zds};
use crate::control::Controller;
use crate::process::Process;
use crate::topology::{OUTSIDE, PORT, SERVER, Topology};

/// What a proxy is told about its place.
pub(super) struct Place<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Where pods are named to it (ZDS).
    pub socket: &'a Path,
    pub controller: &'a Controller,
    pub threads: usize,
}

/// Starts both; `command` makes a proxy's.
pub(super) fn start(
    kind: Kind,
    topology: Topology,
    setting: &Setting,
    command: impl Fn(&Place<'_>) -> Command,
) -> Result<Running, VariantError> {
    let controller = Controller::start(&setting.folder)?;
    let one = |node: &str, pod: &Netns| {
        let name = format!("{}-{node}", kind.name());
        let namespace = Netns::new(&format!("lbench-{}-{name}", std::process::id()))?;
        controller.listen(&namespace)?;
        let socket = setting.folder.join(format!("{name}.sock"));
        zds::announce(&socket, pod, node).map_err(|source| VariantError::Io {
            doing: format!("listening at {}", socket.display()),
            source,
        })?;
        rules::capture(pod)?;
        let place = Place { node, socket: &socket, controller: &controller, threads: setting.threads };
        let mut process = Process::start(&name, &mut command(&place), &namespace, &setting.folder)?;
        let ready = process.wait_ready_http(&namespace, 15021, "/healthz/ready")?;
        let mut side = Side::one(process, ready);
        side.namespaces.push(namespace);
        Ok::<_, VariantError>(side)
    };
    let server_side = one("server", &topology.server)?;
    let client_side = one("client", &topology.client)?;
    Ok(Running {
        kind,
        client_side,
        server_side,
        topology,
        target: SocketAddr::new(SERVER, PORT),
        outside: Some(SocketAddr::new(OUTSIDE, PORT)),
        controller: Some(controller),
    })
}
