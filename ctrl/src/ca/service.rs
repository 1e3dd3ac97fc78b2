//! `istio.v1.auth.IstioCertificateService`: authenticate, authorize, issue. A refusal says nothing but that it is
//! one, as istiod's does; why stands in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::identity::Identity;
use prost_types::value::Kind;
use proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use super::authorize::{Authenticator, authorize};
use super::issue::IssueError;
use super::keyring::Keyring;
use super::listen::Peer;

/// The largest call, in bytes: a request for a large RSA key and its metadata.
pub const MAX_CALL: usize = 64 * 1024;

/// Signs for callers that `authenticator` knows, identities that `on_node` finds.
pub struct CaService<A, L> {
    keyring: Arc<Keyring>,
    authenticator: Arc<A>,
    on_node: L,
}

impl<A, L> CaService<A, L>
where
    A: Authenticator,
    L: Fn(&str, &Identity) -> bool + Send + Sync + 'static,
{
    /// The service; `on_node` says whether a pod that runs as an identity is on a node, now.
    pub fn new(keyring: Arc<Keyring>, authenticator: Arc<A>, on_node: L) -> Self {
        Self { keyring, authenticator, on_node }
    }

    /// As tonic's router takes it, with calls limited to 64 KiB.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_CALL)
    }
}

#[tonic::async_trait]
impl<A, L> IstioCertificateService for CaService<A, L>
where
    A: Authenticator,
    L: Fn(&str, &Identity) -> bool + Send + Sync + 'static,
{
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let opaque = || Status::unauthenticated("request authenticate failure");
        let peer = Peer::of(request.extensions());
        let caller = self.authenticator.authenticate(request.metadata()).await.map_err(|refusal| {
            tracing::warn!(%refusal, peer = ?peer.and_then(|peer| peer.address), "certificate refused");
            opaque()
        })?;
        if let Some(peer) = peer {
            peer.is(&caller);
        }
        let call = request.get_ref();
        let identity = authorize(&caller, impersonated(call), self.keyring.trust_domain(), &self.on_node)
            .map_err(|refusal| {
                tracing::warn!(%refusal, ?caller, "certificate refused");
                opaque()
            })?;
        let lifetime = u64::try_from(call.validity_duration).ok().map(Duration::from_secs);
        let issued = self.keyring.issue(&caller, &identity, &call.csr, lifetime, SystemTime::now()).map_err(
            |error| {
                tracing::warn!(%error, ?caller, %identity, "certificate not issued");
                status(&error)
            },
        )?;
        tracing::info!(?caller, %identity, not_after = ?issued.validity.not_after, "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain: issued.elements }))
    }
}

/// Whom the caller speaks for, if it says so.
fn impersonated(call: &IstioCertificateRequest) -> Option<&str> {
    match call.metadata.as_ref()?.fields.get("ImpersonatedIdentity")?.kind.as_ref()? {
        Kind::StringValue(identity) => Some(identity),
        // Named, but not as a string: an identity that parses as none, rather than none named.
        _ => Some(""),
    }
}

fn status(error: &IssueError) -> Status {
    match error {
        IssueError::Request(_) => Status::invalid_argument(error.to_string()),
        // Who asks has proved that he may ask for it: he may know why he gets none.
        IssueError::Revoked(_) => Status::permission_denied(error.to_string()),
        IssueError::AuthorityExpired => Status::unavailable(error.to_string()),
        IssueError::Sign(_) => Status::internal("signing failed; the controller's log says why"),
    }
}
