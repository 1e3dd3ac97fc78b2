//! What others ask of the authorities.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use identity::bundle::{CertificateFacts, Validity, rfc3339};
use model::identity::Identity;
use pages::ca::Certificate;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Keyring, KeyringSettings};
use crate::ca::authorize::Caller;

/// When what signs now ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The root that lasts longest.
    pub root: Option<Validity>,
    /// The chain from the signing certificate to the root.
    pub chain: Validity,
    /// Whether a successor is made by itself.
    pub made_here: bool,
}

impl Ends {
    /// Each by its name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, Validity)> {
        // Of a root that signs itself the chain is the root.
        let chain = Some(("signing certificate", self.chain))
            .filter(|(_, chain)| self.root.is_none_or(|root| chain.not_after < root.not_after));
        self.root.map(|root| ("root certificate", root)).into_iter().chain(chain)
    }
}

/// A certificate that counts, and what it is for.
fn listed(
    certificate: &CertificateDer<'_>,
    kind: &str,
    state: &str,
    until: Option<SystemTime>,
) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = CertificateFacts::read(certificate).ok()?.validity;
    Some(Certificate {
        kind: kind.to_owned(),
        state: state.to_owned(),
        subject: parsed.subject().to_string(),
        serial: identity::revocation::hexadecimal(&identity::revocation::serial(parsed.raw_serial())),
        not_before: rfc3339(validity.not_before),
        not_after: rfc3339(validity.not_after),
        until: until.map(rfc3339),
    })
}

impl Keyring {
    /// How roots are made and changed.
    pub fn settings(&self) -> &KeyringSettings {
        &self.settings
    }

    /// Whether the authority that signs was made here.
    pub fn made_here(&self) -> bool {
        self.read().authorities.current.made_here
    }

    /// The span of the root made here, if one is in force and nothing else is to follow it.
    pub fn own_root(&self) -> Option<Validity> {
        let held = self.read();
        let current = &held.authorities.current;
        (current.made_here && held.plugged.is_none()).then(|| current.authority.validity())
    }

    /// Since when a successor is distributed.
    pub fn successor_since(&self) -> Option<SystemTime> {
        self.read().authorities.next.as_ref().map(|(_, since)| *since)
    }

    /// When the last certificate of each retired authority ends.
    pub fn retired_ends(&self) -> Vec<SystemTime> {
        self.read().authorities.retired.iter().map(|retired| retired.until).collect()
    }

    /// By holder, when the oldest certificate that he still may use was issued.
    pub fn holders(&self) -> HashMap<Caller, SystemTime> {
        self.read().ledger.holders()
    }

    /// How many certificates of workloads have not ended.
    pub fn issued(&self) -> usize {
        self.read().ledger.count()
    }

    /// Identities that get no certificates.
    pub fn revoked_identities(&self) -> Vec<Identity> {
        self.read().revoked.identities().map(|(identity, _)| identity.clone()).collect()
    }

    /// How many certificates revoked here have not ended.
    pub fn revoked_certificates(&self) -> usize {
        self.read().revoked.certificates()
    }

    /// The lists that proxies are sent: how long each is, and when the next is due where it is known.
    pub fn lists(&self) -> Vec<(usize, Option<SystemTime>)> {
        let held = self.read();
        let own = held.lists.iter().map(|(_, signed)| (signed.list.len(), Some(signed.next_update)));
        let plugged = held.plugged.iter().flat_map(super::Plugged::lists).map(|list| (list.len(), None));
        own.chain(plugged).collect()
    }

    /// When what signs now ends.
    pub fn ends(&self) -> Ends {
        let held = self.read();
        let current = &held.authorities.current;
        let roots = current.authority.roots().certificates();
        let roots = roots.iter().filter_map(|root| Some(CertificateFacts::read(root).ok()?.validity));
        Ends {
            root: roots.max_by_key(|root| root.not_after),
            chain: current.authority.validity(),
            made_here: current.made_here,
        }
    }

    /// The newest certificate of each identity on each node, where it ought to have been renewed long since.
    pub fn late(&self, now: SystemTime) -> Vec<(Caller, Identity, SystemTime)> {
        let held = self.read();
        let mut newest = BTreeMap::new();
        for issued in held.ledger.iter().filter(|issued| !held.revoked.is_revoked(&issued.identity)) {
            // In the order of their ends.
            newest.insert((&issued.holder, &issued.identity), (issued.at, issued.not_after));
        }
        let is_late = |at: SystemTime, until: SystemTime| {
            now >= at + until.duration_since(at).unwrap_or_default() * 2 / 3
        };
        let late = newest.into_iter().filter(|(_, (at, until))| is_late(*at, *until));
        late.map(|((holder, identity), (_, until))| (holder.clone(), identity.clone(), until)).collect()
    }

    /// The certificates that count.
    pub fn describe(&self) -> Vec<Certificate> {
        let held = self.read();
        let authorities = &held.authorities;
        let next = authorities.next.iter().map(|(next, _)| (next, "next"));
        let mut described = Vec::new();
        for (member, state) in [(&authorities.current, "current")].into_iter().chain(next) {
            let authority = &member.authority;
            for (place, intermediate) in authority.intermediates.iter().enumerate() {
                let kind = if place == 0 { "signing" } else { "intermediate" };
                described.extend(listed(intermediate, kind, state, None));
            }
            let roots = authority.roots.certificates().iter();
            described.extend(roots.filter_map(|root| listed(root, "root", state, None)));
        }
        for retired in &authorities.retired {
            let roots = retired.roots.certificates().iter();
            let until = Some(retired.until);
            described.extend(roots.filter_map(|root| listed(root, "root", "retired", until)));
        }
        described
    }
}
