//! Istio's ztunnel, any release build, with the part of a CNI agent that it needs.

use std::path::PathBuf;
use std::process::Command;

use testkit::netns::Netns;

use super::node::{self, Place};
use super::{Kind, Running, Setting, VariantError, rules, zds};
use crate::control::Controller;
use crate::topology::Topology;

/// Starts one for each pod.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting.ztunnel.as_deref().ok_or(VariantError::NotGiven("--ztunnel PATH"))?;
    let capture = |place: &Place<'_>, pods: &[(&str, &Netns)]| {
        let socket = socket(place);
        zds::announce(&socket, pods).map_err(|source| VariantError::Io {
            doing: format!("listening at {}", socket.display()),
            source,
        })?;
        for (_, pod) in pods {
            rules::capture(pod)?;
        }
        Ok(None)
    };
    node::start(Kind::Ztunnel, topology, setting, capture, |place: &Place<'_>| {
        let mut command = Command::new(binary);
        command
            .arg("proxy")
            .env_clear()
            .env("NODE_NAME", place.node)
            .env("INPOD_UDS", socket(place))
            .env("XDS_ADDRESS", Controller::address())
            .env("CA_ADDRESS", Controller::address())
            .env("XDS_ROOT_CA", &place.controller.roots)
            .env("CA_ROOT_CA", &place.controller.roots)
            .env("AUTH_TOKEN", &place.controller.token)
            .env("ZTUNNEL_WORKER_THREADS", place.threads.to_string());
        command
    })
}

/// Where its pod is named to it (ZDS).
fn socket(place: &Place<'_>) -> PathBuf {
    place.run_dir.join("zds.sock")
}
