//! What series and logs call the two ends of what was carried, and the service that was asked for.

use std::sync::Arc;

use model::Identity;
use model::address::NamespacedHostname;
use model::baggage::Baggage;
use model::service::{Service, short_name};
use model::workload::Workload;

/// What the labels say of one end. Empty values are reported as `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct End {
    /// The owner's name.
    pub workload: Arc<str>,
    /// The canonical service name.
    pub canonical_service: Arc<str>,
    /// The canonical revision.
    pub canonical_revision: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The identity that TLS proved.
    pub principal: Arc<str>,
    /// The cluster.
    pub cluster: Arc<str>,
    /// The region.
    pub region: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
}

/// What the labels say of the service that was asked for. Empty where it was none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceLabels {
    /// Its name.
    pub service: Option<NamespacedHostname>,
    /// Its short name, where that is not what its host name says.
    pub other_name: Option<Arc<str>>,
}

impl ServiceLabels {
    /// What the mesh knows of it, if it was one.
    pub fn of(service: Option<&Service>) -> Self {
        let named = |service: &Service| Self {
            service: Some(service.key.clone()),
            other_name: service.rare.name.clone(),
        };
        service.map(named).unwrap_or_default()
    }

    /// Its host name.
    pub fn hostname(&self) -> &str {
        self.service.as_ref().map_or("", NamespacedHostname::hostname)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.service.as_ref().map_or("", NamespacedHostname::namespace)
    }

    /// Its short name.
    pub fn name(&self) -> &str {
        self.other_name.as_deref().unwrap_or_else(|| short_name(self.hostname()))
    }
}

impl End {
    /// What the mesh knows of a workload.
    pub fn of(workload: &Workload, principal: Arc<str>) -> Self {
        let profile = &workload.profile;
        Self {
            workload: profile.workload_name.clone(),
            canonical_service: profile.canonical_name.clone(),
            canonical_revision: profile.canonical_revision.clone(),
            namespace: workload.namespace().clone(),
            principal,
            cluster: profile.cluster.clone(),
            region: profile.locality.region.clone(),
            zone: profile.locality.zone.clone(),
        }
    }

    /// What a peer that nobody knows says of itself, as far as its certificate does not say otherwise.
    pub fn said(baggage: &Baggage, proved: Option<&Identity>, principal: Arc<str>) -> Self {
        Self {
            workload: baggage.workload.as_str().into(),
            canonical_service: baggage.service.as_str().into(),
            canonical_revision: baggage.revision.as_str().into(),
            namespace: proved
                .map_or_else(|| baggage.namespace.as_str().into(), |proved| proved.namespace().clone()),
            principal,
            cluster: baggage.cluster.as_str().into(),
            region: baggage.region.as_str().into(),
            zone: baggage.zone.as_str().into(),
        }
    }
}
