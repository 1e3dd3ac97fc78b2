//! A message of any type. prost's own holds a `Vec`; here the content is shared, so that the controller encodes
//! a resource once for all its clients and a client decodes it in place.

use bytes::Bytes;
use prost::{DecodeError, Message, Name};

/// `google.protobuf.Any`: an encoded message and its type.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// The type, as `type.googleapis.com/<full name>`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// Packs a message.
    pub fn pack<M: Message + Name>(message: &M) -> Self {
        Self { type_url: M::type_url(), value: message.encode_to_vec().into() }
    }

    /// Unpacks a message, if its type is `M`.
    ///
    /// # Errors
    /// `None` if it is of another type; the decoder's error if the bytes are not an `M`.
    pub fn unpack<M: Message + Name + Default>(&self) -> Option<Result<M, DecodeError>> {
        (self.type_url == M::type_url()).then(|| M::decode(self.value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::Any;
    use crate::{mesh::EnforcedBy, mesh::Labels, type_url, workload};
    use prost::Name;

    #[test]
    fn a_packed_message_unpacks_as_its_own_type_only() {
        let message = EnforcedBy { identities: vec!["spiffe://cluster.local/ns/a/sa/b".into()] };
        let any = Any::pack(&message);
        assert_eq!(any.type_url, "type.googleapis.com/lateen.mesh.EnforcedBy");
        assert_eq!(any.unpack::<EnforcedBy>().expect("its type").expect("its bytes"), message);
        assert!(any.unpack::<Labels>().is_none());
    }

    #[test]
    fn constants_agree_with_the_compiled_names() {
        assert_eq!(workload::Address::type_url(), type_url::ADDRESS);
        assert_eq!(crate::security::Authorization::type_url(), type_url::AUTHORIZATION);
        assert_eq!(crate::mesh::MeshSettings::type_url(), type_url::MESH_SETTINGS);
    }
}
