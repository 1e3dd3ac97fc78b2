//! `istio.v1.auth.IstioCertificateService`: authenticate, authorize, issue. A refusal says nothing but that it is
//! one, as istiod's does; why stands in the log.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::identity::Identity;
use prost_types::value::Kind;
use proto::ca::istio_certificate_service_server::IstioCertificateService;
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use tracing::field::display;

use super::authorize::{Authenticator, Caller, authorize};
use super::issue::IssueError;
use super::keyring::Keyring;
use super::listen::Peer;
use super::rate::{Allowance, Rate};
use crate::limits::{Limit, Limits};

/// The largest call, in bytes: a request for a large RSA key and its metadata.
pub const MAX_CALL: usize = 64 * 1024;

/// Signs for callers that `authenticator` knows, identities that `on_node` finds.
pub struct CaService<A, L> {
    keyring: Arc<Keyring>,
    authenticator: Arc<A>,
    on_node: L,
    allowance: Allowance,
    limits: Limits,
}

impl<A, L> CaService<A, L>
where
    A: Authenticator,
    L: Fn(&str, &Identity) -> bool + Send + Sync + 'static,
{
    /// The service; `on_node` says whether a pod that runs as an identity is on a node, now.
    pub fn new(keyring: Arc<Keyring>, authenticator: Arc<A>, on_node: L) -> Self {
        let (allowance, limits) = (Allowance::new(Rate::default()), Limits::default());
        Self { keyring, authenticator, on_node, allowance, limits }
    }

    /// The same, which counts what it turns away.
    #[must_use]
    pub fn counting(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same, which issues a caller certificates so fast.
    #[must_use]
    pub fn at(self, rate: Rate) -> Self {
        Self { allowance: Allowance::new(rate), ..self }
    }

    /// Whether a caller gets one more now.
    fn charge(&self, caller: &Caller) -> Result<(), Status> {
        self.allowance.take(caller, Instant::now()).map_err(|wait| {
            let Rate { burst, each_second } = self.allowance.rate();
            if self.limits.hit_and_tell(Limit::CertificatesOfCaller) {
                tracing::warn!(
                    %caller,
                    burst,
                    each_second,
                    "a caller asks for certificates too fast; does its agent start again and again?"
                );
            }
            Status::resource_exhausted(format!(
                "more certificates asked for than {burst} at once and {each_second} a second from then on; ask again \
                 in {} ms, and find out why so many are needed",
                wait.as_millis() + 1
            ))
        })
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
        let from = Peer::ip_of(request.extensions());
        let caller = self.authenticator.authenticate(request.metadata(), from).await.map_err(|refusal| {
            let from = peer.and_then(|peer| peer.address).map(display);
            tracing::warn!(%refusal, peer = from, "certificate refused");
            opaque()
        })?;
        if let Some(peer) = peer {
            peer.is(&caller);
        }
        let call = request.get_ref();
        let identity = authorize(&caller, impersonated(call), self.keyring.trust_domain(), &self.on_node)
            .map_err(|refusal| {
                tracing::warn!(%refusal, %caller, "certificate refused");
                opaque()
            })?;
        self.charge(&caller)?;
        let lifetime = u64::try_from(call.validity_duration).ok().map(Duration::from_secs);
        let issued = self.keyring.issue(&caller, &identity, &call.csr, lifetime, SystemTime::now()).map_err(
            |error| {
                tracing::warn!(%error, %caller, %identity, "certificate not issued");
                status(&error)
            },
        )?;
        let not_after = OffsetDateTime::from(issued.validity.not_after);
        tracing::info!(%caller, %identity, %not_after, "certificate issued");
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
