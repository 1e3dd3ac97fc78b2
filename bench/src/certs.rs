//! Certificates for peers that are given them as files: one root, two SPIFFE identities, all ECDSA P-256.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use testkit::envoy::Credentials;

/// The client pod's identity.
pub(crate) const CLIENT_ID: &str = "spiffe://cluster.local/ns/bench/sa/client";
/// The server pod's identity.
pub(crate) const SERVER_ID: &str = "spiffe://cluster.local/ns/bench/sa/server";

/// One of the mesh who means harm.
pub(crate) const ATTACKER_ID: &str = "spiffe://cluster.local/ns/bench/sa/attacker";

/// Both ends' credentials, each accepting only the other; and an attacker's, whom the server takes for one of the mesh.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub client: Credentials,
    pub server: Credentials,
    pub attacker: Credentials,
}

/// Makes fresh ones.
pub(crate) fn issue() -> Result<Certificates, rcgen::Error> {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    root.distinguished_name.push(rcgen::DnType::OrganizationName, "bench");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    let leaf = |id: &str, peers: &[&str]| -> Result<Credentials, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Ok(Credentials {
            chain: params.signed_by(&key, &root)?.pem(),
            key: key.serialize_pem(),
            roots: root.pem(),
            peers: peers.iter().map(|&peer| peer.to_owned()).collect(),
        })
    };
    Ok(Certificates {
        client: leaf(CLIENT_ID, &[SERVER_ID])?,
        server: leaf(SERVER_ID, &[CLIENT_ID, ATTACKER_ID])?,
        attacker: leaf(ATTACKER_ID, &[SERVER_ID])?,
    })
}
