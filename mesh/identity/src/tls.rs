//! Cryptographic choices, all of them: provider (aws-lc), TLS 1.3 alone, AES-GCM suites, key-exchange groups, ALPN
//! `h2`, no SNI, no resumption. Certificates come in, rustls configurations go out; nothing else in the mesh names a
//! suite or a group.

use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use model::identity::Identity;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName};
use thiserror::Error;

use crate::bundle::{CertificateBundle, RootBundle};
use crate::revocation::Revocations;
use crate::verify::{ClientOfTrustDomain, ExpectedServer, TrustDomains, check_chain};

/// The one application protocol inside a tunnel and towards the controller.
const ALPN: &[u8] = b"h2";

/// AES-256 first: on machines with AES instructions AES-128 gains nothing that can be measured. No ChaCha, as
/// ztunnel and Envoy are set.
static SUITES: [SupportedCipherSuite; 2] =
    [cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];

/// Which key-exchange groups are offered, in which order. A rustls server takes the client's first choice that it
/// has, so the order matters at the client, the set at both ends. Costs: `docs/decisions/0002-key-exchange.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyExchange {
    /// X25519, then the NIST curves, then the hybrid for peers that have nothing else.
    #[default]
    X25519,
    /// The post-quantum hybrid X25519MLKEM768 where the peer has it, else as [`Self::X25519`].
    Hybrid,
    /// The hybrid alone (Istio's `COMPLIANCE_POLICY=pqc`); peers without it are refused.
    HybridOnly,
}

/// A key exchange by a name that is none of the three.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no key exchange: use x25519, hybrid or hybrid-only")]
pub struct UnknownKeyExchange(pub String);

/// What an operator may choose.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// Groups for the key exchange.
    pub key_exchange: KeyExchange,
    /// Whom a server of this process accepts beside its own trust domain; the handle stays live.
    pub trust_domains: TrustDomains,
    /// Certificates that count no more; the handle stays live.
    pub revocations: Revocations,
    /// Whether session secrets may be taken out of a connection (for kernel TLS); off unless asked for.
    pub secret_extraction: bool,
}

/// Makes configurations. One a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    settings: TlsSettings,
}

/// A root bundle made ready: shared by all identities of a process.
#[derive(Debug, Clone)]
pub struct Trust {
    bundle: RootBundle,
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// One identity, ready to serve and to connect. Cheap to clone out of its `Arc`s; replaced, never changed.
#[derive(Debug)]
pub struct Credentials {
    bundle: Arc<CertificateBundle>,
    trust: Trust,
    server: Arc<ServerConfig>,
    /// What all connections share; each gets a clone with a verifier of its own.
    client: ClientConfig,
    algorithms: WebPkiSupportedAlgorithms,
    revocations: Revocations,
}

/// Why no configuration could be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The root bundle holds no usable root.
    #[error("the root bundle cannot be used: {0}")]
    Roots(String),
    /// The key is of a kind TLS cannot use, or does not fit the certificate.
    #[error("the certificate and its key cannot be used for TLS: {0}")]
    Key(rustls::Error),
    /// The provider refused the suites; does not happen with those chosen here.
    #[error("the cryptographic provider refused its settings: {0}")]
    Provider(rustls::Error),
}

impl FromStr for KeyExchange {
    type Err = UnknownKeyExchange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "x25519" => Ok(Self::X25519),
            "hybrid" => Ok(Self::Hybrid),
            "hybrid-only" | "pqc" => Ok(Self::HybridOnly),
            _ => Err(UnknownKeyExchange(text.to_owned())),
        }
    }
}

impl KeyExchange {
    fn groups(self) -> Vec<&'static dyn SupportedKxGroup> {
        use kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
        match self {
            Self::X25519 => vec![X25519, SECP256R1, SECP384R1, X25519MLKEM768],
            Self::Hybrid => vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
            Self::HybridOnly => vec![X25519MLKEM768],
        }
    }
}

/// The signature algorithms accepted in certificates and handshakes: all of the provider's, because a plugged-in
/// authority may be RSA or ECDSA.
pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// The server name to hand to rustls for a connection made with [`Credentials::client_config`]: it is neither sent
/// nor looked at, as the peer is known by its identity.
pub fn no_server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
}

impl Tls {
    /// Configurations as `settings` say.
    pub fn new(settings: TlsSettings) -> Self {
        let provider = CryptoProvider {
            cipher_suites: SUITES.to_vec(),
            kx_groups: settings.key_exchange.groups(),
            ..aws_lc_rs::default_provider()
        };
        Self { provider: Arc::new(provider), settings }
    }

    /// The accepted trust domains, to be changed while running.
    pub fn trust_domains(&self) -> &TrustDomains {
        &self.settings.trust_domains
    }

    /// The revoked certificates, to be changed while running.
    pub fn revocations(&self) -> &Revocations {
        &self.settings.revocations
    }

