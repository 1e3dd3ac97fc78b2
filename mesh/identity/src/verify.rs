//! Judging a peer by its certificate. First the chain (rustls' own webpki verifiers), then the name: a server wants
//! a client of an accepted trust domain, a client wants one of the identities it expects at that address.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::identity::{Identity, InvalidIdentity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore};
use rustls::{Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bundle::CertificateFacts;
use crate::revocation::{Revocations, Side};
use crate::tls;

/// The most URI SANs that are looked at; a mesh certificate has one.
const MAX_URI_NAMES: usize = 16;

/// The trust domains whose workloads may connect: the mesh's own and its aliases.
///
/// A handle: clones share one set, and [`Self::set`] takes effect at the next handshake of every server
/// configuration made with it.
#[derive(Clone, Default)]
pub struct TrustDomains(Arc<RwLock<Arc<BTreeSet<Arc<str>>>>>);

/// Why a peer that passed the chain check is still not whom we talk to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// No certificate was presented.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The leaf cannot be parsed.
    #[error("the peer's certificate is malformed: {0}")]
    Malformed(String),
    /// No URI SAN is a workload identity.
    #[error("the peer's certificate names no workload: its URI names are {0:?}")]
    NoIdentity(Vec<String>),
    /// A workload of a foreign trust domain.
    #[error("the peer {peer} is of a foreign trust domain; accepted here: {}", accepted.join(", "))]
    ForeignTrustDomain {
        /// Who it is.
        peer: Identity,
        /// Who would do.
        accepted: Vec<Arc<str>>,
    },
    /// Another workload answers at the address.
    #[error(
        "the peer proved to be {}, expected was {}; has the address moved to another pod?",
        listed(found),
        listed(expected)
    )]
    Unexpected {
        /// What its certificate says.
        found: Vec<Identity>,
        /// Who would do.
        expected: Vec<Identity>,
    },
}

impl TrustDomains {
    /// The trust domains accepted beside that of the server's own certificate.
    pub fn new(domains: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        let this = Self::default();
        this.set(domains);
        this
    }

    /// Replaces the set, for live server configurations too.
    pub fn set(&self, domains: impl IntoIterator<Item = impl Into<Arc<str>>>) {
        let set = Arc::new(domains.into_iter().map(Into::into).collect());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// The set as it is now.
    pub fn current(&self) -> Arc<BTreeSet<Arc<str>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for TrustDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrustDomains").field(&self.current()).finish()
    }
}

/// Whom a presented chain proves: the first URI SAN of the leaf that is a workload identity.
///
/// Says nothing about whether the chain is trusted: call it on what a finished handshake reports.
///
/// # Errors
/// [`PeerError`] if there is no certificate, or no identity in it.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Identity, PeerError> {
    let leaf = chain.first().ok_or(PeerError::NoCertificate)?;
    Ok(identities(leaf)?.swap_remove(0))
}

/// All identities of a leaf, in its order; at least one. Other URIs are ignored with a warning: they prove nothing
/// here, and somebody should know that they are issued.
fn identities(leaf: &CertificateDer<'_>) -> Result<Vec<Identity>, PeerError> {
    let parsed = EndEntityCert::try_from(leaf).map_err(|error| PeerError::Malformed(error.to_string()))?;
    let mut found = Vec::with_capacity(1);
    let mut ignored = Vec::new();
    for name in parsed.valid_uri_names().take(MAX_URI_NAMES) {
        match name.parse::<Identity>() {
            Ok(identity) => found.push(identity),
            Err(InvalidIdentity(shown)) => ignored.push(shown),
        }
    }
    if found.is_empty() {
        return Err(PeerError::NoIdentity(ignored));
    }
    if !ignored.is_empty() {
        tracing::warn!(peer = %found[0], ?ignored, "a peer's certificate has URI names that are no workload's");
    }
    Ok(found)
}

