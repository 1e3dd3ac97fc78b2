//! Private keys: ECDSA P-256, PKCS#8, the only kind that proxies make for themselves.

use std::fmt;
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

/// A private key of a workload. Cheap to clone; never printed.
#[derive(Clone)]
pub struct PrivateKey(Arc<KeyPair>);

/// Why a key could not be made or read.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The provider could not make a key: its source of randomness failed.
    #[error("cannot generate a private key: {0}; is the system's random source available?")]
    Generate(rcgen::Error),
    /// The bytes are not a PKCS#8 ECDSA P-256 key.
    #[error("not an ECDSA P-256 private key in PKCS#8 form: {0}")]
    Read(rcgen::Error),
    /// The key refused to sign the request made for it.
    #[error("cannot sign a certificate request: {0}")]
    Request(rcgen::Error),
}

impl PrivateKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        Ok(Self(Arc::new(pair)))
    }

    /// Reads a key back from [`Self::pkcs8`].
    ///
    /// # Errors
    /// [`KeyError::Read`] if the bytes are anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let pair =
            KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(KeyError::Read)?;
        Ok(Self(Arc::new(pair)))
    }

    /// The key as PKCS#8 DER. Secret.
    pub fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The key as rustls takes it.
    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8().to_vec()))
    }

    /// The public half, as a DER SubjectPublicKeyInfo.
    pub fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(elided)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_never_prints_it() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_eq!(format!("{key:?}"), "PrivateKey(elided)");
    }

    #[test]
    fn refuses_other_keys() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(PrivateKey::from_pkcs8(other.serialized_der()).is_err());
        assert!(PrivateKey::from_pkcs8(b"").is_err());
    }
}
