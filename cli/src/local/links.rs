//! Links, addresses, routes and sysctls of the network namespace a thread is in, by rtnetlink. Called inside
//! `Netns::run`.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{step}: {error}")]
    Netlink { step: String, error: rtnetlink::Error },
    #[error("{step}: {error}")]
    Io { step: String, error: io::Error },
}

/// Runs netlink work to its end on this thread.
pub(crate) fn configure<F, W>(work: W) -> Result<(), LinkError>
where
    W: FnOnce(Links) -> F,
    F: Future<Output = Result<(), LinkError>>,
{
    let io = |step: &str| {
        let step = step.to_owned();
        move |error| LinkError::Io { step, error }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(io("runtime for netlink"))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(io("netlink socket"))?;
        let driver = tokio::spawn(connection);
        let result = work(Links { handle }).await;
        driver.abort();
        result
    })
}

/// A namespace's links.
pub(crate) struct Links {
    handle: Handle,
}

impl Links {
    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), LinkError> {
        self.add(LinkBridge::new(name).build(), name).await
    }

    pub(crate) async fn add_veth(&self, name: &str, peer: &str) -> Result<(), LinkError> {
        self.add(LinkVeth::new(name, peer).build(), name).await
    }

    async fn add(&self, message: LinkMessage, name: &str) -> Result<(), LinkError> {
        self.handle.link().add(message).execute().await.map_err(netlink(format!("add link {name}")))
    }

    /// Moves a link into another namespace under a new name.
    pub(crate) async fn hand_over(
        &self,
        name: &str,
        namespace: &impl AsRawFd,
        new_name: &str,
    ) -> Result<(), LinkError> {
        let message =
            LinkUnspec::new_with_index(index(name)?).setns_by_fd(namespace.as_raw_fd()).name(new_name);
        self.handle.link().set(message.build()).execute().await.map_err(netlink(format!("move link {name}")))
    }

    pub(crate) async fn up(&self, name: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index(name)?).up().build();
        self.handle.link().set(message).execute().await.map_err(netlink(format!("set {name} up")))
    }

    /// Makes a link a port of a bridge.
    pub(crate) async fn enslave(&self, name: &str, bridge: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index(name)?).controller(index(bridge)?).up().build();
        self.handle.link().set(message).execute().await.map_err(netlink(format!("put {name} on {bridge}")))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), LinkError> {
        self.handle.link().del(index(name)?).execute().await.map_err(netlink(format!("delete {name}")))
    }

    /// Gives a link an address; IPv6 ones are left out where the machine has no IPv6.
    pub(crate) async fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        if address.is_ipv6() && !has_ipv6() {
            return Ok(());
        }
        let mut request = self.handle.address().add(index(name)?, address, prefix);
        // Addresses are given out once. Without this the kernel looks for duplicates even where accept_dad is 0, in
        // the background: until it got round to it, nobody could bind the address.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(netlink(format!("address {address} on {name}")))
    }

    /// Adds a route to `destination`, through `gateway` if one is given, else straight out of `link`.
    pub(crate) async fn add_route(
        &self,
        destination: (IpAddr, u8),
        gateway: Option<IpAddr>,
        link: &str,
    ) -> Result<(), LinkError> {
        if destination.0.is_ipv6() && !has_ipv6() {
            return Ok(());
        }
        let message = route(destination, gateway, index(link)?);
        let step = format!("route to {}/{}", destination.0, destination.1);
        self.handle.route().add(message).replace().execute().await.map_err(netlink(step))
    }
}

fn route(destination: (IpAddr, u8), gateway: Option<IpAddr>, link: u32) -> RouteMessage {
    match destination.0 {
        IpAddr::V4(network) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(network, destination.1)
                .output_interface(link);
            route = match gateway {
                Some(IpAddr::V4(gateway)) => route.gateway(gateway),
                _ => route.scope(RouteScope::Link),
            };
            route.build()
        }
        IpAddr::V6(network) => {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(network, destination.1)
                .output_interface(link);
            if let Some(IpAddr::V6(gateway)) = gateway {
                route = route.gateway(gateway);
            }
            route.build()
        }
    }
}

fn netlink(step: String) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    move |error| LinkError::Netlink { step, error }
}

fn index(name: &str) -> Result<u32, LinkError> {
    if_nametoindex(name)
        .map_err(|errno| LinkError::Io { step: format!("find link {name}"), error: errno.into() })
}

/// Whether the machine's kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// Sets a `net.` sysctl of this namespace, its name with slashes (`ipv4/ip_forward`).
pub(crate) fn sysctl(name: &str, value: &str) -> Result<(), LinkError> {
    fs::write(format!("/proc/sys/net/{name}"), value)
        .map_err(|error| LinkError::Io { step: format!("sysctl net/{name}={value}"), error })
}

/// What every namespace of the mesh starts with, whatever the machine's defaults are. `forward`: it carries the
/// traffic of others.
pub(crate) fn base_sysctls(forward: bool) -> Result<(), LinkError> {
    let forward = if forward { "1" } else { "0" };
    for conf in ["all", "default"] {
        // Replies and spoofed sources of captured traffic take other ways than they came.
        sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "0")?;
    }
    sysctl("ipv4/ip_forward", forward)?;
    sysctl("ipv4/ip_unprivileged_port_start", "0")?;
    // Without CAP_NET_RAW, and group 0 is the one that exists in every user namespace here.
    sysctl("ipv4/ping_group_range", "0 0")?;
    if has_ipv6() {
        for conf in ["all", "default"] {
            sysctl(&format!("ipv6/conf/{conf}/disable_ipv6"), "0")?;
            // Addresses are given out once; waiting for duplicates would cost a second per pod.
            sysctl(&format!("ipv6/conf/{conf}/accept_dad"), "0")?;
            sysctl(&format!("ipv6/conf/{conf}/accept_ra"), "0")?;
            sysctl(&format!("ipv6/conf/{conf}/forwarding"), forward)?;
        }
    }
    Ok(())
}
