//! The decision who may attend for diagnostics: the same proxies that are told configuration, as what they prove to be.

use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use xds::diagnostics::{Admission, Admitted};
use xds::node::NodeInfo;

use super::control::may_speak_for;
use crate::ca::authorize::Authenticator;
use crate::ca::listen::Peer;

/// Lets proxies in by their tokens.
#[derive(Debug)]
pub struct Door<A>(pub Arc<A>);

impl<A: Authenticator> Admission for Door<A> {
    async fn admit(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Admitted, Status> {
        let caller = self.0.authenticate(metadata, Peer::ip_of(extensions)).await.map_err(|refusal| {
            tracing::warn!(%refusal, "diagnostics refused");
            Status::unauthenticated("authentication failure")
        })?;
        if let Some(peer) = Peer::of(extensions) {
            peer.is(&caller);
        }
        Ok(Admitted {
            caller: caller.to_string().into(),
            streams: caller.streams(),
            agrees: Box::new(move |node: &NodeInfo| {
                may_speak_for(&caller, node).map_err(Status::permission_denied)
            }),
        })
    }
}
