//! The responses of the programs that say what resources cost a proxy once it has taken them in.

use bytes::Bytes;
use prost::Message;
use proto::Any;
use proto::discovery::{DeltaDiscoveryResponse, Resource};
use proto::type_url::ADDRESS;
use proto::workload::Address;
use proto::workload::address::Type;

/// A response with these, by name and version, as it comes off the wire: resources are views of one buffer.
pub(crate) fn response(addresses: impl Iterator<Item = (String, String, Type)>) -> DeltaDiscoveryResponse {
    let resource = |(name, version, address)| {
        let value = Address { r#type: Some(address) }.encode_to_vec().into();
        let resource = Some(Any { type_url: ADDRESS.into(), value });
        Resource { name, version, resource, ..Default::default() }
    };
    let resources = addresses.map(resource).collect();
    let nonce = "lateen/1".into();
    let response =
        DeltaDiscoveryResponse { type_url: ADDRESS.into(), resources, nonce, ..Default::default() };
    DeltaDiscoveryResponse::decode(Bytes::from(response.encode_to_vec())).expect("what was encoded")
}
