//! The decision who may attend for diagnostics: the same proxies that are told configuration, as what they prove to be.

use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use xds::diagnostics::{Admission, Admitted};
use xds::node::NodeInfo;

use super::control::may_speak_for;
use crate::ca::authorize::Authenticator;
use crate::ca::listen::Peer;
use crate::core::Core;

/// Lets proxies in by their tokens.
#[derive(Debug)]
pub struct Door<A> {
    authenticator: Arc<A>,
    core: Core,
}

impl<A: Authenticator> Door<A> {
    /// Lets in who is told what `core` publishes.
    pub fn new(authenticator: Arc<A>, core: Core) -> Self {
        Self { authenticator, core }
    }
}

impl<A: Authenticator> Admission for Door<A> {
    async fn admit(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Admitted, Status> {
        let caller =
            self.authenticator.authenticate(metadata, Peer::ip_of(extensions)).await.map_err(|refusal| {
                tracing::warn!(%refusal, "diagnostics refused");
                Status::unauthenticated("authentication failure")
            })?;
        if let Some(peer) = Peer::of(extensions) {
            peer.is(&caller);
        }
        let core = self.core.clone();
        Ok(Admitted {
            caller: caller.to_string().into(),
            streams: caller.streams(),
            agrees: Box::new(move |node: &NodeInfo| {
                may_speak_for(&caller, node, |identity| core.is_waypoint(identity))
                    .map_err(Status::permission_denied)
            }),
        })
    }
}
