//! Whose certificates count, as the controller says it: what is revoked, and which roots vouch.

use std::sync::Arc;

use model::mesh::{Settings, Trust};
use rustls_pki_types::CertificateDer;

use crate::bundle::RootBundle;
use crate::revocation::{MAX_LISTS, RevocationList, RevokedSet};
use crate::rotation::Certificates;
use crate::tls::Tls;

/// Takes what the controller says, before anybody is judged by it; `own_roots` is false where another authority than the
/// controller issues: its roots come with its certificates.
pub fn take(certificates: &Certificates, tls: &Tls, settings: &Settings, own_roots: bool) {
    take_roots(certificates, tls, &settings.trust, own_roots);
    let domains = std::iter::once(&settings.trust_domain).chain(&settings.trust_domain_aliases);
    tls.trust_domains().set(domains.cloned());
}

fn take_roots(certificates: &Certificates, tls: &Tls, trust: &Trust, own_roots: bool) {
    // Before the roots: what a list takes away is never trusted for a moment.
    certificates.revoke(revoked(trust, &tls.revocations().current()));
    if !own_roots {
        return;
    }
    let der = |bytes: &Arc<[u8]>| CertificateDer::from(bytes.to_vec());
    let roots: Vec<_> = trust.roots.iter().map(der).collect();
    let roots = (!roots.is_empty()).then(|| RootBundle::new(roots));
    if let Err(error) = certificates.announce(roots, trust.issuer.as_ref().map(der)) {
        tracing::error!(%error, "the controller's roots cannot be used; those in force stay");
    }
}

/// What is revoked from now on. If a list cannot be read, those that can are heeded beside those in force: nothing counts
/// again because of it, and nothing that can be read is put off.
fn revoked(trust: &Trust, in_force: &RevokedSet) -> RevokedSet {
    let mut lists = Vec::new();
    let mut all_read = true;
    for der in &trust.crls {
        match RevocationList::from_der(der) {
            Ok(list) => lists.push(list),
            Err(error) => {
                all_read = false;
                tracing::error!(%error, "a list of revoked certificates cannot be read; those in force stay");
            }
        }
    }
    if !all_read {
        let missing = in_force.lists.iter().filter(|list| !lists.contains(list)).cloned().collect::<Vec<_>>();
        lists.extend(missing);
        lists.truncate(MAX_LISTS);
    }
    RevokedSet { lists, identities: trust.identities.iter().cloned().collect() }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use testkit::certificates::TestAuthority;

    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_puts_nothing_else_off_and_takes_nothing_back() {
        let (authority, other) = (TestAuthority::default(), TestAuthority::new("another"));
        let now = SystemTime::now();
        let der = |authority: &TestAuthority, serial: &[u8]| -> Arc<[u8]> {
            authority.revoke([serial], now).into()
        };
        let read = |der: &Arc<[u8]>| RevocationList::from_der(der).unwrap();
        let identity: model::identity::Identity = "spiffe://cluster.local/ns/n/sa/a".parse().unwrap();
        let (old, new, garbled) = (der(&authority, b"\x01"), der(&other, b"\x02"), Arc::from(*b"no list"));
        let in_force = RevokedSet { lists: vec![read(&old)], ..RevokedSet::default() };
        let trust = |crls: &[&Arc<[u8]>]| Trust {
            crls: crls.iter().map(|list| Arc::clone(list)).collect(),
            identities: vec![identity.clone()],
            ..Trust::default()
        };
        for (crls, lists) in [
            (&[&new][..], &[&new][..]),
            (&[&garbled], &[&old]),
            (&[&garbled, &new], &[&new, &old]),
            (&[&old, &garbled], &[&old]),
            (&[], &[]),
        ] {
            let now_revoked = revoked(&trust(crls), &in_force);
            assert_eq!(now_revoked.lists, lists.iter().map(|list| read(list)).collect::<Vec<_>>());
            assert!(now_revoked.identities.contains(&identity), "whatever becomes of the lists");
        }
    }
}
