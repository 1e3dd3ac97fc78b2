//! Whose certificates count, as the controller says it: what is revoked, which roots vouch, and what that means for a
//! tunnel that is there already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::mesh::{Settings, Trust};
use rustls_pki_types::CertificateDer;

use crate::bundle::RootBundle;
use crate::revocation::{MAX_LISTS, RevocationList, Revocations, RevokedSet, Side};
use crate::rotation::Certificates;
use crate::tls::Tls;
use crate::verify::leads_to;

/// Why a tunnel is ended, as the access log has it.
pub const PEER_REVOKED: &str = "the peer's certificate is revoked";
/// The same where the certificate is that of this end.
pub const OWN_REVOKED: &str = "the pod's own certificate is revoked";

/// What becomes of a tunnel that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It ends now, for this cause.
    End(&'static str),
    /// It takes no new connections, and those on it leave: it is vouched for by a root that is trusted no more.
    Drain,
}

/// What becomes of a tunnel between these two certificates; nothing where it stays. The pure decision.
pub fn judge(
    revoked: &RevokedSet,
    roots: Option<&RootBundle>,
    peer: &[CertificateDer<'_>],
    own: &[CertificateDer<'_>],
) -> Option<Fate> {
    if revoked.check(peer).is_err() {
        return Some(Fate::End(PEER_REVOKED));
    }
    if revoked.check(own).is_err() {
        return Some(Fate::End(OWN_REVOKED));
    }
    let roots = roots?.certificates();
    let trusted = leads_to(peer, roots) && leads_to(own, roots);
    (!trusted).then_some(Fate::Drain)
}

/// Tunnels that were ended because of a revoked certificate: as their server, as their client.
#[derive(Debug, Default)]
pub struct Ended([AtomicU64; 2]);

impl Ended {
    /// Counts one; its peer was of that side.
    pub fn count(&self, peer: Side) {
        self.0[peer as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were whose peer was of that side.
    pub fn of(&self, peer: Side) -> u64 {
        self.0[peer as usize].load(Ordering::Relaxed)
    }

    /// The same with the handshakes that were refused.
    pub fn and_refused(&self, revocations: &Revocations, peer: Side) -> u64 {
        self.of(peer) + revocations.refused(peer)
    }
}

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
