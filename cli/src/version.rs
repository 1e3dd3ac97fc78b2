//! `lateen version`: of the client, and of everything that runs in the mesh.

use std::collections::BTreeMap;
use std::process::ExitCode;

use pages::version::Versions;
use serde_json::json;

use crate::args::{VersionArgs, VersionFormat};
use crate::cluster::ClusterArgs;
use crate::control::{self, Reply, Request};
use crate::ctrl::{Answer, AskError, ask_all};
use crate::place::{self, Place, PlaceError};
use crate::state::{MeshDir, StateError};
use crate::{Outcome, say};

/// Runs `version`. Without a mesh that is meant only the client has one.
pub(crate) fn run(mesh: Option<&str>, cluster: &ClusterArgs, args: &VersionArgs) -> Outcome {
    let client = env!("CARGO_PKG_VERSION");
    let (place, note) = match place::choose(mesh, cluster) {
        Ok(place) => (Some(place), None),
        Err(PlaceError::Neither) => (None, Some("no mesh is running".to_owned())),
        // The client's own version is no question of which.
        Err(PlaceError::State(several @ StateError::Several(_))) => (None, Some(several.to_string())),
        Err(error) => return Err(error.into()),
    };
    let (components, running, note) = match place {
        None => (BTreeMap::new(), None, note),
        Some(Place::Machine(mesh)) => (of_machine(&mesh)?, Some(mesh.name().to_owned()), note),
        Some(place @ Place::Cluster(_)) => match ask_all(&place, "GET", "/version") {
            Ok(answers) => (of_cluster(&answers)?, None, note),
            // Nor is it one to a cluster that nobody asked for by name.
            Err(error @ (AskError::Cluster(_) | AskError::NotInstalled { .. })) if !cluster.given() => {
                (BTreeMap::new(), None, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
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
            "mesh": running,
            "controlPlane": components.get("ctrl"),
            "controlPlanes": of("ctrl/"),
            "nodeAgents": of("node-agent/"),
            "waypoints": of("waypoint/"),
        });
        say(&format!("{report:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let width = components.keys().map(String::len).max().unwrap_or(0).max(15);
    say(&format!("{:<width$} {client}", "client"));
    for (name, version) in &components {
        say(&format!("{name:<width$} {version}"));
    }
    if let Some(note) = note {
        say(&note);
    }
    Ok(ExitCode::SUCCESS)
}

fn of_machine(mesh: &MeshDir) -> Result<BTreeMap<String, String>, control::ControlError> {
    match control::ask(mesh, &Request::Status)? {
        Reply::Status(status) => Ok(status.components),
        other => Err(control::ControlError::Malformed(format!("{other:?}"))),
    }
}

/// Each controller says its own version and those of the proxies that are connected to it.
fn of_cluster(answers: &[Answer]) -> Result<BTreeMap<String, String>, AskError> {
    let mut components = BTreeMap::new();
    for answer in answers {
        let versions: Versions = answer.read()?;
        let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        components.insert(format!("ctrl/{}", answer.ctrl), versions.ctrl);
        for proxy in versions.clients {
            let name = match proxy.role.as_str() {
                "node-agent" => format!("node-agent/{}", known(proxy.node)),
                _ => format!("waypoint/{}.{}", proxy.pod, proxy.namespace),
            };
            components.insert(name, known(proxy.version));
        }
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Answer, of_cluster};

    #[test]
    fn controllers_tell_of_their_proxies() {
        let page = json!({"ctrl": "0.1.0", "clients": [
            {"role": "node-agent", "node": "node-1", "pod": "a", "namespace": "istio-system", "version": "0.1.0"},
            {"role": "waypoint", "pod": "w", "namespace": "shop"},
        ]});
        let all = of_cluster(&[Answer { ctrl: "c-1".to_owned(), page }]).unwrap();
        let shown: Vec<String> = all.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(shown, ["ctrl/c-1 0.1.0", "node-agent/node-1 0.1.0", "waypoint/w.shop unknown"]);
    }
}
