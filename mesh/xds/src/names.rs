//! The names that addresses are asked for by, beside their own (a workload's uid, a service's `namespace/hostname`).
//!
//! `NETWORK/IP` is Istio's. The others are ours: another's controller knows nothing by them, and says so.

use std::net::IpAddr;

use model::address::Str;

/// What has an address: a workload, or the service whose virtual address it is.
pub fn at(network: &str, ip: IpAddr) -> Str {
    format!("{network}/{ip}").into()
}

/// The services of a host name, whatever their namespace. Istio's names need the namespace, which who asks for a
/// name's addresses does not know.
pub fn host(hostname: &str) -> Str {
    format!("@host/{hostname}").into()
}

/// The workloads of a node. Nobody has to ask for them: an agent is sent those of its own node, as by istiod.
pub fn node(name: &str) -> Str {
    format!("@node/{name}").into()
}
