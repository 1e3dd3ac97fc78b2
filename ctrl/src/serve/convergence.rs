//! How long it takes until every proxy has what was changed: one measurement at a time, of the newest revision.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use xds::delta::store::Revision;
use xds::server::Clients;

use super::metrics::XdsMetrics;
use crate::ca::authorize::Caller;

/// A proxy that has not answered after this long has other troubles than slowness.
const LONGEST: Duration = Duration::from_secs(30);

/// A revision and when its changes came.
pub type Published = Option<(Revision, Instant)>;

/// Measures until nothing is published any more.
pub async fn measure(
    mut published: watch::Receiver<Published>,
    clients: Arc<Clients<Caller>>,
    metrics: XdsMetrics,
) {
    while published.changed().await.is_ok() {
        let Some((revision, begun)) = *published.borrow_and_update() else { continue };
        let mut behind = 0;
        for type_url in crate::compile::TYPES {
            // Those of the other view count their revisions by themselves.
            let ours = |client: &xds::server::ClientStatus<Caller>| {
                client.node.heeds_extensions() && !client.node.is_waypoint()
            };
            let left = LONGEST.saturating_sub(begun.elapsed());
            behind += clients.in_force(type_url, revision, ours, left).await.len();
        }
        if behind == 0 && clients.all().iter().any(|client| client.node.heeds_extensions()) {
            metrics.converged(begun.elapsed());
        } else if behind > 0 {
            tracing::warn!(
                revision,
                behind,
                "proxies have not answered for 30 s; see /sync on the admin socket"
            );
        }
    }
}
