//! `/sync`: what each proxy has in force. `/version`: what each proxy is.

use std::collections::BTreeMap;

use serde::Serialize;
use xds::delta::store::Revision;
use xds::node::NodeInfo;
use xds::server::ClientStatus;

use crate::ca::authorize::Caller;
use crate::core::Core;

/// Metadata with a proxy's version.
const VERSION: [&str; 2] = ["LATEEN_VERSION", "ISTIO_VERSION"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sync {
    /// The revision of what is published now.
    revision: Revision,
    /// Whether every proxy that is connected has all of it in force.
    in_force: bool,
    clients: Vec<Client>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    id: String,
    /// Its node, by its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// `node-agent`, `waypoint`, or what it calls itself.
    role: String,
    pod: String,
    namespace: String,
    /// Missing where the proxy does not say, as is its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// The revision of what is published to it.
    revision: Revision,
    /// By type, the revision up to which it has everything.
    acked: BTreeMap<String, Revision>,
    in_force: bool,
    /// What it refuses, with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    r#type: String,
    name: String,
    reason: String,
}

pub(super) fn sync(core: &Core, clients: &[ClientStatus<Caller>]) -> Sync {
    // Before the clients are looked at, they have more rather than less.
    let revision = core.ours.revision();
    let clients: Vec<Client> = clients.iter().map(|status| client(core, status)).collect();
    Sync { revision, in_force: clients.iter().all(|client| client.in_force), clients }
}

fn client(core: &Core, status: &ClientStatus<Caller>) -> Client {
    let publisher = crate::serve::view_of(core, &status.node);
    let short = |type_url: &str| type_url.rsplit('.').next().unwrap_or(type_url).to_owned();
    let revision = publisher.revision();
    let has = |type_url| status.in_force.contains_key(type_url);
    // Agents are told of policies in Istio's own form, waypoints in full.
    let subscribed = has(proto::type_url::ADDRESS)
        && (has(proto::type_url::AUTHORIZATION) || has(proto::type_url::REQUEST_AUTHORIZATION));
    let refused = status.refused.iter().map(|((type_url, name), reason)| Refused {
        r#type: short(type_url),
        name: name.to_string(),
        reason: reason.to_string(),
    });
    Client {
        id: status.node.id(),
        node: node(status),
        role: role(&status.node).to_owned(),
        pod: status.node.pod.clone(),
        namespace: status.node.namespace.clone(),
        version: version_of(&status.node),
        cluster: status.node.cluster().map(str::to_owned),
        revision,
        acked: status.in_force.iter().map(|(type_url, has)| (short(type_url), *has)).collect(),
        in_force: subscribed && status.in_force.values().all(|has| *has >= revision),
        refused: refused.collect(),
    }
}

fn node(status: &ClientStatus<Caller>) -> Option<String> {
    match &status.caller {
        Caller::Node(node) => Some(node.to_string()),
        Caller::Workload(_) => status.node.node_name().map(str::to_owned),
    }
}

fn version_of(node: &NodeInfo) -> Option<String> {
    VERSION.iter().find_map(|name| node.metadata.get(*name)).cloned()
}

fn role(node: &NodeInfo) -> &str {
    match node.kind.as_str() {
        "ztunnel" if crate::serve::heeds_extensions(node) => "node-agent",
        kind => kind,
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Version {
    ctrl: &'static str,
    clients: Vec<ClientVersion>,
}

#[derive(Debug, Serialize)]
struct ClientVersion {
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    role: String,
    pod: String,
    namespace: String,
    /// Missing where the proxy does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

pub(super) fn version(clients: &[ClientStatus<Caller>]) -> Version {
    let one = |status: &ClientStatus<Caller>| ClientVersion {
        node: node(status),
        role: role(&status.node).to_owned(),
        pod: status.node.pod.clone(),
        namespace: status.node.namespace.clone(),
        version: version_of(&status.node),
    };
    Version { ctrl: env!("CARGO_PKG_VERSION"), clients: clients.iter().map(one).collect() }
}
