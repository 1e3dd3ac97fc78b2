//! What was revoked here: single certificates, and identities that get no more of them. The lists that are made of it are
//! signed by the authority that signed the certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use identity::revocation::{RevocationList, Serial, hexadecimal};
use model::identity::Identity;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::ledger::{Issued, Print, seconds, time};
use super::stored::{bytes, write_atomically};
use crate::ca::issue::BACKDATE;
use crate::ca::root::RootError;

/// The file, in the state folder.
pub(super) const FILE: &str = "revoked.json";

/// How long a list says that it holds; it is signed anew when half of that is over.
const LIST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// All that is revoked here.
#[derive(Debug, Default)]
pub struct RevokedHere {
    path: PathBuf,
    /// The number of the last list signed: they count up.
    number: u64,
    certificates: BTreeMap<Serial, Entry>,
    identities: BTreeMap<Identity, SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    issuer: Print,
    identity: Identity,
    at: SystemTime,
    not_after: SystemTime,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    list_number: u64,
    #[serde(default)]
    certificates: Vec<StoredEntry>,
    #[serde(default)]
    identities: Vec<StoredIdentity>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEntry {
    serial: String,
    issuer: Print,
    identity: Identity,
    at: u64,
    until: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredIdentity {
    identity: Identity,
    at: u64,
}

/// A list as it was signed last.
#[derive(Debug, Clone)]
pub struct SignedList {
    /// The list.
    pub list: RevocationList,
    /// When it says that another is due.
    pub next_update: SystemTime,
    renew: SystemTime,
}

impl RevokedHere {
    /// What an earlier process kept in `state`.
    ///
    /// # Errors
    /// The file cannot be read: nothing may be taken for not revoked because of that.
    pub fn open(state: &Path) -> Result<Self, RootError> {
        let path = state.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { path, ..Self::default() }),
            Err(source) => Err(RootError::Read { path, source }),
        }
    }

