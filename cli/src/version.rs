//! `lateen version`: of the client, and of everything that runs in the mesh.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;

use crate::args::{VersionArgs, VersionFormat};
use crate::control::{self, Reply, Request};
use crate::state::{self, StateError};
use crate::{Outcome, say};

/// Runs `version`. Without a mesh that is meant only the client has one.
pub(crate) fn run(mesh: Option<&str>, args: &VersionArgs) -> Outcome {
    let client = env!("CARGO_PKG_VERSION");
    let (running, note) = match state::select(mesh) {
        Ok(mesh) => (Some(mesh), None),
        Err(StateError::NoneRunning) => (None, Some("no mesh is running".to_owned())),
        // The client's own version is no question of which.
        Err(several @ StateError::Several(_)) => (None, Some(several.to_string())),
        Err(error) => return Err(error.into()),
    };
    let components: BTreeMap<String, String> = match &running {
        None => BTreeMap::new(),
        Some(mesh) => match control::ask(mesh, &Request::Status)? {
            Reply::Status(status) => status.components,
            other => return Err(control::ControlError::Malformed(format!("{other:?}")).into()),
        },
    };
    let of = |prefix: &str| -> BTreeMap<&str, &str> {
        let named = components
            .iter()
            .filter_map(|(name, version)| Some((name.strip_prefix(prefix)?, version.as_str())));
        named.collect()
    };
    if args.output == Some(VersionFormat::Json) {
        let report = json!({
            "client": client,
            "mesh": running.as_ref().map(state::MeshDir::name),
            "controlPlane": components.get("ctrl"),
            "nodeAgents": of("node-agent/"),
            "waypoints": of("waypoint/"),
        });
        say(&format!("{report:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("client          {client}"));
    for (name, version) in &components {
        say(&format!("{name:<15} {version}"));
    }
    if let Some(note) = note {
        say(&note);
    }
    Ok(ExitCode::SUCCESS)
}
