//! Issuing: what a leaf says is decided here. The name comes from whom the caller may speak for, never from the
//! request, of which only the key is taken, once its signature proves that the caller has it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use identity::bundle::{RootBundle, Validity, certificate_pem};
use model::identity::Identity;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::root::Authority;

/// How far notBefore lies back, for clocks that are behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(120);

/// A request is a few hundred bytes; a large RSA key makes it two kilobytes.
const MAX_REQUEST: usize = 16 * 1024;

/// The smallest RSA key, in bits.
const LEAST_RSA_BITS: usize = 2048;

/// How long certificates live.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// If the caller does not say (Istio's `DEFAULT_WORKLOAD_CERT_TTL`).
    pub default: Duration,
    /// At most (`MAX_WORKLOAD_CERT_TTL`); a caller who asks for more gets this.
    pub longest: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default: Duration::from_secs(24 * 3600), longest: Duration::from_secs(90 * 24 * 3600) }
    }
}

/// Whose certificate it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'a> {
    /// A workload: client and server.
    Workload(&'a Identity),
    /// A server known by names: the controller.
    Server { dns: &'a [String], ips: &'a [IpAddr] },
}

/// What was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM elements as the wire carries them: the leaf, each intermediate, then all roots in one.
    pub elements: Vec<String>,
    /// When it is valid.
    pub validity: Validity,
}

/// Why nothing was issued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IssueError {
    /// The request cannot be used.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// The signing certificate has expired.
    #[error("the signing certificate is not valid now; replace it, or set this machine's clock")]
    AuthorityExpired,
    /// Somebody revoked it.
    #[error("{0} is revoked and gets no certificates; `lateen ca restore` lets it have some again")]
    Revoked(Identity),
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

impl Authority {
    /// Issues a certificate for `identity` and the key of the PEM request `csr`, for `lifetime` within the limits;
    /// `bundle` is what its holder is to trust. Returns what is sent, and the leaf alone.
    ///
    /// # Errors
    /// [`IssueError`] if the request is no good or this authority is out of its time.
    pub(super) fn issue(
        &self,
        identity: &Identity,
        csr: &str,
        lifetime: Option<Duration>,
        limits: Lifetimes,
        bundle: &RootBundle,
        now: SystemTime,
    ) -> Result<(Issued, CertificateDer<'static>), IssueError> {
        let public_key = requested_key(csr)?;
        let validity = validity(lifetime, limits, self.validity, now)?;
        let leaf = sign(self, &public_key, Subject::Workload(identity), validity)?;
        let mut elements = vec![certificate_pem(&leaf)];
        elements.extend(self.intermediates.iter().map(certificate_pem));
        elements.push(bundle.to_pem());
        Ok((Issued { elements, validity }, leaf))
    }
}

/// From when to when a certificate is valid: backdated by two minutes, or by a tenth of a shorter life (so that half
/// of its life never lies in the past), and inside the authority's own time.
pub(super) fn validity(
    wanted: Option<Duration>,
    limits: Lifetimes,
    authority: Validity,
    now: SystemTime,
) -> Result<Validity, IssueError> {
    let lifetime = wanted.filter(|wanted| !wanted.is_zero()).unwrap_or(limits.default).min(limits.longest);
    let not_after = (now + lifetime).min(authority.not_after);
    let lifetime = not_after.duration_since(now).unwrap_or_default();
    if lifetime < Duration::from_secs(1) || now < authority.not_before {
        return Err(IssueError::AuthorityExpired);
    }
    let not_before = (now - BACKDATE.min(lifetime / 10)).max(authority.not_before);
    Ok(Validity { not_before, not_after })
}

/// The public key (DER) of a PEM request whose signature proves that its maker holds the private one.
fn requested_key(csr: &str) -> Result<Vec<u8>, IssueError> {
    let refuse = |reason: &str| IssueError::Request(reason.to_owned());
    if csr.len() > MAX_REQUEST {
        return Err(refuse("it is larger than 16 KiB"));
    }
    let section = pem::parse(csr).map_err(|_| refuse("it is not PEM"))?;
    if !matches!(section.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(refuse("its PEM section is not a CERTIFICATE REQUEST"));
    }
    let (rest, request) = X509CertificationRequest::from_der(section.contents())
        .map_err(|_| refuse("it is not a PKCS#10 request"))?;
    if !rest.is_empty() {
        return Err(refuse("bytes follow the request"));
    }
    request.verify_signature().map_err(|_| refuse("its signature is not by its own key"))?;
    let public_key = &request.certification_request_info.subject_pki;
    match public_key.parsed() {
        Ok(PublicKey::EC(_)) => {}
        Ok(PublicKey::RSA(key)) if key.key_size() >= LEAST_RSA_BITS => {}
        Ok(PublicKey::RSA(_)) => return Err(refuse("its RSA key is shorter than 2048 bits")),
        _ => return Err(refuse("its key is neither ECDSA nor RSA")),
    }
    Ok(public_key.raw.to_vec())
}

/// Signs a leaf.
pub(super) fn sign(
    authority: &Authority,
    public_key: &[u8],
    subject: Subject<'_>,
    validity: Validity,
) -> Result<CertificateDer<'static>, IssueError> {
    let failed = |error: rcgen::Error| IssueError::Sign(error.to_string());
    let public_key = SubjectPublicKeyInfo::from_der(public_key)
        .map_err(|error| IssueError::Request(format!("its key cannot be used: {error}")))?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial()?);
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    match subject {
        Subject::Workload(identity) => {
            let uri = identity.to_string().try_into().map_err(failed)?;
            params.subject_alt_names = vec![SanType::URI(uri)];
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        Subject::Server { dns, ips } => {
            for name in dns {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
            }
            params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
        }
    }
    let certificate = params.signed_by(&public_key, &authority.issuer).map_err(failed)?;
    Ok(certificate.der().clone())
}

/// A random serial number of 127 bits: positive, and the same never twice.
pub(super) fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| IssueError::Sign("the system's random source failed".to_owned()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
