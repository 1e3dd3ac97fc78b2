//! Our node agent's proxying role, driven just as ztunnel is: the same rules, the same controller.

use std::process::Command;

use super::node::{self, Place};
use super::{Kind, Running, Setting, VariantError};
use crate::control::Controller;
use crate::topology::Topology;

/// Starts one for each pod.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting
        .lateen
        .as_deref()
        .ok_or(VariantError::NotGiven("--lateen PATH (cargo build --release -p node-agent)"))?;
    node::start(Kind::Lateen, topology, setting, |place: &Place<'_>| {
        let mut command = Command::new(binary);
        command
            .arg("proxy")
            .env_clear()
            .env("NODE_NAME", place.node)
            .env("INPOD_UDS", place.socket)
            .env("XDS_ADDRESS", Controller::address())
            .env("CA_ADDRESS", Controller::address())
            .env("XDS_ROOT_CA", &place.controller.roots)
            .env("CA_ROOT_CA", &place.controller.roots)
            .env("TOKEN_FILE", &place.controller.token)
            .env("WORKER_THREADS", place.threads.to_string());
        command
    })
}
