//! What a proxy leaves to its successor: everything the controller told, with its versions, and the certificates,
//! so that a restart serves at once and without a controller (`design.md` D7, D11).

use std::collections::BTreeMap;

use model::mesh::Mesh;
use prost::Message;
use proto::type_url;
use proto::workload::{Address, address};
use xds::convert::{authz, service, settings, workload};

/// The form written here. Another form is not read: the controller is asked again.
const FORM: u32 = 1;

/// The saved state, as it is kept in memory by the redirecting role.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedState {
    /// [`FORM`].
    #[prost(uint32, tag = "1")]
    form: u32,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<SavedResource>,
    /// Certificates and keys, as the identity crate exports them.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) certificates: Vec<u8>,
}

/// One resource.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedResource {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// The controller's version, empty where it gave none.
    #[prost(string, tag = "3")]
    pub(crate) version: String,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) value: bytes::Bytes,
}

impl SavedState {
    /// Everything known, with the versions that the subscriptions have by type.
    pub(crate) fn of(
        mesh: &Mesh,
        versions: impl Fn(&'static str) -> BTreeMap<String, String>,
        certificates: Vec<u8>,
    ) -> Self {
        let addresses = versions(type_url::ADDRESS);
        let policies = versions(type_url::AUTHORIZATION);
        let whole = versions(type_url::MESH_SETTINGS);
        let resource = |type_url: &str, versions: &BTreeMap<String, String>, name: String, value: Vec<u8>| {
            // What has no version in the subscription was refused or stands in for something: it is fetched again.
            let version = versions.get(&name).cloned().unwrap_or_default();
            SavedResource { type_url: type_url.to_owned(), name, version, value: value.into() }
        };
        let mut resources = Vec::new();
        for (name, version) in &whole {
            let value = settings::to_wire(mesh.settings(), mesh.network()).encode_to_vec();
            let saved = SavedResource {
                type_url: type_url::MESH_SETTINGS.to_owned(),
                name: name.clone(),
                version: version.clone(),
                value: value.into(),
            };
            resources.push(saved);
        }
        // Also those that stand in for what could not be read: on the wire they deny everything.
        for policy in mesh.policies() {
            let value = authz::to_wire(policy).encode_to_vec();
            resources.push(resource(type_url::AUTHORIZATION, &policies, policy.name.to_string(), value));
        }
        for known in mesh.services() {
            let value = Address { r#type: Some(address::Type::Service(service::to_wire(known))) };
            resources.push(resource(
                type_url::ADDRESS,
                &addresses,
                known.key.to_string(),
                value.encode_to_vec(),
            ));
        }
        for known in mesh.workloads() {
            let value = Address { r#type: Some(address::Type::Workload(workload::to_wire(known))) };
            resources.push(resource(
                type_url::ADDRESS,
                &addresses,
                known.uid.to_string(),
                value.encode_to_vec(),
            ));
        }
        Self { form: FORM, resources, certificates }
    }

    /// Reads a saved state; `None` for one of another form or a damaged one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok().filter(|saved| saved.form == FORM)
    }

    /// The resources, settings before policies before what names them.
    pub(crate) fn resources(&self) -> &[SavedResource] {
        &self.resources
    }
}
