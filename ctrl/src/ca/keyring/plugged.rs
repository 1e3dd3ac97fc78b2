//! The folder of a plugged-in authority, read again and again: what changed and is good counts, what is bad is told of
//! once, by its file, and what was in force stays.

use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use identity::revocation::{ListError, MAX_BYTES, RevocationList};
use rustls_pki_types::CertificateDer;

use super::authorities::Member;
use crate::ca::root::{CERT_FILE, CHAIN_FILE, Material, ROOT_FILE, RootError, one_certificate, read_roots};

/// The lists of revoked certificates beside the authority's files.
const CRL_FILE: &str = "ca-crl.pem";

/// What is in force of a folder.
#[derive(Debug)]
pub(super) struct Plugged {
    material: Material,
    lists: Vec<RevocationList>,
    /// What was read last, good or bad.
    seen: Seen,
    problem: Option<String>,
}

/// What stands in a folder at a moment.
#[derive(Debug)]
pub(super) struct Seen {
    material: Result<Material, RootError>,
    crl: Option<String>,
    /// For comparing: errors as text.
    told: Option<String>,
}

impl Seen {
    fn is_as(&self, other: &Self) -> bool {
        self.crl == other.crl
            && self.told == other.told
            && self.material.as_ref().ok() == other.material.as_ref().ok()
    }
}

impl Plugged {
    /// Reads a folder for the first time.
    pub(super) fn open(folder: &Path) -> Result<Self, RootError> {
        let seen = Self::look(folder);
        let material = match &seen.material {
            Ok(material) => material.clone(),
            Err(_) => Material::plugged(folder)?,
        };
        let lists = lists(&material, seen.crl.as_deref())?;
        Ok(Self { material, lists, seen, problem: None })
    }

    /// What stands in a folder now.
    pub(super) fn look(folder: &Path) -> Seen {
        let path = folder.join(CRL_FILE);
        let (crl, unreadable) = match fs::read_to_string(&path) {
            Ok(text) => (Some(text), None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(source) => (None, Some(RootError::Read { path, source })),
        };
        let material = match unreadable {
            Some(error) => Err(error),
            None => Material::plugged(folder),
        };
        let told = material.as_ref().err().map(ToString::to_string);
        Seen { material, crl, told }
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = &RevocationList> {
        self.lists.iter()
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether a folder holds something else than when it was read last.
    pub(super) fn is_news(&self, seen: &Seen) -> bool {
        !self.seen.is_as(seen)
    }

    /// Takes what was read; returns the authority if that is another.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is taken then.
    pub(super) fn take(
        &mut self,
        seen: Seen,
        trust_domain: &str,
        now: SystemTime,
    ) -> Result<Option<Member>, RootError> {
        let compared = Seen {
            material: seen.material.as_ref().map(Clone::clone).map_err(|_| RootError::Make(String::new())),
            crl: seen.crl.clone(),
            told: seen.told.clone(),
        };
        self.seen = compared;
        let taken = seen.material.and_then(|material| {
            let lists = lists(&material, seen.crl.as_deref())?;
            let member = match material == self.material {
                true => None,
                false => Some(Member::of(&material, false, trust_domain, now)?),
            };
            Ok((material, lists, member))
        });
        let (material, lists, member) = taken.inspect_err(|error| self.problem = Some(error.to_string()))?;
        (self.material, self.lists, self.problem) = (material, lists, None);
        Ok(member)
    }
}

/// The lists of a file, each signed by a certificate that stands beside it.
fn lists(material: &Material, text: Option<&str>) -> Result<Vec<RevocationList>, RootError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    let path = material.folder.join(CRL_FILE);
    let refuse = |reason: String| RootError::Crl { path: path.clone(), reason };
    let lists = RevocationList::from_pem(text).map_err(|error: ListError| refuse(error.to_string()))?;
    let bytes: usize = lists.iter().map(|list| list.der().len()).sum();
    if bytes > MAX_BYTES {
        return Err(refuse(format!("its lists have {bytes} bytes together; the limit is {MAX_BYTES}")));
    }
    let signers = signers(material)?;
    for (number, list) in lists.iter().enumerate() {
        if !list.is_signed_by(&signers) {
            return Err(refuse(format!(
                "list {} of it is signed by no certificate of {CERT_FILE}, {CHAIN_FILE} and {ROOT_FILE} beside it",
                number + 1
            )));
        }
    }
    Ok(lists)
}

fn signers(material: &Material) -> Result<Vec<CertificateDer<'static>>, RootError> {
    let path = |file| material.folder.join(file);
    let mut signers = vec![one_certificate(&path(CERT_FILE), &material.certificate)?];
    for (file, text) in [(CHAIN_FILE, &material.chain), (ROOT_FILE, &material.root)] {
        if !text.trim().is_empty() {
            signers.extend(read_roots(&path(file), text)?.certificates().iter().cloned());
        }
    }
    Ok(signers)
}
