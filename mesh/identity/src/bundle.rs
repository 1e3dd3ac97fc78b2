//! A certificate with everything needed to use it (leaf, intermediates, key, roots), checked when it is made, so
//! that what holds a [`CertificateBundle`] need not doubt it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::identity::Identity;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::key::PrivateKey;
use crate::verify;

/// The most certificates in one element of a reply; a bundle of roots in rotation has a handful.
const MAX_CERTIFICATES: usize = 64;

/// The trust anchors a certificate came with, in the authority's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootBundle(Arc<[CertificateDer<'static>]>);

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its notBefore.
    pub not_before: SystemTime,
    /// Its notAfter.
    pub not_after: SystemTime,
}

/// A moment as certificates know it, to the second, in the form of RFC 3339.
pub fn rfc3339(at: SystemTime) -> String {
    let whole = OffsetDateTime::from(at).replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// What a listing says of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Serial number, decimal.
    pub serial: String,
    /// From when to when it is valid.
    pub validity: Validity,
}

/// A certificate chain, its key and its roots: checked, immutable, shared.
#[derive(Debug)]
pub struct CertificateBundle {
    identity: Identity,
    key: PrivateKey,
    chain: Vec<CertificateDer<'static>>,
    roots: RootBundle,
    validity: Validity,
}

/// Why a set of certificates cannot be used.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Not PEM, or not certificates.
    #[error("{0} is not a PEM certificate: {1}")]
    Pem(&'static str, String),
    /// A part is missing.
    #[error("the chain has {0} elements: a leaf first and the roots last are required")]
    Incomplete(usize),
    /// A certificate that cannot be parsed.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// The certificate proves somebody else.
    #[error("the certificate is for {found}, requested was {wanted}")]
    WrongIdentity {
        /// What was asked for.
        wanted: Identity,
        /// What came, or why nothing could be read from it.
        found: String,
    },
    /// The certificate is for another key.
    #[error("the certificate is for another key than the one in the request")]
    WrongKey,
    /// No longer valid.
    #[error("the certificate expired already; compare the clocks of this machine and of the authority")]
    Expired,
    /// Its own roots do not vouch for it.
    #[error("the certificate does not verify against the roots it came with: {0}")]
    Untrusted(String),
}

impl RootBundle {
    /// Roots from certificates in DER form.
    pub fn new(roots: impl Into<Arc<[CertificateDer<'static>]>>) -> Self {
        Self(roots.into())
    }

    /// Reads one or more PEM certificates; other PEM sections are ignored.
    ///
    /// # Errors
    /// [`BundleError::Pem`] if there is none or one is damaged.
    pub fn from_pem(text: &str) -> Result<Self, BundleError> {
        Ok(Self(certificates("the root bundle", text)?.into()))
    }

    /// The roots.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// The roots as concatenated PEM.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(certificate_pem).collect()
    }
}

impl CertificateFacts {
    /// Reads what a listing wants to know of a certificate.
    ///
    /// # Errors
    /// [`BundleError::Malformed`] if it cannot be parsed.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, BundleError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| BundleError::Malformed(error.to_string()))?;
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Ok(Self {
            serial: parsed.tbs_certificate.serial.to_string(),
            validity: Validity {
                not_before: at(parsed.validity().not_before.timestamp()),
                not_after: at(parsed.validity().not_after.timestamp()),
            },
        })
    }
}

impl CertificateBundle {
    /// Makes a bundle of the reply to a request for `identity` with `key`: PEM elements, the leaf first, the roots
    /// last (several concatenated, perhaps), what is between them intermediates.
    ///
    /// # Errors
    /// Whatever makes it unusable at `now`; see [`BundleError`].
    pub fn from_reply(
        identity: Identity,
        key: PrivateKey,
        elements: &[String],
        now: SystemTime,
    ) -> Result<Self, BundleError> {
        let [leaf, intermediates @ .., roots] = elements else {
            return Err(BundleError::Incomplete(elements.len()));
        };
        let mut chain = certificates("the leaf", leaf)?;
        for element in intermediates {
            chain.extend(certificates("an intermediate", element)?);
        }
        Self::new(identity, key, chain, RootBundle::from_pem(roots)?, now)
    }

    /// Makes a bundle of its parts: `chain` is the leaf, then the intermediates; a root among them is left out, as
    /// peers have it already.
    ///
    /// # Errors
    /// Whatever makes it unusable at `now`; see [`BundleError`].
    pub fn new(
        identity: Identity,
        key: PrivateKey,
        mut chain: Vec<CertificateDer<'static>>,
        roots: RootBundle,
        now: SystemTime,
    ) -> Result<Self, BundleError> {
        chain.retain(|certificate| !roots.certificates().contains(certificate));
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(BundleError::Incomplete(0));
        };
        if chain.len() > MAX_CERTIFICATES {
            return Err(BundleError::Malformed(format!("a chain of {} certificates", chain.len())));
        }
        check_subject(&identity, &key, leaf)?;
        let validity = CertificateFacts::read(leaf)?.validity;
        if validity.not_after <= now {
            return Err(BundleError::Expired);
        }
        verify::check_chain(leaf, intermediates, roots.certificates(), now)
            .map_err(BundleError::Untrusted)?;
        Ok(Self { identity, key, chain, roots, validity })
    }

    /// Whom it proves.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The leaf, then the intermediates; no root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key of the leaf.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The roots that came with it.
    pub fn roots(&self) -> &RootBundle {
        &self.roots
    }

    /// When the leaf is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

/// The leaf names the identity and holds the key.
fn check_subject(
    identity: &Identity,
    key: &PrivateKey,
    leaf: &CertificateDer<'_>,
) -> Result<(), BundleError> {
    match verify::peer_identity(std::slice::from_ref(leaf)) {
        Ok(found) if found == *identity => {}
        Ok(found) => {
            return Err(BundleError::WrongIdentity { wanted: identity.clone(), found: found.to_string() });
        }
        Err(error) => {
            return Err(BundleError::WrongIdentity { wanted: identity.clone(), found: error.to_string() });
        }
    }
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| BundleError::Malformed(error.to_string()))?;
    if parsed.public_key().raw == key.public() { Ok(()) } else { Err(BundleError::WrongKey) }
}

/// All certificates of a PEM text; at least one.
pub(crate) fn certificates(
    what: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| BundleError::Pem(what, error.to_string()))?;
    match found.len() {
        0 => Err(BundleError::Pem(what, "no certificate in it".to_owned())),
        1..=MAX_CERTIFICATES => Ok(found),
        _ => Err(BundleError::Pem(what, format!("more than {MAX_CERTIFICATES} certificates"))),
    }
}

/// A certificate as PEM text.
pub fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), config)
}
