//! What of the authorities outlives a restart: one file, replaced as a whole, so that a crash leaves the phase before or
//! the phase after and nothing between. Keys of authorities made here stand in it; those of a plugged-in one never do.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(super) use crate::ca::root::write_atomically;
use crate::ca::root::{Material, RootError};

/// The file, in the state folder.
pub(super) const FILE: &str = "authorities.json";

/// The form written here.
const VERSION: u32 = 1;

/// All authorities that are trusted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    version: u32,
    pub(super) current: StoredAuthority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<StoredNext>,
    #[serde(default)]
    pub(super) retired: Vec<StoredRetired>,
}

/// One authority, PEM texts.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredAuthority {
    pub(super) certificate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) chain: String,
    pub(super) root: String,
}

/// The one that is to sign next; times are Unix seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredNext {
    #[serde(flatten)]
    pub(super) authority: StoredAuthority,
    pub(super) since: u64,
}

/// One that signs no more.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredRetired {
    #[serde(flatten)]
    pub(super) authority: StoredAuthority,
    pub(super) until: u64,
}

impl std::fmt::Debug for StoredAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredAuthority").field("root", &self.root).finish_non_exhaustive()
    }
}

impl StoredAuthority {
    /// With the key of one made here.
    pub(super) fn of(material: &Material, made_here: bool) -> Self {
        Self {
            certificate: material.certificate.clone(),
            key: made_here.then(|| material.key.clone()),
            chain: material.chain.clone(),
            root: material.root.clone(),
        }
    }

    /// What it was made of, if its key is known.
    pub(super) fn material(&self, folder: &Path) -> Option<Material> {
        Some(Material {
            folder: folder.to_owned(),
            certificate: self.certificate.clone(),
            key: self.key.clone()?,
            root: self.root.clone(),
            chain: self.chain.clone(),
        })
    }
}

impl Stored {
    pub(super) fn new(
        current: StoredAuthority,
        next: Option<StoredNext>,
        retired: Vec<StoredRetired>,
    ) -> Self {
        Self { version: VERSION, current, next, retired }
    }

    /// What stands in a folder, if there is anything.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, RootError> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RootError::Read { path, source }),
        };
        Self::parse(&text, &path).map(Some)
    }

    /// What a text says; `path` is where it stands, for errors.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, RootError> {
        let unreadable = |reason: String| RootError::Stored { path: path.to_owned(), reason };
        let stored: Self = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if stored.version != VERSION {
            return Err(unreadable(format!(
                "it is of form {}, this version reads {VERSION}",
                stored.version
            )));
        }
        Ok(stored)
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers always serialise")
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), RootError> {
        write_atomically(&folder.join(FILE), &self.text(), 0o600)
    }
}

/// Bytes of hexadecimal digits, as serial numbers are written.
pub(super) fn bytes(text: &str) -> Option<Box<[u8]>> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}
