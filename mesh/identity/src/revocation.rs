//! Certificates that count no more though their time is not over: lists (RFC 5280), as authorities sign them, and the
//! question whether a chain has one of theirs.
//!
//! A list takes away and never gives. It reaches us by the channel that roots come by, so one whose signer is unknown
//! here is heeded like any other, and so is one past its nextUpdate; who has no list for an issuer lets its
//! certificates pass.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::identity::Identity;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Extension};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::verify::peer_identity;

/// The most lists that are heeded: one an authority, and in a change of roots there are two or three.
pub const MAX_LISTS: usize = 64;

/// The most certificates in one list.
pub const MAX_REVOKED: usize = 100_000;

/// The most bytes of all lists together: they travel in one resource.
pub const MAX_BYTES: usize = 6 << 20;

/// What a certificate's serial number is compared as: big-endian, without leading zeros.
pub type Serial = Box<[u8]>;

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListError {
    /// Not PEM, or no list in it.
    #[error("it holds no PEM section \"X509 CRL\"")]
    NotPem,
    /// Not a list.
    #[error("it is not a revocation list of X.509: {0}")]
    Malformed(String),
    /// An extension that changes what the list says.
    #[error("it is {0}, which is not understood here; use a complete list of the certificates' own issuer")]
    Unsupported(&'static str),
    /// More than is kept.
    #[error("it names {0} certificates; the limit is {MAX_REVOKED}")]
    TooLong(usize),
}

/// One authority's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: Arc<[u8]>,
    /// The issuer's name, DER.
    issuer: Vec<u8>,
    /// The issuer's key, where the list names it.
    key: Option<Vec<u8>>,
    serials: HashSet<Serial>,
}

/// What makes a certificate count no more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Revoked {
    /// It is on a list; by its serial number, hexadecimal.
    #[error("the certificate with serial number {0} is revoked")]
    Certificate(String),
    /// Whom it proves is revoked, with all certificates there ever were.
    #[error("{0} is revoked")]
    Identity(Identity),
}

/// All that is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevokedSet {
    /// Certificates, as authorities list them while they have not ended.
    pub lists: Vec<RevocationList>,
    /// Identities. A tunnel may outlive the certificate that it was opened with, and a list does not name that any more.
    pub identities: BTreeSet<Identity>,
}

/// What is revoked now. A handle: clones share one set, and [`Self::set`] takes effect at the next handshake of
/// every configuration made with it.
#[derive(Debug, Clone)]
pub struct Revocations(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    set: watch::Sender<Arc<RevokedSet>>,
    /// Handshakes refused: clients, servers.
    refused: [AtomicU64; 2],
}

/// Whose certificate is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That of a client, by a server.
    Client = 0,
    /// That of a server, by a client.
    Server = 1,
}

impl RevocationList {
    /// Reads a list.
    ///
    /// # Errors
    /// [`ListError`] if it is none, or says something that is not understood.
    pub fn from_der(der: &[u8]) -> Result<Self, ListError> {
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| ListError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(ListError::Malformed("bytes follow it".to_owned()));
        }
        if let Some(reason) = list.extensions().iter().find_map(unsupported) {
            return Err(ListError::Unsupported(reason));
        }
        let count = list.tbs_cert_list.revoked_certificates.len();
        if count > MAX_REVOKED {
            return Err(ListError::TooLong(count));
        }
        let mut serials = HashSet::with_capacity(count);
        for entry in list.iter_revoked_certificates() {
            // An entry of another issuer in an indirect list.
            if entry.extensions().iter().any(|extension| extension.critical) {
                return Err(ListError::Unsupported("a list with critical extensions of entries"));
            }
            serials.insert(serial(entry.raw_serial()));
        }
        Ok(Self {
            der: der.into(),
            issuer: list.issuer().as_raw().to_vec(),
            key: authority_key(list.extensions()),
            serials,
        })
    }

    /// All lists of a PEM text; at least one.
    ///
    /// # Errors
    /// [`ListError`] if one cannot be used.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, ListError> {
        let sections = pem::parse_many(text).map_err(|_| ListError::NotPem)?;
        let lists: Vec<_> = sections
            .iter()
            .filter(|section| section.tag() == "X509 CRL")
            .map(|section| Self::from_der(section.contents()))
            .collect::<Result<_, _>>()?;
        if lists.is_empty() { Err(ListError::NotPem) } else { Ok(lists) }
    }

    /// The list as it was signed.
    pub fn der(&self) -> &Arc<[u8]> {
        &self.der
    }

    /// How many certificates are on it.
    pub fn len(&self) -> usize {
        self.serials.len()
    }

    /// Whether nothing is on it.
    pub fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }

    /// Whether one of these certificates signed it.
    pub fn is_signed_by(&self, signers: &[CertificateDer<'_>]) -> bool {
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else { return false };
        signers.iter().any(|signer| {
            X509Certificate::from_der(signer).is_ok_and(|(_, signer)| {
                signer.subject().as_raw() == self.issuer && list.verify_signature(signer.public_key()).is_ok()
            })
        })
    }

    fn names(&self, certificate: &X509Certificate<'_>) -> bool {
        // Authorities may share a name; their keys tell them apart where both sides name one.
        let other_key = || match (&self.key, authority_key(certificate.extensions())) {
            (Some(own), Some(other)) => *own != other,
            _ => false,
        };
        self.issuer == certificate.issuer().as_raw()
            && self.serials.contains(&serial(certificate.raw_serial()))
            && !other_key()
    }
}

