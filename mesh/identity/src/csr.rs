//! The certificate request: an empty subject and one critical URI SAN, as Istio's certificate service expects it.

use model::identity::Identity;
use rcgen::{CertificateParams, DistinguishedName, SanType};

use crate::key::{KeyError, PrivateKey};

/// A PEM request for a certificate that proves `identity`, signed by `key` with SHA-256.
///
/// # Errors
/// [`KeyError::Request`] if the identity cannot stand in a certificate or the signature fails.
pub fn certificate_request(key: &PrivateKey, identity: &Identity) -> Result<String, KeyError> {
    let name = identity.to_string().try_into().map_err(KeyError::Request)?;
    let mut params = CertificateParams::default();
    // With an empty subject the SAN is all there is, hence critical (RFC 5280, 4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name)];
    let request = params.serialize_request(key.pair()).map_err(KeyError::Request)?;
    request.pem().map_err(KeyError::Request)
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn has_an_empty_subject_and_one_critical_uri() {
        let key = PrivateKey::generate().unwrap();
        let identity = Identity::new("cluster.local", "default", "reviews");
        let text = certificate_request(&key, &identity).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{text}");

        let der = pem::parse(&text).unwrap().into_contents();
        let (rest, request) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty());
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject.iter().count(), 0);
        assert_eq!(info.subject_pki.raw, key.public());
        let extensions: Vec<_> = info.iter_attributes().collect();
        assert_eq!(extensions.len(), 1, "one attribute: the extension request");
        let requested: Vec<_> = request.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(san)] = requested[..] else {
            panic!("expected one SAN extension, got {requested:?}")
        };
        assert_eq!(san.general_names, [GeneralName::URI("spiffe://cluster.local/ns/default/sa/reviews")]);
        // The parsed form does not carry criticality: `06 03 55 1d 11` (the SAN's OID) is followed by `01 01 ff`.
        let oid = der.windows(5).position(|window| window == [0x06, 0x03, 0x55, 0x1d, 0x11]).unwrap();
        assert_eq!(der[oid + 5..oid + 8], [0x01, 0x01, 0xff], "the SAN is critical");
    }
}
