//! Certificates by gRPC: `istio.v1.auth.IstioCertificateService`, which Lateen's controller and istiod both serve.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::identity::Identity;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::authority::{AuthorityError, CertificateAuthority};
use crate::bundle::CertificateBundle;
use crate::csr::certificate_request;
use crate::key::PrivateKey;

/// The metadata field that names whose certificate is wanted.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// The largest reply, in bytes: a chain and a bundle of roots.
const MAX_REPLY: usize = 1 << 20;

/// How the client asks.
#[derive(Debug, Clone)]
pub struct CaClientSettings {
    /// File with the bearer token, read for every request because Kubernetes replaces it. None: no token is sent.
    pub token_file: Option<PathBuf>,
    /// The cluster's name, sent as `clusterid`.
    pub cluster_id: String,
    /// The lifetime wanted (Istio's `SECRET_TTL`).
    pub lifetime: Duration,
    /// Whether this process asks on behalf of others (a node agent) or for itself alone (a waypoint).
    pub impersonate: bool,
    /// More headers (`CA_HEADER_*`), names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Default for CaClientSettings {
    fn default() -> Self {
        Self {
            token_file: None,
            cluster_id: "Kubernetes".to_owned(),
            lifetime: Duration::from_secs(24 * 60 * 60),
            impersonate: true,
            headers: Vec::new(),
        }
    }
}

/// A header that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot be sent as a gRPC header: names are lower case, values printable ASCII")]
pub struct InvalidHeader(pub String);

/// Asks an authority over a channel, usually of [`ControlPlane::channel`](crate::control_plane::ControlPlane::channel).
#[derive(Debug, Clone)]
pub struct CaClient {
    client: IstioCertificateServiceClient<Channel>,
    settings: CaClientSettings,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

impl CaClient {
    /// A client; connects at the first request.
    ///
    /// # Errors
    /// [`InvalidHeader`] if the cluster's name or another header cannot be sent.
    pub fn new(channel: Channel, settings: CaClientSettings) -> Result<Self, InvalidHeader> {
        let cluster = ("clusterid".to_owned(), settings.cluster_id.clone());
        let headers = settings
            .headers
            .iter()
            .chain([&cluster])
            .map(|(name, value)| {
                let invalid = || InvalidHeader(format!("{name}: {value}"));
                Ok((name.parse().map_err(|_| invalid())?, value.parse().map_err(|_| invalid())?))
            })
            .collect::<Result<_, _>>()?;
        let client = IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_REPLY);
        Ok(Self { client, settings, headers })
    }

    async fn request(
        &self,
        identity: &Identity,
        csr: String,
    ) -> Result<Request<IstioCertificateRequest>, AuthorityError> {
        let metadata = self.settings.impersonate.then(|| impersonation(identity));
        let validity_duration = i64::try_from(self.settings.lifetime.as_secs()).unwrap_or(i64::MAX);
        let mut request = Request::new(IstioCertificateRequest { csr, validity_duration, metadata });
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        if let Some(path) = &self.settings.token_file {
            authorize(request.metadata_mut(), path).await?;
        }
        Ok(request)
    }
}

impl CertificateAuthority for CaClient {
    async fn issue(&self, identity: &Identity) -> Result<CertificateBundle, AuthorityError> {
        let key = PrivateKey::generate()?;
        let request = self.request(identity, certificate_request(&key, identity)?).await?;
        let reply =
            self.client.clone().create_certificate(request).await.map_err(|status| refusal(&status))?;
        let elements = reply.into_inner().cert_chain;
        Ok(CertificateBundle::from_reply(identity.clone(), key, &elements, SystemTime::now())?)
    }
}

fn impersonation(identity: &Identity) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    Struct { fields: BTreeMap::from([(IMPERSONATED.to_owned(), value)]) }
}

/// Adds the bearer token in `path`, as it is now.
async fn authorize(metadata: &mut MetadataMap, path: &Path) -> Result<(), AuthorityError> {
    let failed = |reason: String| AuthorityError::Token { path: path.to_owned(), reason };
    let token = tokio::fs::read_to_string(path).await.map_err(|error| failed(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| failed("it is not printable ASCII".to_owned()))?;
    value.set_sensitive(true);
    metadata.insert("authorization", value);
    Ok(())
}

/// Tells an authority that does not answer from one that refuses.
fn refusal(status: &Status) -> AuthorityError {
    // A transport error says "transport error"; its causes say what happened.
    let mut message = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => AuthorityError::Unreachable(message),
        code => AuthorityError::Refused { code: format!("{code:?}"), message },
    }
}
