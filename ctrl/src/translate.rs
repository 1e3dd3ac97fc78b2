//! What objects mean, in the types of the model: pure functions of the index. The rules are istiod's, stricter where
//! the mesh's own promise is (a policy is enforced or loudly refused, never skipped).

pub mod authz;
pub mod peer_authentication;
pub mod routing;
pub mod service;
pub mod waypoint;
pub mod workload;

use std::path::Path;
use std::sync::Arc;

use model::address::{NamespacedHostname, Str};
use model::mesh::Settings;

use crate::index::Name;

/// What is the same for all translations.
#[derive(Debug, Clone)]
pub struct Context {
    /// The mesh.
    pub settings: Settings,
    /// The network that addresses belong to where nothing else is said.
    pub network: Str,
    /// What follows `svc` in host names.
    pub domain: Str,
    /// The folder of the objects that the mesh itself writes.
    pub objects: Option<Arc<Path>>,
}

impl Context {
    /// A mesh of one network, with Kubernetes' usual domain.
    pub fn new(settings: Settings) -> Self {
        Self { settings, network: "".into(), domain: "cluster.local".into(), objects: None }
    }

    /// A service by its full name.
    pub fn host(&self, service: &Name) -> NamespacedHostname {
        let hostname = format!("{}.{}.svc.{}", service.name, service.namespace, self.domain);
        NamespacedHostname::new(&service.namespace, &hostname)
    }
}
