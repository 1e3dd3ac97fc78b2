//! The wire types of every seam, compiled from `proto/`: what controller, node agents and waypoints, and their
//! counterparts in Istio, say to each other. No logic but packing an [`Any`].
//!
//! | module | seam |
//! |---|---|
//! | [`discovery`] | controller → proxies: delta xDS, the envelope |
//! | [`workload`], [`security`] | controller → proxies: the resources in it |
//! | [`mesh`] | controller → proxies: what only Lateen says |
//! | [`routing`] | controller → waypoints: routes, subsets and traffic policies of a host |
//! | [`request_security`] | controller → waypoints: policies in full |
//! | [`diagnostics`] | controller → proxies: questions of people |
//! | [`ca`] | proxies → controller: certificates |
//! | [`zds`] | redirector ⇄ proxy of one node |

mod any;

pub use any::Any;

/// Declares a module of generated code. Its documentation is the `.proto` files' comments; lints are for
/// people's code.
macro_rules! generated {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}

generated! {
    /// `envoy.service.discovery.v3`: the delta xDS envelope and service.
    discovery, "envoy.service.discovery.v3"
}
generated! {
    /// `istio.workload`: workloads and services.
    workload, "istio.workload"
}
generated! {
    /// `istio.security`: authorization policies.
    security, "istio.security"
}
generated! {
    /// `istio.v1.auth`: the certificate service.
    ca, "istio.v1.auth"
}
generated! {
    /// `istio.workload.zds`: pods and their network namespaces.
    zds, "istio.workload.zds"
}
generated! {
    /// `lateen.mesh`: what only Lateen's own parts say.
    mesh, "lateen.mesh"
}
generated! {
    /// `lateen.routing.v1`: what becomes of traffic to a host at layer 7.
    routing, "lateen.routing.v1"
}

/// `lateen.security.v1`: authorization policies as waypoints enforce them.
pub use lateen::security::v1 as request_security;

/// `lateen.diagnostics.v1`: what the controller asks its proxies on behalf of people.
pub use lateen::diagnostics::v1 as diagnostics;

/// As deep as their packages, because they speak of others by the way to them.
mod lateen {
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    pub mod diagnostics {
        pub mod v1 {
            tonic::include_proto!("lateen.diagnostics.v1");
        }
    }
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    pub mod security {
        pub mod v1 {
            tonic::include_proto!("lateen.security.v1");
        }
    }
}

/// What generated code calls [`discovery`].
mod envoy {
    pub(crate) mod service {
        pub(crate) mod discovery {
            pub(crate) use crate::discovery as v3;
        }
    }
}

/// What generated code calls [`security`].
mod istio {
    pub(crate) use crate::security;
}

/// Type URLs of the resources that delta xDS carries.
pub mod type_url {
    /// [`workload::Address`](crate::workload::Address): workloads and services.
    pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
    /// [`security::Authorization`](crate::security::Authorization): policies.
    pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
    /// [`request_security::Authorization`](crate::request_security::Authorization): policies, as waypoints enforce them.
    /// Whoever asks for these does not ask for [`AUTHORIZATION`] as well: the names are the same.
    pub const REQUEST_AUTHORIZATION: &str = "type.googleapis.com/lateen.security.v1.Authorization";
    /// [`mesh::MeshSettings`](crate::mesh::MeshSettings): the one resource named
    /// [`MESH_SETTINGS_NAME`](crate::MESH_SETTINGS_NAME).
    pub const MESH_SETTINGS: &str = "type.googleapis.com/lateen.mesh.MeshSettings";
    /// [`routing::Routing`](crate::routing::Routing): one for each host, to waypoints and gateways.
    pub const ROUTING: &str = "type.googleapis.com/lateen.routing.v1.Routing";
}

/// Names of the extensions that Lateen packs into the workload API's messages.
pub mod extension {
    /// In a workload: a [`mesh::EnforcedBy`](crate::mesh::EnforcedBy).
    pub const ENFORCED_BY: &str = "lateen.dev/enforced-by";
    /// In a workload: its [`mesh::Labels`](crate::mesh::Labels).
    pub const LABELS: &str = "lateen.dev/labels";
    /// In a match of a policy: [`mesh::UnseenAttributes`](crate::mesh::UnseenAttributes).
    pub const UNSEEN: &str = "lateen.dev/unseen";
    /// In a policy: an [`mesh::InvalidPolicy`](crate::mesh::InvalidPolicy).
    pub const INVALID: &str = "lateen.dev/invalid";
    /// In any resource: its [`mesh::ResourceOrigin`](crate::mesh::ResourceOrigin).
    pub const ORIGIN: &str = "lateen.dev/origin";
}

/// Name of the one [`mesh::MeshSettings`] resource.
pub const MESH_SETTINGS_NAME: &str = "mesh";