/// Whether `leaf` verifies against `roots` at `now`, for a client (which is how Istio's authorities issue for both
/// roles).
///
/// # Errors
/// What is wrong, as text.
pub fn check_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), String> {
    let anchors = roots
        .iter()
        .map(|root| anchor_from_trusted_cert(root).map_err(|error| format!("a root is malformed: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                tls::signature_algorithms().all,
                &anchors,
                intermediates,
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
        })
        .map_err(|error| error.to_string())
}

/// Whether a chain leads to one of these roots, whatever the time: a certificate that has ended is no less theirs.
pub fn leads_to(chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> bool {
    let Some((leaf, intermediates)) = chain.split_first() else { return false };
    let Ok(facts) = CertificateFacts::read(leaf) else { return false };
    // The last moment of the leaf is one at which those above it are valid too, as no authority signs past its own end.
    let moment = facts.validity.not_after - Duration::from_secs(1);
    check_chain(leaf, intermediates, roots, moment.max(facts.validity.not_before)).is_ok()
}

/// Judges clients: chain first, then the trust domain, which is that of our own certificate or one of a set.
#[derive(Debug)]
pub(crate) struct ClientOfTrustDomain {
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    /// Its authority is the one we trust; a controller that says nothing of trust domains (istiod) means this one.
    pub(crate) own: Arc<str>,
    pub(crate) trust_domains: TrustDomains,
    pub(crate) revocations: Revocations,
}

impl ClientCertVerifier for ClientOfTrustDomain {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Peers have one certificate each; naming our roots would only lengthen the handshake.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        // The identity that policies will see, not just any SAN of the certificate, must be of an accepted domain.
        let peer = peer_identity(std::slice::from_ref(end_entity)).map_err(refused)?;
        not_revoked(&self.revocations, Side::Client, end_entity, intermediates)?;
        let accepted = self.trust_domains.current();
        if *peer.trust_domain() == self.own || accepted.contains(peer.trust_domain()) {
            return Ok(verified);
        }
        let accepted = [&self.own].into_iter().chain(accepted.iter().filter(|domain| **domain != self.own));
        Err(refused(PeerError::ForeignTrustDomain { peer, accepted: accepted.cloned().collect() }))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Judges servers: chain first, then whether it is one of those expected. Made per connection, so it holds nothing
/// of its own but handles.
#[derive(Debug)]
pub(crate) struct ExpectedServer {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    pub(crate) expected: Arc<[Identity]>,
    pub(crate) revocations: Revocations,
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        not_revoked(&self.revocations, Side::Server, end_entity, intermediates)?;
        let found = identities(end_entity).map_err(refused)?;
        if found.iter().any(|identity| self.expected.contains(identity)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(refused(PeerError::Unexpected { found, expected: self.expected.to_vec() }))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A revoked peer is told by TLS' own alert that it is; which certificate it was stands in our log.
fn not_revoked(
    revocations: &Revocations,
    side: Side,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), TlsError> {
    revocations.judge(side, leaf, intermediates).map_err(|revoked| {
        let peer = peer_identity(std::slice::from_ref(leaf)).map(|peer| peer.to_string()).unwrap_or_default();
        tracing::warn!(peer, %revoked, "handshake refused");
        TlsError::InvalidCertificate(CertificateError::Revoked)
    })
}

/// Whether a certificate was signed by the key of another.
pub fn is_signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let parsed = (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer));
    let (Ok((_, certificate)), Ok((_, issuer))) = parsed else { return false };
    certificate.issuer() == issuer.subject()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// What a failed handshake means, for a log or an access log: a refusal of this side in its own words, anything else
/// in rustls'.
pub fn explain(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.to_string(),
        // A root made anew has the old one's name and another key, hence a bad signature.
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the peer's certificate is signed by no root of this mesh; has one side missed a change of roots?"
                .to_owned()
        }
        TlsError::InvalidCertificate(CertificateError::Revoked) => {
            "the peer's certificate is revoked; the log names it".to_owned()
        }
        other => other.to_string(),
    }
}

/// The same of an error that TLS's may be the source of; any other in its own words.
pub fn explain_handshake(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(tls) => format!("TLS handshake: {}", explain(tls)),
        None => error.to_string(),
    }
}

fn listed(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "nobody".to_owned();
    }
    identities.iter().map(Identity::to_string).collect::<Vec<_>>().join(" or ")
}

/// A refusal that reaches the log of this side as it stands; the peer sees only an alert.
fn refused(error: PeerError) -> TlsError {
    TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
