//! The certificate service with its metrics, under istiod's names.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use proto::ca::istio_certificate_service_server::IstioCertificateService;
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Code, Request, Response, Status};

use super::keyring::Ends;

/// What the certificate service did. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CaMetrics {
    requests: Counter,
    issued: Counter,
    unauthenticated: Counter,
    unreadable: Counter,
    failed: Counter,
    root_expiry: Gauge<f64, AtomicU64>,
    chain_expiry: Gauge<f64, AtomicU64>,
    revoked: Gauge,
}

/// A certificate service that counts.
pub struct Counted<S> {
    service: S,
    metrics: CaMetrics,
}

impl CaMetrics {
    /// Adds them to what is scraped.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            for (name, help, counter) in [
                ("citadel_server_csr_count", "Requests for certificates", &self.requests),
                ("citadel_server_success_cert_issuance_count", "Certificates issued", &self.issued),
                (
                    "citadel_server_authentication_failure_count",
                    "Requests refused because of who asked for whom",
                    &self.unauthenticated,
                ),
                ("citadel_server_csr_parsing_err_count", "Requests that could not be used", &self.unreadable),
                ("citadel_server_csr_sign_err_count", "Requests that could not be signed", &self.failed),
            ] {
                registry.register(name, help, counter.clone());
            }
            registry.register(
                "citadel_server_root_cert_expiry_timestamp",
                "When the root ends, as Unix time in seconds",
                self.root_expiry.clone(),
            );
            registry.register(
                "citadel_server_cert_chain_expiry_timestamp",
                "When the signing chain ends, as Unix time in seconds",
                self.chain_expiry.clone(),
            );
            registry.register(
                "lateen_ca_revoked_certificates",
                "Certificates revoked here that have not ended",
                self.revoked.clone(),
            );
        });
    }

    /// Notes when what signs now ends, and how much is revoked.
    pub fn set(&self, ends: &Ends, revoked: usize) {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.root_expiry.set(seconds(ends.root.unwrap_or(ends.chain).not_after));
        self.chain_expiry.set(seconds(ends.chain.not_after));
        self.revoked.set(i64::try_from(revoked).unwrap_or(i64::MAX));
    }
}

impl<S> Counted<S> {
    /// Counts what `service` answers.
    pub fn new(service: S, metrics: CaMetrics) -> Self {
        Self { service, metrics }
    }
}

#[tonic::async_trait]
impl<S: IstioCertificateService> IstioCertificateService for Counted<S> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.requests.inc();
        let answer = self.service.create_certificate(request).await;
        let counter = match answer.as_ref().err().map(Status::code) {
            None => &self.metrics.issued,
            Some(Code::Unauthenticated) => &self.metrics.unauthenticated,
            Some(Code::InvalidArgument) => &self.metrics.unreadable,
            // A limit that has a counter of its own.
            Some(Code::ResourceExhausted) => return answer,
            Some(_) => &self.metrics.failed,
        };
        counter.inc();
        answer
    }
}
