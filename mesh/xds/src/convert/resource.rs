//! From the model to resources ready to be published: named, with the other names they are asked for by.

use model::address::Str;
use model::authz::Policy;
use model::mesh::Settings;
use model::route::Routing;
use model::service::Service;
use model::workload::Workload;
use proto::workload::address::Type;
use proto::workload::{Address, Extension};
use proto::{mesh, type_url};

use super::{authz, routing, service, settings, workload};
use crate::delta::store::Resource;
use crate::names;

/// The types of the workload API, in the order in which they depend on one another: what a
/// [`Publisher`](crate::server::Publisher) of them is made with.
pub const TYPES: [&str; 4] =
    [type_url::MESH_SETTINGS, type_url::AUTHORIZATION, type_url::REQUEST_AUTHORIZATION, type_url::ADDRESS];

/// A workload, for [`type_url::ADDRESS`]. `extensions` are said of it beyond the model, such as its
/// [labels].
pub fn workload(one: &Workload, extensions: impl IntoIterator<Item = Extension>) -> Resource {
    let mut wire = workload::to_wire(one);
    wire.extensions.extend(extensions);
    let services = one.profile.services.iter().map(|(service, _)| Str::from(service.to_string()));
    let node = (!one.node.is_empty()).then(|| names::node(&one.node));
    Resource::pack(one.uid.clone(), &Address { r#type: Some(Type::Workload(wire)) })
        .with_aliases(workload::aliases(one))
        .with_part_of(services.chain(node))
}

/// The extension by which waypoints and gateways are told a workload's labels.
pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Extension {
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    workload::extension(proto::extension::LABELS, &mesh::Labels { labels })
}

/// A service, for [`type_url::ADDRESS`].
pub fn service(one: &Service) -> Resource {
    let wire = service::to_wire(one);
    Resource::pack(one.key.to_string(), &Address { r#type: Some(Type::Service(wire)) })
        .with_aliases(service::aliases(one))
        .with_part_of([names::host(one.key.hostname())])
}

/// A policy, for [`type_url::AUTHORIZATION`].
pub fn policy(one: &Policy) -> Resource {
    Resource::pack(one.name.to_string(), &authz::to_wire(one))
}

/// A policy for clients that do not [understand](crate::node::NodeInfo::understands) our extensions.
pub fn policy_without_extensions(one: &Policy) -> Resource {
    Resource::pack(one.name.to_string(), &authz::to_wire_without_extensions(one))
}

/// A policy in full, for [`type_url::REQUEST_AUTHORIZATION`]: as waypoints enforce it.
pub fn request_policy(one: &Policy) -> Resource {
    Resource::pack(one.name.to_string(), &authz::request::to_wire(one))
}

/// The mesh's settings, for [`type_url::MESH_SETTINGS`].
pub fn settings(one: &Settings, network: &str) -> Resource {
    Resource::pack(proto::MESH_SETTINGS_NAME, &settings::to_wire(one, network))
}

/// The routing of a host, for [`type_url::ROUTING`], by `namespace/hostname`.
pub fn routing(one: &Routing) -> Resource {
    Resource::pack(one.host.to_string(), &routing::to_wire(one))
}
