//! What live connections use: it is not let go of, however old they are.

use std::collections::HashSet;
use std::net::IpAddr;

use model::address::NamespacedHostname;
use model::service::Service;
use model::workload::Workload;

/// The ends of live connections.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    ips: HashSet<IpAddr>,
    services: HashSet<NamespacedHostname>,
}

impl Uses {
    /// A connection to this end.
    pub(crate) fn add(&mut self, next_hop: IpAddr, workload: Option<&Workload>, service: Option<&Service>) {
        self.ips.insert(next_hop);
        self.ips.extend(workload.iter().flat_map(|workload| workload.addresses.iter()));
        if let Some(service) = service
            && !self.services.contains(&service.key)
        {
            self.services.insert(service.key.clone());
            self.ips.extend(service.vips.iter().map(|vip| vip.ip));
        }
    }

    /// Those of another thread too.
    pub(crate) fn join(&mut self, other: Self) {
        self.ips.extend(other.ips);
        self.services.extend(other.services);
    }

    /// Whether a connection goes to this address.
    pub(super) fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
    }

    /// Whether a connection goes to this service.
    pub(super) fn has_service(&self, key: &NamespacedHostname) -> bool {
        self.services.contains(key)
    }
}
