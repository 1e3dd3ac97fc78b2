//! TLS of the proxy's own towards an endpoint, as written (`ClientTLSSettings`).

use crate::address::Str;

/// TLS of the proxy's own towards an endpoint (`trafficPolicy.tls`). Where nothing is said, the mesh's mutual TLS is used
/// towards whoever is in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Which kind (`mode`).
    pub mode: TlsMode,
    /// The file of the client's certificate (`clientCertificate`), for `MUTUAL`.
    pub client_certificate: Option<Str>,
    /// The file of its key (`privateKey`), for `MUTUAL`.
    pub private_key: Option<Str>,
    /// The file of the roots that the server is verified against (`caCertificates`): the system's unless said.
    pub ca_certificates: Option<Str>,
    /// The file of revoked certificates (`caCrl`).
    pub ca_crl: Option<Str>,
    /// The secret that all of these are in (`credentialName`).
    pub credential_name: Option<Str>,
    /// One of these names must be the server's (`subjectAltNames`).
    pub subject_alt_names: Box<[Str]>,
    /// The name that is asked for (`sni`).
    pub sni: Option<Str>,
    /// Whether the server is believed whoever it is (`insecureSkipVerify`): no unless said.
    pub insecure_skip_verify: bool,
}

/// Which kind of TLS (`ClientTLSSettings.TLSmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsMode {
    /// None (`DISABLE`, the first of the enumeration).
    #[default]
    Disable,
    /// The server proves itself (`SIMPLE`).
    Simple,
    /// Both do, with certificates that are named (`MUTUAL`).
    Mutual,
    /// Both do, with the mesh's certificates (`ISTIO_MUTUAL`).
    IstioMutual,
}
