//! The certificate service with its metrics, under istiod's names.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use proto::ca::istio_certificate_service_server::IstioCertificateService;
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Code, Request, Response, Status};

/// What the certificate service did. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CaMetrics {
    requests: Counter,
    issued: Counter,
    unauthenticated: Counter,
    unreadable: Counter,
    failed: Counter,
    expiry: Gauge<f64, AtomicU64>,
}

/// A certificate service that counts.
pub struct Counted<S> {
    service: S,
    metrics: CaMetrics,
}

impl CaMetrics {
    /// Adds them to what is scraped; `expiry` is when the chain up to the root ends.
    pub fn register(&self, metrics: &Metrics, expiry: SystemTime) {
        self.expiry.set(expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
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
                "citadel_server_cert_chain_expiry_timestamp",
                "When the signing chain ends, as Unix time in seconds",
                self.expiry.clone(),
            );
        });
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
            Some(_) => &self.metrics.failed,
        };
        counter.inc();
        answer
    }
}
