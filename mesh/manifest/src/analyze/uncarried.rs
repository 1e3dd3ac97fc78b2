//! What passes beside the mesh: other protocols than TCP, and pods on the node's own network. Said where
//! somebody may rely on the contrary, that is, where every caller has to have an identity. And what comes from outside
//! past a waypoint that it was to go through.

use super::{Inventory, finding};
use crate::{
    Step,
    cursor::Cursor,
    finding::{Code, Finding, Level},
    object::{Object, Typed},
    position::Position,
};

/// DNS is answered by the node's agent, over UDP too.
const DNS: i64 = 53;

/// By which a Service, or all of a namespace, has an ingress gateway's requests go through its waypoint.
const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";

/// A warning for each UDP or SCTP port of a Service, and each workload on the node's network, in a namespace
/// that is STRICT; and for each object that asks for ingress through a waypoint.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    [beside_strict(object, inventory), ingress(object).into_iter().collect()].concat()
}

/// No gateway is told by us to go there; an Istio's own gateway heeds its own controller alone.
fn ingress(object: &Object) -> Option<Finding> {
    let asked = object.label(INGRESS_USE_WAYPOINT) == Some("true");
    if !asked || !matches!(object.spec, Typed::Service(_) | Typed::Namespace(_)) {
        return None;
    }
    let path = [Step::Key("metadata"), Step::Key("labels"), Step::Key(INGRESS_USE_WAYPOINT)];
    let message =
        format!("{INGRESS_USE_WAYPOINT} is not carried out: requests from outside come past the waypoint");
    let field = format!("metadata.labels.{INGRESS_USE_WAYPOINT}");
    let at = object.locate(&path);
    let finding = finding(Level::Warning, Code::NotCarried, object, at, &field, message);
    Some(
        finding.with_fix(
            "set the label lateen.dev/require-waypoint: \"true\": then nothing comes but through it",
        ),
    )
}

fn beside_strict(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let strict = object.metadata.namespace.as_deref().is_some_and(|namespace| inventory.is_strict(namespace));
    if !strict {
        return Vec::new();
    }
    match &object.spec {
        Typed::Service(_) => ports(object),
        _ => host_network(object, inventory).into_iter().collect(),
    }
}

fn ports(object: &Object) -> Vec<Finding> {
    let Some(spec) = Cursor::root(object.tree()).get("spec") else { return Vec::new() };
    let uncarried = |port: &Cursor<'_>| {
        let protocol = port.get("protocol").filter(|protocol| protocol.text() != "TCP")?;
        let number = port.get("port")?.node.to_json().as_i64()?;
        if number == DNS {
            return None;
        }
        let message = format!(
            "{} port {number} passes beside the mesh: STRICT does not protect it, and no policy is asked",
            protocol.text()
        );
        let at = Position::new(object.file(), protocol.at);
        let finding = finding(Level::Warning, Code::NotCarried, object, at, &protocol.path, message);
        Some(finding.with_fix("protect it with a NetworkPolicy"))
    };
    spec.items("ports").iter().filter_map(uncarried).collect()
}

fn host_network(object: &Object, inventory: &Inventory<'_>) -> Option<Finding> {
    let workload = inventory.workloads.iter().find(|workload| std::ptr::eq(workload.object, object))?;
    if !workload.host_network {
        return None;
    }
    let at = object.locate(&[Step::Key("spec")]);
    let message =
        "pods on the node's network are not captured: STRICT does not protect them, and no policy is asked";
    Some(finding(Level::Warning, Code::NotCarried, object, at, "spec", message.to_owned()))
}