    /// Makes a root bundle ready for use.
    ///
    /// # Errors
    /// [`TlsError::Roots`] if a root cannot be parsed or there is none.
    pub fn trust(&self, bundle: RootBundle) -> Result<Trust, TlsError> {
        let store = Arc::new(root_store(&bundle)?);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&self.provider))
                .build()
                .map_err(|error| TlsError::Roots(error.to_string()))?;
        Ok(Trust { bundle, store, clients })
    }

    /// Makes a certificate ready to serve and to connect, trusting `trust` (usually the newest bundle seen, which may
    /// be newer than the certificate's own).
    ///
    /// # Errors
    /// [`TlsError::Key`] if certificate and key do not fit.
    pub fn credentials(
        &self,
        bundle: Arc<CertificateBundle>,
        trust: &Trust,
    ) -> Result<Credentials, TlsError> {
        let key = self.certified_key(bundle.chain().to_vec(), bundle.key().der())?;
        let own = Arc::new(SingleCertAndKey::from(key));
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = ClientOfTrustDomain {
            chain: Arc::clone(&trust.clients),
            own: bundle.identity().trust_domain().clone(),
            trust_domains: self.settings.trust_domains.clone(),
            revocations: self.settings.revocations.clone(),
        };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Provider)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesServerCert>);
        self.harden_server(&mut server);
        let revocations = self.settings.revocations.clone();
        let nobody = ExpectedServer {
            roots: Arc::clone(&trust.store),
            algorithms,
            expected: Arc::new([]),
            revocations: revocations.clone(),
        };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(nobody))
            .with_client_cert_resolver(own);
        self.harden_client(&mut client);
        client.enable_sni = false;
        Ok(Credentials {
            bundle,
            trust: trust.clone(),
            server: Arc::new(server),
            client,
            algorithms,
            revocations,
        })
    }

    /// A server that asks for no client certificate (callers prove themselves by tokens): the controller's own.
    ///
    /// # Errors
    /// [`TlsError::Provider`], which does not happen with the choices made here.
    pub fn token_server(
        &self,
        certificate: Arc<dyn ResolvesServerCert>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        self.harden_server(&mut server);
        Ok(Arc::new(server))
    }

    /// A client without a certificate that verifies the server's DNS name or address against `roots`, and sends it
    /// as SNI: towards the controller.
    ///
    /// # Errors
    /// [`TlsError::Roots`] if there is no usable root.
    pub fn token_client(&self, roots: &RootBundle) -> Result<Arc<ClientConfig>, TlsError> {
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Provider)?
            .with_root_certificates(root_store(roots)?)
            .with_no_client_auth();
        self.harden_client(&mut client);
        Ok(Arc::new(client))
    }

    /// A chain with its key, checked to fit, as rustls' resolvers hand it out.
    ///
    /// # Errors
    /// [`TlsError::Key`] if they do not fit, or the key is of no kind TLS uses.
    pub fn certified_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, TlsError> {
        CertifiedKey::from_der(chain, key, &self.provider).map_err(TlsError::Key)
    }

    /// A number between 0 and 1 from the provider's generator, to spread retries by.
    pub fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        // Without randomness retries are not spread; keys could not be made either, and that is reported.
        if self.provider.secure_random.fill(&mut bytes).is_err() {
            return 0.5;
        }
        f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
    }

    fn harden_server(&self, server: &mut ServerConfig) {
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = self.settings.secret_extraction;
    }

    fn harden_client(&self, client: &mut ClientConfig) {
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = self.settings.secret_extraction;
    }
}

impl Trust {
    /// The roots it was made of.
    pub fn bundle(&self) -> &RootBundle {
        &self.bundle
    }

    /// Whether a peer with these roots accepts the certificate at `now`.
    pub fn vouches_for(&self, bundle: &CertificateBundle, now: SystemTime) -> bool {
        bundle.chain().split_first().is_some_and(|(leaf, intermediates)| {
            check_chain(leaf, intermediates, self.bundle.certificates(), now).is_ok()
        })
    }
}

impl Credentials {
    /// Whom they prove.
    pub fn identity(&self) -> &Identity {
        self.bundle.identity()
    }

    /// The certificate, key and the roots it came with.
    pub fn bundle(&self) -> &Arc<CertificateBundle> {
        &self.bundle
    }

    /// The roots that peers are verified against.
    pub fn roots(&self) -> &RootBundle {
        &self.trust.bundle
    }

    /// For accepting tunnels: the client's chain and trust domain are verified.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For one tunnel: the server must prove to be one of `expected`. Costs well under a microsecond and shares all
    /// else, so make one per tunnel. Use with [`no_server_name`].
    pub fn client_config(&self, expected: impl Into<Arc<[Identity]>>) -> Arc<ClientConfig> {
        let mut client = self.client.clone();
        client.dangerous().set_certificate_verifier(Arc::new(ExpectedServer {
            roots: Arc::clone(&self.trust.store),
            algorithms: self.algorithms,
            expected: expected.into(),
            revocations: self.revocations.clone(),
        }));
        Arc::new(client)
    }
}

fn root_store(bundle: &RootBundle) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in bundle.certificates() {
        store.add(root.clone()).map_err(|error| TlsError::Roots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(TlsError::Roots("it is empty".to_owned()));
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_exchanges_have_names() {
        for (name, expected) in [
            ("x25519", Ok(KeyExchange::X25519)),
            ("hybrid", Ok(KeyExchange::Hybrid)),
            ("hybrid-only", Ok(KeyExchange::HybridOnly)),
            ("pqc", Ok(KeyExchange::HybridOnly)),
            ("X25519", Err(UnknownKeyExchange("X25519".to_owned()))),
            ("", Err(UnknownKeyExchange(String::new()))),
        ] {
            assert_eq!(name.parse(), expected);
        }
    }
}
