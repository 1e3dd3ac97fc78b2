//! The Secrets of the authority, and what they mean.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::ca::keyring::Texts;
use crate::ca::root::{RootError, write_atomically};

/// The keys of the Secret.
const AUTHORITIES: &str = "authorities.json";
const REVOKED: &str = "revoked.json";
/// The files of a plugged-in authority that count.
const FILES: [&str; 5] = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem", "ca-crl.pem"];

/// The Secret with these texts; `version` is the one that it must be the next of.
pub(super) fn made(name: &str, texts: &Texts, version: Option<String>) -> Secret {
    let mut secret = Secret { type_: Some("lateen.dev/authority".to_owned()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.resource_version = version;
    let bytes = |text: &String| ByteString(text.clone().into_bytes());
    secret.data = Some(BTreeMap::from([
        (AUTHORITIES.to_owned(), bytes(&texts.authorities)),
        (REVOKED.to_owned(), bytes(&texts.revoked)),
    ]));
    secret
}

/// What a Secret says. One that has nothing in it is damaged: another authority must not be made in its place.
pub(super) fn texts(secret: &Secret) -> Result<Texts, RootError> {
    let text = |key: &str| {
        let data = secret.data.iter().flatten().find(|(name, _)| *name == key);
        data.and_then(|(_, bytes)| String::from_utf8(bytes.0.clone()).ok()).ok_or_else(|| RootError::Stored {
            path: PathBuf::from(format!("Secret {}", secret.metadata.name.as_deref().unwrap_or_default())),
            reason: format!("it has no {key}"),
        })
    };
    Ok(Texts { authorities: text(AUTHORITIES)?, revoked: text(REVOKED)? })
}

/// Puts the files of a plugged-in authority into a folder; what the Secret does not have goes from there.
pub(super) fn unpack(secret: &Secret, folder: &Path) -> Result<(), RootError> {
    let failed = |source| RootError::Write { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    for file in FILES {
        let path = folder.join(file);
        let text = secret.data.iter().flatten().find(|(name, _)| *name == file);
        match text.and_then(|(_, bytes)| std::str::from_utf8(&bytes.0).ok()) {
            Some(text) if std::fs::read_to_string(&path).is_ok_and(|there| there == text) => {}
            Some(text) => write_atomically(&path, text, 0o600)?,
            None if path.exists() => std::fs::remove_file(&path).map_err(failed)?,
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_refused() {
        let texts_of = |authorities: &str| Texts { authorities: authorities.into(), revoked: "{}".into() };
        let mut secret = made("lateen-ca", &texts_of("a"), Some("7".to_owned()));
        assert_eq!(texts(&secret).expect("whole"), texts_of("a"));
        assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"));
        secret.data.as_mut().expect("data").remove(REVOKED);
        let error = texts(&secret).expect_err("half of it").to_string();
        assert!(error.contains("Secret lateen-ca") && error.contains(REVOKED), "{error}");
    }

    #[test]
    fn a_plugged_in_authority_is_a_folder_with_just_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("cacerts");
        let of = |files: &[(&str, &str)]| {
            let data =
                files.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
            Secret { data: Some(data.collect()), ..Secret::default() }
        };
        unpack(&of(&[("ca-key.pem", "k"), ("cert-chain.pem", "c"), ("../x", "y")]), &folder)
            .expect("written");
        assert_eq!(std::fs::read_to_string(folder.join("ca-key.pem")).expect("there"), "k");
        assert!(!folder.join("../x").exists());
        unpack(&of(&[("ca-key.pem", "other")]), &folder).expect("written");
        assert_eq!(std::fs::read_to_string(folder.join("ca-key.pem")).expect("there"), "other");
        assert!(!folder.join("cert-chain.pem").exists());
    }
}
