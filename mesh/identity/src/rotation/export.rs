//! All certificates with their keys as bytes, for the memory file that outlives this process: a restarted proxy
//! serves at once, controller or not. The bytes hold private keys and never touch a disk.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use model::identity::Identity;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Certificates;
use crate::bundle::{CertificateBundle, RootBundle, certificate_pem, certificates};
use crate::key::PrivateKey;
use std::sync::Arc;

/// The form written here. A reader takes its own version only: a certificate is cheap to fetch again, a guess at an
/// unknown form is not.
const VERSION: u32 = 1;

/// The largest export that is read, in bytes: some 20,000 identities.
const MAX_EXPORT: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Export {
    version: u32,
    /// The roots in force, PEM.
    roots: Option<String>,
    certificates: Vec<Exported>,
}

#[derive(Serialize, Deserialize)]
struct Exported {
    identity: Identity,
    /// PKCS#8 DER in base64.
    key: String,
    /// PEM, leaf first.
    chain: String,
    /// The roots it came with, PEM.
    roots: String,
}

/// Why an export could not be read at all. Single certificates that are no longer of use are left out silently: they
/// are fetched again.
#[derive(Debug, Error)]
pub enum ImportError {
    /// Larger than any process writes.
    #[error("an export of {0} bytes is refused; the limit is 64 MiB")]
    TooLarge(usize),
    /// Not an export.
    #[error("not an export of certificates: {0}")]
    Malformed(serde_json::Error),
    /// Of another version of this program.
    #[error("an export of form {0}; this version reads {VERSION} only, certificates will be fetched anew")]
    Version(u32),
}

impl Certificates {
    /// Everything held, keys included. Secret.
    pub fn export(&self) -> Vec<u8> {
        let now = self.0.now();
        let store = self.0.store();
        let certificates = store
            .iter()
            .filter_map(|(identity, snapshot)| {
                let bundle = snapshot.usable(now)?.bundle();
                Some(Exported {
                    identity: identity.clone(),
                    key: BASE64_STANDARD.encode(bundle.key().pkcs8()),
                    chain: bundle.chain().iter().map(certificate_pem).collect(),
                    roots: bundle.roots().to_pem(),
                })
            })
            .collect();
        let export = Export { version: VERSION, roots: store.roots().map(RootBundle::to_pem), certificates };
        drop(store);
        serde_json::to_vec(&export).expect("strings and numbers always serialise")
    }

    /// Takes back what [`Self::export`] gave to an earlier process, checked as if just issued; returns how many
    /// certificates are in use again. Those fetched since stay.
    ///
    /// # Errors
    /// [`ImportError`] if the bytes are no export of this version.
    pub fn import(&self, bytes: &[u8]) -> Result<usize, ImportError> {
        if bytes.len() > MAX_EXPORT {
            return Err(ImportError::TooLarge(bytes.len()));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(ImportError::Malformed)?;
        if version != VERSION {
            return Err(ImportError::Version(version));
        }
        let export: Export = serde_json::from_slice(bytes).map_err(ImportError::Malformed)?;
        let now = self.0.now();
        if let Some(roots) = export.roots.and_then(|pem| RootBundle::from_pem(&pem).ok())
            && let Err(error) = self.0.store().restore_roots(roots, now)
        {
            tracing::warn!(%error, "roots from the earlier process cannot be used");
        }
        let mut restored = 0;
        for exported in export.certificates {
            let identity = exported.identity.clone();
            match exported.into_bundle(now).and_then(|bundle| self.0.store().restore(Arc::new(bundle), now)) {
                Ok(()) => restored += 1,
                Err(error) => tracing::info!(%identity, %error, "a kept certificate is not used again"),
            }
        }
        self.0.changed();
        self.0.wake.notify_one();
        Ok(restored)
    }
}

impl Exported {
    fn into_bundle(
        self,
        now: std::time::SystemTime,
    ) -> Result<CertificateBundle, Box<dyn std::error::Error>> {
        let key = PrivateKey::from_pkcs8(&BASE64_STANDARD.decode(self.key)?)?;
        let chain: Vec<CertificateDer<'static>> = certificates("a kept chain", &self.chain)?;
        let roots = RootBundle::from_pem(&self.roots)?;
        Ok(CertificateBundle::new(self.identity, key, chain, roots, now)?)
    }
}
