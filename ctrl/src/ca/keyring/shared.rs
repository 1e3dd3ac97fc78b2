//! The authorities as several replicas share them: two texts that the replica which leads writes down for all, and that the
//! others take over.

use std::time::SystemTime;

use super::revoked::{self, RevokedHere};
use super::stored::{self, Stored};
use super::{Keyring, RootError, publish};
use crate::ca::root::write_atomically;

/// Everything of the authorities that replicas have in common. The first has keys in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Texts {
    /// Who signs, who is to, and who did.
    pub authorities: String,
    /// What was revoked.
    pub revoked: String,
}

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Texts").field("revoked", &self.revoked).finish_non_exhaustive()
    }
}

impl Texts {
    /// Puts them into a state folder, as if an earlier process had left them there.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &std::path::Path) -> Result<(), RootError> {
        write_atomically(&folder.join(stored::FILE), &self.authorities, 0o600)?;
        publish(&folder.join(revoked::FILE), &self.revoked)
    }
}

impl Keyring {
    /// Whether an earlier process has left authorities in a state folder.
    pub fn is_kept(state: &std::path::Path) -> bool {
        state.join(stored::FILE).exists()
    }

    /// What is to be written down for all replicas.
    pub fn texts(&self) -> Texts {
        let held = self.read();
        Texts { authorities: held.authorities.stored().text(), revoked: held.revoked.text() }
    }

    /// Takes over what the replica that leads has written down; true if it is something else than before.
    ///
    /// # Errors
    /// It cannot be read: what is in force stays. Or it cannot be kept in the state folder; it is in force all the same.
    pub fn adopt(&self, texts: &Texts, now: SystemTime) -> Result<bool, RootError> {
        if self.texts() == *texts {
            return Ok(false);
        }
        let state = &self.settings.state;
        let authorities = Stored::parse(&texts.authorities, &state.join(stored::FILE))?;
        let revoked = RevokedHere::parse(&texts.revoked, state.join(revoked::FILE))?;
        let mut held = self.write();
        let held = &mut *held;
        held.authorities.adopt(&authorities, &self.settings, now)?;
        held.revoked = revoked;
        held.stale = true;
        held.revoked.write()?;
        self.keep(held, now)?;
        Ok(true)
    }
}
