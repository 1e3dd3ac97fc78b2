//! Istio's ztunnel, any release build.

use std::process::Command;

use super::node::{self, Place};
use super::{Kind, Running, Setting, VariantError};
use crate::control::Controller;
use crate::topology::Topology;

/// Starts one for each pod.
pub(super) fn start(topology: Topology, setting: &Setting) -> Result<Running, VariantError> {
    let binary = setting.ztunnel.as_deref().ok_or(VariantError::NotGiven("--ztunnel PATH"))?;
    node::start(Kind::Ztunnel, topology, setting, |place: &Place<'_>| {
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
            .env("AUTH_TOKEN", &place.controller.token)
            .env("ZTUNNEL_WORKER_THREADS", place.threads.to_string());
        command
    })
}
