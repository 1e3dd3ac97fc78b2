//! A certificate authority in the test's own process: bundles for any identity at once, and leaves that no good
//! authority would sign.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::authority::{AuthorityError, CertificateAuthority};
use identity::bundle::{CertificateBundle, RootBundle, certificate_pem};
use identity::key::PrivateKey;
use model::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;

/// What a leaf says.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its URI names, in order.
    pub uris: Vec<String>,
    /// Its DNS names.
    pub dns: Vec<String>,
    /// Its notBefore.
    pub not_before: SystemTime,
    /// Its notAfter.
    pub not_after: SystemTime,
    /// What it may be used for; empty leaves the extension out.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
}

/// An authority: a self-signed root, or an intermediate under one.
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// This authority's own certificate and those between it and the root; empty for a root.
    intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    lifetime: Duration,
    /// What its replies say is to be trusted, where that is more than its root.
    bundle: Option<RootBundle>,
}

impl Leaf {
    /// A leaf for `identity` that is valid from a minute ago for an hour, for both roles.
    pub fn of(identity: &Identity) -> Self {
        Self::valid(identity, SystemTime::now(), Duration::from_secs(3600))
    }

    /// A leaf for `identity` issued at `now`.
    pub fn valid(identity: &Identity, now: SystemTime, lifetime: Duration) -> Self {
        Self {
            uris: vec![identity.to_string()],
            dns: Vec::new(),
            not_before: now - Duration::from_secs(60).min(lifetime / 10),
            not_after: now + lifetime,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

impl Default for TestAuthority {
    fn default() -> Self {
        Self::new("test root")
    }
}

impl TestAuthority {
    /// A self-signed root of that name.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("this machine has randomness");
        let params = authority(name);
        let root = params.self_signed(&key).expect("the parameters are complete").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            intermediates: Vec::new(),
            root,
            lifetime: Duration::from_secs(3600),
            bundle: None,
        }
    }

    /// An authority under this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("this machine has randomness");
        let params = authority(name);
        let own = params.signed_by(&key, &self.issuer).expect("the parameters are complete").der().clone();
        let intermediates = [vec![own], self.intermediates.clone()].concat();
        Self {
            issuer: Issuer::new(params, key),
            intermediates,
            root: self.root.clone(),
            lifetime: self.lifetime,
            bundle: self.bundle.clone(),
        }
    }

    /// Sets how long what is issued lives; an hour otherwise.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets what its replies say is to be trusted.
    pub fn with_bundle(mut self, bundle: RootBundle) -> Self {
        self.bundle = Some(bundle);
        self
    }

    /// The root, as bundles carry it.
    pub fn roots(&self) -> RootBundle {
        RootBundle::new([self.root.clone()])
    }

    /// Signs a leaf for a public key (DER SubjectPublicKeyInfo); the chain, without the root.
    pub fn sign(&self, public_key: &[u8], leaf: &Leaf) -> Vec<CertificateDer<'static>> {
        let public_key = SubjectPublicKeyInfo::from_der(public_key).expect("a key of this test");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = |text: &String| text.as_str().try_into().expect("ASCII");
        params.subject_alt_names = leaf
            .uris
            .iter()
            .map(|uri| SanType::URI(name(uri)))
            .chain(leaf.dns.iter().map(|dns| SanType::DnsName(name(dns))))
            .collect();
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&leaf.usages);
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&public_key, &self.issuer).expect("the parameters are complete");
        [vec![signed.der().clone()], self.intermediates.clone()].concat()
    }

    /// The certificate that signs: this authority's own, or the root.
    pub fn signing_certificate(&self) -> CertificateDer<'static> {
        self.intermediates.first().unwrap_or(&self.root).clone()
    }

    /// Writes a folder that a controller is plugged in by: signing certificate, key, chain and root.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn plug(&self, folder: &Path) -> std::io::Result<()> {
        let chain: String = self.intermediates.iter().map(certificate_pem).collect();
        std::fs::write(folder.join("ca-cert.pem"), certificate_pem(&self.signing_certificate()))?;
        std::fs::write(folder.join("ca-key.pem"), self.issuer.key().serialize_pem())?;
        std::fs::write(folder.join("cert-chain.pem"), chain)?;
        std::fs::write(folder.join("root-cert.pem"), self.roots().to_pem())
    }

    /// A list of revoked certificates, by their serial numbers; DER.
    pub fn revoke<'a>(&self, serials: impl IntoIterator<Item = &'a [u8]>, now: SystemTime) -> Vec<u8> {
        let revoked = |serial: &[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.into_iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("the parameters are complete").der().to_vec()
    }

    /// A certificate for an identity, with its key, valid for an hour.
    pub fn bundle(&self, identity: &Identity) -> Arc<CertificateBundle> {
        Arc::new(self.bundle_at(identity, SystemTime::now()).expect("what is issued here is in order"))
    }

    /// A certificate issued at `now`.
    ///
    /// # Errors
    /// If the bundle's own checks refuse it.
    pub fn bundle_at(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<CertificateBundle, AuthorityError> {
        let key = PrivateKey::generate()?;
        let chain = self.sign(&key.public(), &Leaf::valid(identity, now, self.lifetime));
        let roots = self.bundle.clone().unwrap_or_else(|| self.roots());
        Ok(CertificateBundle::new(identity.clone(), key, chain, roots, now)?)
    }
}

impl CertificateAuthority for TestAuthority {
    async fn issue(&self, identity: &Identity) -> Result<CertificateBundle, AuthorityError> {
        self.bundle_at(identity, SystemTime::now())
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
