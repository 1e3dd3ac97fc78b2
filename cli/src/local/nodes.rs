//! Nodes: network namespaces on one bridge, each with its range of pods, routes to the others and no way out.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::addresses::{self, Pair};
use super::links::{self, LinkError, Links};
use super::namespaces::Netns;

const BRIDGE: &str = "lateen0";

/// Why a node could not be made or a pod joined to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("network of {what}: {error}")]
    Links { what: String, error: LinkError },
    #[error("network namespace of {what}: {error}")]
    Namespace { what: String, error: std::io::Error },
}

/// A node of the mesh.
#[derive(Debug)]
pub(crate) struct Node {
    /// `node-1` …
    pub(crate) name: String,
    /// 1 …
    pub(crate) number: u8,
    /// Its namespace; pods are others, joined to it.
    pub(crate) netns: Netns,
    /// Its addresses on the bridge.
    pub(crate) addresses: Pair,
}

/// Name of node `number`.
pub(crate) fn name(number: u8) -> String {
    format!("node-{number}")
}

/// Makes the bridge, in the namespace this process is in, and `count` nodes on it.
pub(crate) async fn create(folder: &Path, count: u8) -> Result<Vec<Arc<Node>>, NodeError> {
    let own = Netns::own().map_err(namespace("the mesh"))?;
    run(&own, "the mesh", create_bridge).await?;
    let mut nodes = Vec::new();
    for number in 1..=count {
        let name = name(number);
        let netns = Netns::create(&folder.join(&name)).await.map_err(namespace(&name))?;
        let node = Node { addresses: addresses::node(number), name, number, netns };
        join_bridge(&own, &node, count).await?;
        nodes.push(Arc::new(node));
    }
    Ok(nodes)
}

fn namespace(what: &str) -> impl FnOnce(std::io::Error) -> NodeError {
    let what = what.to_owned();
    move |error| NodeError::Namespace { what, error }
}

/// Runs network set-up inside a namespace.
async fn run(
    netns: &Netns,
    what: &str,
    work: impl FnOnce() -> Result<(), LinkError> + Send + 'static,
) -> Result<(), NodeError> {
    let result = netns.run(work).await.map_err(namespace(what))?;
    result.map_err(|error| NodeError::Links { what: what.to_owned(), error })
}

fn create_bridge() -> Result<(), LinkError> {
    links::base_sysctls(true)?;
    links::configure(async |links: Links| {
        links.up("lo").await?;
        links.add_bridge(BRIDGE).await?;
        links.up(BRIDGE).await?;
        links.add_address(BRIDGE, addresses::BRIDGE_V4.into(), addresses::BRIDGE_PREFIX_V4).await?;
        links.add_address(BRIDGE, addresses::BRIDGE_V6.into(), addresses::BRIDGE_PREFIX_V6).await?;
        // The controller reaches services (keys of token issuers) as a process of the first node would.
        let first = addresses::node(1);
        for (network, gateway) in service_routes(first) {
            links.add_route(network, Some(gateway), BRIDGE).await?;
        }
        Ok(())
    })
}

fn service_routes(via: Pair) -> [((IpAddr, u8), IpAddr); 2] {
    let (v4, v6) = (addresses::SERVICE_V4, addresses::SERVICE_V6);
    [((v4.0.into(), v4.1), via.v4.into()), ((v6.0.into(), v6.1), via.v6.into())]
}

fn pod_routes(number: u8) -> [((IpAddr, u8), IpAddr); 2] {
    let (v4, v6) = addresses::pod_range(number);
    let via = addresses::node(number);
    [((v4.0.into(), v4.1), via.v4.into()), ((v6.0.into(), v6.1), via.v6.into())]
}

async fn join_bridge(own: &Netns, node: &Node, count: u8) -> Result<(), NodeError> {
    let number = node.number;
    run(&node.netns, &node.name, || links::base_sysctls(true)).await?;
    let inside = node.netns.clone();
    run(own, &node.name, move || {
        links::configure(async |links: Links| {
            let (outer, inner) = (format!("n{number}"), format!("i{number}"));
            links.add_veth(&outer, &inner).await?;
            links.hand_over(&inner, inside.file(), "eth0").await?;
            links.enslave(&outer, BRIDGE).await?;
            for (network, gateway) in pod_routes(number) {
                links.add_route(network, Some(gateway), BRIDGE).await?;
            }
            Ok(())
        })
    })
    .await?;
    let addresses = node.addresses;
    run(&node.netns, &node.name, move || {
        links::configure(async |links: Links| configure_node(&links, number, addresses, count).await)
    })
    .await
}

async fn configure_node(links: &Links, number: u8, own: Pair, count: u8) -> Result<(), LinkError> {
    links.up("lo").await?;
    links.add_address("lo", addresses::DNS_V4.into(), 32).await?;
    links.add_address("lo", addresses::DNS_V6.into(), 128).await?;
    links.add_address("lo", addresses::PROBE_V4.into(), 32).await?;
    links.add_address("lo", addresses::PROBE_V6.into(), 128).await?;
    links.add_address("eth0", own.v4.into(), addresses::BRIDGE_PREFIX_V4).await?;
    links.add_address("eth0", own.v6.into(), addresses::BRIDGE_PREFIX_V6).await?;
    links.up("eth0").await?;
    for other in (1..=count).filter(|other| *other != number) {
        for (network, gateway) in pod_routes(other) {
            links.add_route(network, Some(gateway), "eth0").await?;
        }
    }
    // A process of the node itself needs a way before the rules can turn it towards an endpoint.
    for (network, _) in service_routes(own) {
        links.add_route(network, None, "eth0").await?;
    }
    Ok(())
}

/// Joins a pod's namespace to its node: eth0 with both addresses, and everything goes to the node.
pub(crate) async fn join_pod(node: &Node, pod: &Netns, link: &str, own: Pair) -> Result<(), NodeError> {
    let gateway = addresses::gateway(node.number);
    let outside = node.netns.clone();
    let outer = link.to_owned();
    run(pod, link, move || {
        links::base_sysctls(false)?;
        links::configure(async |links: Links| {
            links.up("lo").await?;
            links.add_veth("eth0", &outer).await?;
            links.hand_over(&outer, outside.file(), &outer).await?;
            links.up("eth0").await?;
            for (address, gateway) in
                [(IpAddr::V4(own.v4), IpAddr::V4(gateway.v4)), (own.v6.into(), gateway.v6.into())]
            {
                let whole = if address.is_ipv4() { 32 } else { 128 };
                let everything =
                    if address.is_ipv4() { IpAddr::V4([0; 4].into()) } else { IpAddr::V6([0; 16].into()) };
                links.add_address("eth0", address, whole).await?;
                links.add_route((gateway, whole), None, "eth0").await?;
                links.add_route((everything, 0), Some(gateway), "eth0").await?;
            }
            Ok(())
        })
    })
    .await?;
    let outer = link.to_owned();
    run(&node.netns, link, move || {
        links::configure(async |links: Links| {
            links.up(&outer).await?;
            links.add_address(&outer, gateway.v4.into(), 32).await?;
            links.add_address(&outer, gateway.v6.into(), 128).await?;
            links.add_route((own.v4.into(), 32), None, &outer).await?;
            links.add_route((own.v6.into(), 128), None, &outer).await
        })
    })
    .await
}

/// Cuts a pod off: packets to it find no way from this moment on.
pub(crate) async fn part_pod(node: &Node, link: &str) {
    let outer = link.to_owned();
    // It has gone already when the pod's namespace ended first.
    let _ = run(&node.netns, link, move || links::configure(async |links: Links| links.delete(&outer).await))
        .await;
}
