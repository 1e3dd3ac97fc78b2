//! The certificates as the admin port's `/config_dump` shows them, in ztunnel's shape, so that
//! `istioctl ztunnel-config certificates` reads them.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use super::Certificates;
use super::store::Snapshot;
use crate::bundle::{CertificateFacts, certificate_pem, rfc3339};

/// One identity of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateState {
    /// The identity.
    pub identity: String,
    /// `Available`, `Initializing`, or `Unavailable: ` and why.
    pub state: String,
    /// The leaf, then the intermediates.
    pub cert_chain: Vec<ListedCertificate>,
    /// What peers are verified against.
    pub root_certs: Vec<ListedCertificate>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedCertificate {
    /// Its PEM text, in base64.
    pub pem: String,
    /// Serial number, decimal.
    pub serial_number: String,
    /// notBefore, RFC 3339.
    pub valid_from: String,
    /// notAfter, RFC 3339.
    pub expiration_time: String,
}

impl Certificates {
    /// All identities, sorted.
    pub fn list(&self) -> Vec<CertificateState> {
        let now = self.0.now();
        let mut states: Vec<_> = {
            let store = self.0.store();
            store.iter().map(|(identity, snapshot)| (identity.clone(), snapshot)).collect()
        };
        states.sort_by(|(left, _), (right, _)| left.cmp(right));
        states
            .into_iter()
            .map(|(identity, snapshot)| {
                let held = snapshot.held.as_ref();
                CertificateState {
                    identity: identity.to_string(),
                    state: state(&snapshot, now),
                    cert_chain: held.map(|held| listed(held.bundle().chain())).unwrap_or_default(),
                    root_certs: held.map(|held| listed(held.roots().certificates())).unwrap_or_default(),
                }
            })
            .collect()
    }
}

fn state(snapshot: &Snapshot, now: SystemTime) -> String {
    if snapshot.usable(now).is_some() {
        return "Available".to_owned();
    }
    match (&snapshot.failure, &snapshot.held) {
        (Some(why), _) => format!("Unavailable: {why}"),
        (None, Some(_)) => "Unavailable: the certificate has expired".to_owned(),
        (None, None) => "Initializing".to_owned(),
    }
}

fn listed(certificates: &[CertificateDer<'_>]) -> Vec<ListedCertificate> {
    certificates
        .iter()
        .filter_map(|certificate| {
            // Both were parsed before; one that no longer can be has nothing to list.
            let facts = CertificateFacts::read(certificate).ok()?;
            Some(ListedCertificate {
                pem: BASE64_STANDARD.encode(certificate_pem(certificate)),
                serial_number: facts.serial,
                valid_from: rfc3339(facts.validity.not_before),
                expiration_time: rfc3339(facts.validity.not_after),
            })
        })
        .collect()
}
