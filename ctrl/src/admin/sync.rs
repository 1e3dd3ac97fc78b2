//! `/sync`: what each proxy has in force. `/version`: what each proxy is.

use pages::sync::{Client, Refused, Sync};
use pages::version::{Proxy, Versions};
use xds::node::NodeInfo;
use xds::server::ClientStatus;

use crate::ca::authorize::Caller;
use crate::core::Core;

/// Metadata with a proxy's version.
const VERSION: [&str; 2] = ["LATEEN_VERSION", "ISTIO_VERSION"];

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
        "ztunnel" if node.heeds_extensions() => "node-agent",
        kind => kind,
    }
}

pub(super) fn version(clients: &[ClientStatus<Caller>]) -> Versions {
    let one = |status: &ClientStatus<Caller>| Proxy {
        node: node(status),
        role: role(&status.node).to_owned(),
        pod: status.node.pod.clone(),
        namespace: status.node.namespace.clone(),
        version: version_of(&status.node),
    };
    Versions { ctrl: env!("CARGO_PKG_VERSION").to_owned(), clients: clients.iter().map(one).collect() }
}
