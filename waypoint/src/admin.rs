//! The waypoint's own part of what an operator asks it (`proxy::admin`): what it knows.

use std::sync::Arc;

use daemon::http::{Answer, Routes};
use http::Method;
use serde_json::{Value, json};

use crate::Waypoint;

/// What this program is.
pub(crate) fn version() -> Value {
    json!({ "name": "lateen", "component": "waypoint", "version": env!("CARGO_PKG_VERSION") })
}

/// `/config_dump`, with the settings in force.
pub(crate) fn routes(waypoint: Arc<Waypoint>, settings: Value) -> Routes {
    Routes::default().on(Method::GET, "/config_dump", move |_| {
        let page = config_dump(&waypoint, &settings);
        async move { Answer::json(&page) }
    })
}

fn config_dump(waypoint: &Waypoint, settings: &Value) -> Value {
    let mesh = waypoint.state.read();
    let services: Vec<_> = mesh.services().map(|service| service.key.to_string()).collect();
    let policies: Vec<_> = mesh.policies().map(|policy| policy.name.to_string()).collect();
    json!({
        "identity": waypoint.own.identity.to_string(),
        "workload": waypoint.own.workload(&mesh).map(|workload| workload.uid.to_string()),
        "services": services,
        "workloads": mesh.workloads().count(),
        "policies": policies,
        "routings": waypoint.routings.hosts().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "health_checks": waypoint.checks.describe(),
        "certificates": serde_json::to_value(waypoint.trust.certificates.list()).unwrap_or_default(),
        "config": settings,
    })
}