/// What makes a list mean something else than it seems to.
fn unsupported(extension: &X509Extension<'_>) -> Option<&'static str> {
    match extension.oid.to_id_string().as_str() {
        "2.5.29.27" => Some("a delta list"),
        // Which scope it has; without reading it, it might be taken for a complete one. It takes nothing too much.
        "2.5.29.28" => None,
        _ if extension.critical => Some("a list with an unknown critical extension"),
        _ => None,
    }
}

fn authority_key(extensions: &[X509Extension<'_>]) -> Option<Vec<u8>> {
    extensions.iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => {
            authority.key_identifier.as_ref().map(|key| key.0.to_vec())
        }
        _ => None,
    })
}

/// A serial number in the form that is compared.
pub fn serial(raw: &[u8]) -> Serial {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    raw[zeros..].into()
}

/// A serial number as people write it: hexadecimal, lower case, two digits a byte.
pub fn hexadecimal(serial: &[u8]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The serial number of a certificate; nothing if it cannot be parsed.
pub fn serial_of(certificate: &CertificateDer<'_>) -> Option<Serial> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(serial(parsed.raw_serial()))
}

/// The first certificate of a chain that is on one of these lists.
///
/// # Errors
/// That it is revoked.
pub fn check(lists: &[RevocationList], chain: &[CertificateDer<'_>]) -> Result<(), Revoked> {
    if lists.iter().all(RevocationList::is_empty) {
        return Ok(());
    }
    for certificate in chain {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { continue };
        if lists.iter().any(|list| list.names(&parsed)) {
            return Err(Revoked::Certificate(hexadecimal(&serial(parsed.raw_serial()))));
        }
    }
    Ok(())
}

impl RevokedSet {
    /// Whether a chain, leaf first, has a certificate that counts no more.
    ///
    /// # Errors
    /// That it has.
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), Revoked> {
        check(&self.lists, chain)?;
        if self.identities.is_empty() {
            return Ok(());
        }
        match peer_identity(chain) {
            Ok(identity) if self.identities.contains(&identity) => Err(Revoked::Identity(identity)),
            // Who proves nobody is refused by whoever asks for a name.
            _ => Ok(()),
        }
    }
}

impl Default for Revocations {
    fn default() -> Self {
        let set = watch::Sender::new(Arc::default());
        Self(Arc::new(Shared { set, refused: Default::default() }))
    }
}

impl Revocations {
    /// Replaces all that is revoked; true if it is something else than before.
    pub fn set(&self, revoked: RevokedSet) -> bool {
        self.0.set.send_if_modified(|held| {
            let changed = **held != revoked;
            if changed {
                *held = Arc::new(revoked);
            }
            changed
        })
    }

    /// What is revoked now.
    pub fn current(&self) -> Arc<RevokedSet> {
        self.0.set.borrow().clone()
    }

    /// Changes, as they happen.
    pub fn changes(&self) -> watch::Receiver<Arc<RevokedSet>> {
        self.0.set.subscribe()
    }

    /// Whether a chain has a certificate that is revoked now.
    ///
    /// # Errors
    /// That it has.
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), Revoked> {
        self.current().check(chain)
    }

    /// Judges a peer's chain, and counts it if it is refused.
    pub(crate) fn judge(
        &self,
        side: Side,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Revoked> {
        let revoked = self.current();
        let judged =
            revoked.check(std::slice::from_ref(leaf)).and_then(|()| check(&revoked.lists, intermediates));
        if judged.is_err() {
            self.0.refused[side as usize].fetch_add(1, Ordering::Relaxed);
        }
        judged
    }

    /// How many handshakes were refused because of a certificate of that side.
    pub fn refused(&self, side: Side) -> u64 {
        self.0.refused[side as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