    /// What a text says, to be kept at `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn parse(text: &str, path: PathBuf) -> Result<Self, RootError> {
        let file: File = serde_json::from_str(text)
            .map_err(|error| RootError::Stored { path: path.clone(), reason: error.to_string() })?;
        let entries = file.certificates.into_iter().filter_map(|stored| {
            let entry = Entry {
                issuer: stored.issuer,
                identity: stored.identity,
                at: time(stored.at),
                not_after: time(stored.until),
            };
            Some((bytes(&stored.serial)?, entry))
        });
        let identities = file.identities.into_iter().map(|stored| (stored.identity, time(stored.at)));
        Ok(Self {
            path,
            number: file.list_number,
            certificates: entries.collect(),
            identities: identities.collect(),
        })
    }

    /// As it is written down.
    pub(super) fn text(&self) -> String {
        let certificates = self.certificates.iter().map(|(serial, entry)| StoredEntry {
            serial: hexadecimal(serial),
            issuer: entry.issuer.clone(),
            identity: entry.identity.clone(),
            at: seconds(entry.at),
            until: seconds(entry.not_after),
        });
        let identities = self.identities.iter();
        let identities =
            identities.map(|(identity, at)| StoredIdentity { identity: identity.clone(), at: seconds(*at) });
        let file = File {
            list_number: self.number,
            certificates: certificates.collect(),
            identities: identities.collect(),
        };
        serde_json::to_string_pretty(&file).expect("strings and numbers always serialise")
    }

    pub(super) fn write(&self) -> Result<(), RootError> {
        write_atomically(&self.path, &self.text(), 0o600)
    }

    /// Revokes certificates, and an identity if one is named; what cannot be kept is undone.
    ///
    /// # Errors
    /// It could not be written down, and is not in force.
    pub fn add<'a>(
        &mut self,
        identity: Option<&Identity>,
        certificates: impl IntoIterator<Item = &'a Issued>,
        now: SystemTime,
    ) -> Result<(), RootError> {
        let before = (self.certificates.clone(), self.identities.clone());
        for issued in certificates {
            let entry = Entry {
                issuer: issued.issuer.clone(),
                identity: issued.identity.clone(),
                at: now,
                not_after: issued.not_after,
            };
            self.certificates.entry(issued.serial.clone()).or_insert(entry);
        }
        if let Some(identity) = identity {
            self.identities.entry(identity.clone()).or_insert(now);
        }
        match self.write() {
            Ok(()) => Ok(()),
            Err(error) => {
                (self.certificates, self.identities) = before;
                Err(error)
            }
        }
    }

    /// Lets an identity have certificates again; those that were revoked stay so. False if it was not revoked.
    ///
    /// # Errors
    /// It could not be written down.
    pub fn restore(&mut self, identity: &Identity) -> Result<bool, RootError> {
        let Some(at) = self.identities.remove(identity) else { return Ok(false) };
        match self.write() {
            Ok(()) => Ok(true),
            Err(error) => {
                self.identities.insert(identity.clone(), at);
                Err(error)
            }
        }
    }

    /// Forgets certificates that have ended anyhow. True if there were any.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let before = self.certificates.len();
        self.certificates.retain(|_, entry| entry.not_after + BACKDATE > now);
        let changed = self.certificates.len() != before;
        if changed && let Err(error) = self.write() {
            tracing::error!(%error, "what was revoked is not written down as it is");
        }
        changed
    }

    /// Whether an identity gets no certificates.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.identities.contains_key(identity)
    }

    /// The identities, with the moment each was revoked.
    pub fn identities(&self) -> impl Iterator<Item = (&Identity, SystemTime)> {
        self.identities.iter().map(|(identity, at)| (identity, *at))
    }

    /// How many certificates are revoked that have not ended.
    pub fn certificates(&self) -> usize {
        self.certificates.len()
    }

    /// The list of an authority, signed by it; nothing if none of its certificates is revoked. The one signed before
    /// stays while it says the same and is fresh.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn list(
        &mut self,
        print: &str,
        certificate: &CertificateDer<'_>,
        issuer: &Issuer<'_, KeyPair>,
        before: Option<&SignedList>,
        changed: bool,
        now: SystemTime,
    ) -> Result<Option<SignedList>, RootError> {
        let entries = self.certificates.iter().filter(|(_, entry)| entry.issuer == print);
        let entries: Vec<_> = entries.map(|(serial, entry)| revoked(serial, entry.at)).collect();
        if entries.is_empty() {
            return Ok(None);
        }
        if let Some(before) = before.filter(|before| !changed && now < before.renew) {
            return Ok(Some(before.clone()));
        }
        self.number += 1;
        self.write()?;
        let params = CertificateRevocationListParams {
            this_update: (now - BACKDATE).into(),
            next_update: (now + LIST_LIFETIME).into(),
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: None,
            revoked_certs: entries,
            key_identifier_method: key_identifier(certificate),
        };
        let signed = params.signed_by(issuer).map_err(|error| RootError::Make(error.to_string()))?;
        let list = RevocationList::from_der(signed.der())
            .map_err(|error| RootError::Make(format!("a list of revoked certificates: {error}")))?;
        Ok(Some(SignedList { list, next_update: now + LIST_LIFETIME, renew: now + LIST_LIFETIME / 2 }))
    }
}

fn revoked(serial: &Serial, at: SystemTime) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: at.into(),
        reason_code: Some(RevocationReason::Unspecified),
        invalidity_date: None,
    }
}

/// The identifier of the authority's key as its certificate has it, which is also what its leaves name.
fn key_identifier(certificate: &CertificateDer<'_>) -> KeyIdMethod {
    let parsed = X509Certificate::from_der(certificate).ok();
    let found = parsed.and_then(|(_, parsed)| {
        parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_vec()),
            _ => None,
        })
    });
    found.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
}

/// Whether a signing certificate may sign lists: it must not say that it may only sign something else.
pub fn may_sign_lists(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| match parsed.key_usage() {
        Ok(Some(usage)) => usage.value.crl_sign(),
        Ok(None) => true,
        Err(_) => false,
    })
}

/// PEM text of lists.
pub fn lists_pem<'a>(lists: impl IntoIterator<Item = &'a RevocationList>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let section = |der: &Arc<[u8]>| pem::encode_config(&pem::Pem::new("X509 CRL", der.to_vec()), config);
    lists.into_iter().map(|list| section(list.der())).collect()
}
