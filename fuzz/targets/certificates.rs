//! Certificates, bundles of roots and lists of what was revoked, as a peer, an authority or a file brings them.
//!
//! Input: an octet that chooses, then PEM or DER.
#![no_main]

use std::time::SystemTime;

use identity::bundle::{CertificateBundle, CertificateFacts, RootBundle};
use identity::key::PrivateKey;
use identity::revocation::{self, RevocationList};
use identity::verify;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    let Some((&options, rest)) = data.split_first() else { return };
    match options % 4 {
        0 => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            if let Ok(roots) = RootBundle::from_pem(text) {
                assert!(!roots.certificates().is_empty() && roots.certificates().len() <= 64);
                assert_eq!(RootBundle::from_pem(&roots.to_pem()).ok(), Some(roots));
            }
        }
        1 => {
            let leaf = CertificateDer::from(rest);
            let chain = [leaf.clone(), leaf.clone()];
            if let Ok(identity) = verify::peer_identity(&chain) {
                assert_eq!(identity.to_string().parse(), Ok(identity));
            }
            let _ = (CertificateFacts::read(&leaf), revocation::serial_of(&leaf));
            let _ = verify::leads_to(&chain, &chain);
            let _ = verify::is_signed_by(&leaf, &leaf);
        }
        2 => {
            if let Ok(list) = RevocationList::from_der(rest) {
                assert_eq!(&list.der()[..], rest);
                let _ = list.is_signed_by(&[CertificateDer::from(rest)]);
                let _ = revocation::check(&[list], &[CertificateDer::from(rest)]);
            }
            if let Ok(text) = std::str::from_utf8(rest) {
                let _ = RevocationList::from_pem(text);
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            let elements: Vec<String> = text.split('\0').map(str::to_owned).collect();
            let identity = "spiffe://cluster.local/ns/a/sa/b".parse().expect("an identity");
            let Ok(key) = PrivateKey::generate() else { return };
            // Nothing that a fuzzer finds is signed for a key made just now.
            assert!(CertificateBundle::from_reply(identity, key, &elements, SystemTime::now()).is_err());
        }
    }
});
