//! Signs whatever certificate a proxy asks for.

use std::net::IpAddr;
use std::sync::Arc;

use proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use testkit::envoy::Credentials;
use tonic::{Request, Response, Status};

/// The authority.
pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Ca {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ca")
    }
}

impl Ca {
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::OrganizationName, "bench");
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The root, PEM.
    pub(super) fn root(&self) -> String {
        self.0.pem()
    }

    /// The controller's own certificate and key, PEM.
    pub(super) fn server(&self, at: IpAddr) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(at)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok((params.signed_by(&key, &self.0)?.pem(), key.serialize_pem()))
    }

    /// A certificate of the mesh for this identity.
    pub(super) fn issue(&self, id: &str) -> Result<Credentials, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.0)?.pem();
        let chain = leaf + &self.root();
        Ok(Credentials { chain, key: key.serialize_pem(), roots: self.root(), peers: Vec::new() })
    }

    /// As tonic's router takes it.
    pub(super) fn into_service(self: Arc<Self>) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::from_arc(self)
    }

    fn sign(&self, csr: &str) -> Result<String, rcgen::Error> {
        let mut request = CertificateSigningRequestParams::from_pem(csr)?;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Ok(request.signed_by(&self.0)?.pem())
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let leaf =
            self.sign(&request.get_ref().csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, self.root()] }))
    }
}
