//! Whose certificates count, as the controller says it.

use std::sync::Arc;

use identity::bundle::RootBundle;
use identity::revocation::{RevocationList, RevokedSet};
use model::mesh::Trust;
use rustls::pki_types::CertificateDer;

use crate::Waypoint;

/// Takes what the controller says. Of lists that cannot be read, those in force stay.
pub(crate) fn take(waypoint: &Waypoint, trust: &Trust) {
    let lists: Result<Vec<_>, _> = trust.crls.iter().map(|der| RevocationList::from_der(der)).collect();
    let lists = lists.unwrap_or_else(|error| {
        tracing::error!(%error, "a list of revoked certificates cannot be read; those in force stay");
        waypoint.tls.revocations().current().lists.clone()
    });
    // Before the roots: what a list takes away is never trusted for a moment.
    waypoint
        .certificates
        .revoke(RevokedSet { lists, identities: trust.identities.iter().cloned().collect() });
    if !waypoint.own_roots {
        return;
    }
    let der = |bytes: &Arc<[u8]>| CertificateDer::from(bytes.to_vec());
    let roots: Vec<_> = trust.roots.iter().map(der).collect();
    let roots = (!roots.is_empty()).then(|| RootBundle::new(roots));
    if let Err(error) = waypoint.certificates.announce(roots, trust.issuer.as_ref().map(der)) {
        tracing::error!(%error, "the controller's roots cannot be used; those in force stay");
    }
}
