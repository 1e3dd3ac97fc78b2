//! The signing certificate: made here at first start and kept, or plugged in as Istio's `cacerts`. Either way it is
//! validated before anything is signed, down to a trial certificate, so that a mistake shows at start and not in a
//! thousand failed handshakes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use identity::bundle::{CertificateFacts, RootBundle, Validity, certificate_pem};
use identity::key::PrivateKey;
use identity::verify::check_chain;
use model::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::issue::{self, BACKDATE, Subject};

/// Names of the files, as Istio's `cacerts` secret has them. The state folder uses the same.
pub(super) const CERT_FILE: &str = "ca-cert.pem";
pub(super) const KEY_FILE: &str = "ca-key.pem";
pub(super) const ROOT_FILE: &str = "root-cert.pem";
pub(super) const CHAIN_FILE: &str = "cert-chain.pem";

/// How long before its end a root or a signing certificate is warned of.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);

/// A key that may sign, with the certificates that say so.
#[derive(Debug)]
pub struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// The signing certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// From the signing certificate up to, without, the root; empty if the signing certificate is the root.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    pub(super) roots: RootBundle,
    /// The span in which everything from the signing certificate to the root is valid.
    pub(super) validity: Validity,
}

/// The PEM texts an authority is made of, with where they came from, for errors.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Material {
    pub(super) folder: PathBuf,
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) root: String,
    pub(super) chain: String,
}

/// Why there is no authority. Each names the file and what to do.
#[derive(Debug, Error)]
pub enum RootError {
    /// A file cannot be read.
    #[error(
        "cannot read {path}: {source}; a plugged-in authority needs ca-cert.pem, ca-key.pem and root-cert.pem"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; the state folder must be writable for the controller")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("{path} is not usable: {reason}; it must hold PEM certificates")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key cannot be used.
    #[error(
        "{path} is not usable: {reason}; it must hold one unencrypted PEM key, ECDSA P-256, P-384 or RSA"
    )]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("{key} is not the key of {certificate}; put the pair that belongs together there")]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate may not sign certificates.
    #[error(
        "{path} may not sign certificates: {reason}; issue it with basicConstraints CA:TRUE and keyCertSign"
    )]
    NotAnAuthority {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// A certificate is out of its time.
    #[error("a certificate in {path} has expired or is not valid yet; renew it, or set this machine's clock")]
    OutOfTime {
        /// Which file.
        path: PathBuf,
    },
    /// What is signed does not verify.
    #[error(
        "a trial certificate signed with {path} does not verify against {ROOT_FILE}: {reason}; {CHAIN_FILE} must \
         hold every certificate between the two"
    )]
    Chain {
        /// The signing certificate's file.
        path: PathBuf,
        /// What the verifier said.
        reason: String,
    },
    /// The key of the kept root is gone.
    #[error(
        "{certificate} is there but its key {KEY_FILE} is not; restore it from a backup, or remove {certificate} to \
         start with a new root (running proxies then refuse one another until each has a new certificate)"
    )]
    KeyLost {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// What an earlier process kept cannot be read.
    #[error(
        "{path} cannot be read: {reason}; restore it from a backup, or remove it with ca-cert.pem and ca-key.pem to start \
         with a new root (running proxies then refuse one another until each has a new certificate)"
    )]
    Stored {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A list of revoked certificates cannot be used.
    #[error("{path} is not usable: {reason}; the list in force before stays")]
    Crl {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No root could be made.
    #[error("cannot make a root certificate: {0}")]
    Make(String),
}

impl Authority {
    /// What peers trust.
    pub fn roots(&self) -> &RootBundle {
        &self.roots
    }

    /// When the authority can sign.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Validates what an authority is made of, down to a trial certificate.
    ///
    /// # Errors
    /// [`RootError`], naming the file at fault.
    pub(super) fn of(material: &Material, trust_domain: &str, now: SystemTime) -> Result<Self, RootError> {
        let path = material.folder.join(CERT_FILE);
        let own = one_certificate(&path, &material.certificate)?;
        let key = material.signing_key(&own)?;
        check_may_sign(&path, &own)?;
        let roots = read_roots(&material.folder.join(ROOT_FILE), &material.root)?;
        let mut intermediates = vec![own.clone()];
        if !material.chain.trim().is_empty() {
            let chain = read_roots(&material.folder.join(CHAIN_FILE), &material.chain)?;
            intermediates.extend(chain.certificates().iter().filter(|&other| *other != own).cloned());
        }
        intermediates.retain(|certificate| !roots.certificates().contains(certificate));
        let validity = common_validity(material, &own, &intermediates, &roots, now)?;
        let issuer = Issuer::from_ca_cert_der(&own, key)
            .map_err(|error| RootError::Certificate { path: path.clone(), reason: error.to_string() })?;
        let authority = Self { issuer, certificate: own, intermediates, roots, validity };
        authority.try_signing(trust_domain, now).map_err(|reason| RootError::Chain { path, reason })?;
        Ok(authority)
    }

    /// Signs a certificate and verifies it as a peer would. Finds a missing intermediate, a path length that does not
    /// suffice, name constraints that exclude the mesh, and a subject that cannot be reproduced.
    fn try_signing(&self, trust_domain: &str, now: SystemTime) -> Result<(), String> {
        let key = PrivateKey::generate().map_err(|error| error.to_string())?;
        let trial = Identity::new(trust_domain, "default", "trial");
        let until = self.validity.not_after.min(now + Duration::from_secs(60));
        let validity =
            Validity { not_before: self.validity.not_before.max(now - BACKDATE), not_after: until };
        let leaf = issue::sign(self, &key.public(), Subject::Workload(&trial), validity)
            .map_err(|error| error.to_string())?;
        check_chain(&leaf, &self.intermediates, self.roots.certificates(), now)
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Material {
    /// What a `cacerts` folder holds.
    pub(super) fn plugged(folder: &Path) -> Result<Self, RootError> {
        let chain = match read(&folder.join(CHAIN_FILE)) {
            // Not needed where the root signs the signing certificate itself.
            Err(RootError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(Self {
            folder: folder.to_owned(),
            certificate: read(&folder.join(CERT_FILE))?,
            key: read(&folder.join(KEY_FILE))?,
            root: read(&folder.join(ROOT_FILE))?,
            chain,
        })
    }

    /// A self-signed root, new, that will stand in `folder`.
    pub(super) fn make(
        folder: &Path,
        trust_domain: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, RootError> {
        let (certificate, key) = make_root(trust_domain, lifetime, now)?;
        let root = certificate.clone();
        Ok(Self { folder: folder.to_owned(), certificate, key, root, chain: String::new() })
    }

    /// The root that an earlier version kept in `state`, if there is one.
    pub(super) fn kept(state: &Path) -> Result<Option<Self>, RootError> {
        let (certificate, key) = (state.join(CERT_FILE), state.join(KEY_FILE));
        if !certificate.exists() {
            return Ok(None);
        }
        if !key.exists() {
            return Err(RootError::KeyLost { certificate });
        }
        let certificate = read(&certificate)?;
        let root = certificate.clone();
        let (folder, key) = (state.to_owned(), read(&key)?);
        Ok(Some(Self { folder, certificate, key, root, chain: String::new() }))
    }

    fn signing_key(&self, own: &CertificateDer<'_>) -> Result<KeyPair, RootError> {
        let path = self.folder.join(KEY_FILE);
        let key = KeyPair::from_pem(&self.key)
            .map_err(|error| RootError::Key { path: path.clone(), reason: error.to_string() })?;
        let certificate = self.folder.join(CERT_FILE);
        let parsed = parse(&certificate, own)?;
        if parsed.public_key().raw == key.subject_public_key_info() {
            Ok(key)
        } else {
            Err(RootError::KeyMismatch { key: path, certificate })
        }
    }
}

/// A self-signed root and its key, PEM both.
fn make_root(trust_domain: &str, lifetime: Duration, now: SystemTime) -> Result<(String, String), RootError> {
    let make = |error: rcgen::Error| RootError::Make(error.to_string());
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Istio's self-signed roots carry the trust domain as the organisation; tools show it.
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    let serial = issue::serial().map_err(|error| RootError::Make(error.to_string()))?;
    // A name of its own: two roots that follow one another are told apart by it, also by those who look at names only.
    let name = format!("root {}", &identity::revocation::hexadecimal(serial.as_ref())[..8]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(make)?;
    Ok((certificate_pem(certificate.der()), key.serialize_pem()))
}

fn check_may_sign(path: &Path, own: &CertificateDer<'_>) -> Result<(), RootError> {
    let refuse = |reason| Err(RootError::NotAnAuthority { path: path.to_owned(), reason });
    let parsed = parse(path, own)?;
    if !parsed.is_ca() {
        return refuse("its basic constraints do not say CA");
    }
    match parsed.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => refuse("its key usage lacks keyCertSign"),
        Err(_) => refuse("its key usage cannot be read"),
        _ => Ok(()),
    }
}

/// The span in which the signing certificate, all intermediates and at least one root are valid; it contains now.
fn common_validity(
    material: &Material,
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootBundle,
    now: SystemTime,
) -> Result<Validity, RootError> {
    let facts = |file, certificate: &CertificateDer<'_>| {
        let path = material.folder.join(file);
        match CertificateFacts::read(certificate) {
            Ok(facts) => Ok((path, facts.validity)),
            Err(error) => Err(RootError::Certificate { path, reason: error.to_string() }),
        }
    };
    let mut below = vec![facts(CERT_FILE, own)?];
    for intermediate in intermediates {
        below.push(facts(CHAIN_FILE, intermediate)?);
    }
    // Verifiers that check a root's time too (OpenSSL, Go) need one that lasts; of several the longest-lived.
    let mut lasting: Option<(PathBuf, Validity)> = None;
    for root in roots.certificates() {
        let (path, validity) = facts(ROOT_FILE, root)?;
        if lasting.as_ref().is_none_or(|(_, best)| best.not_after < validity.not_after) {
            lasting = Some((path, validity));
        }
    }
    below.extend(lasting);
    let mut common = below[0].1;
    for (path, validity) in below {
        if now < validity.not_before || validity.not_after <= now {
            return Err(RootError::OutOfTime { path });
        }
        common.not_before = common.not_before.max(validity.not_before);
        common.not_after = common.not_after.min(validity.not_after);
    }
    Ok(common)
}

pub(super) fn parse<'a>(
    path: &Path,
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, RootError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| RootError::Certificate { path: path.to_owned(), reason: error.to_string() })?;
    Ok(parsed)
}

pub(super) fn read_roots(path: &Path, text: &str) -> Result<RootBundle, RootError> {
    RootBundle::from_pem(text)
        .map_err(|error| RootError::Certificate { path: path.to_owned(), reason: error.to_string() })
}

/// The first certificate of a file; some tools append the chain.
pub(super) fn one_certificate(path: &Path, text: &str) -> Result<CertificateDer<'static>, RootError> {
    let all = read_roots(path, text)?;
    all.certificates().first().cloned().ok_or_else(|| RootError::Certificate {
        path: path.to_owned(),
        reason: "no certificate in it".to_owned(),
    })
}

pub(super) fn read(path: &Path) -> Result<String, RootError> {
    fs::read_to_string(path).map_err(|source| RootError::Read { path: path.to_owned(), source })
}

/// Replaces a file so that a reader, or a crash, sees the old text or the new, never a part.
pub(crate) fn write_atomically(path: &Path, text: &str, mode: u32) -> Result<(), RootError> {
    let attempt = || -> io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let folder = path.parent().unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.join(format!(".{name}.{}", std::process::id()));
        let _ = fs::remove_file(&draft); // of an earlier process with this id
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        fs::File::open(folder)?.sync_all()
    };
    attempt().map_err(|source| RootError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
