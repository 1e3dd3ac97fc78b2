//! The controller's own server certificate, signed by its own authority, and the TLS configuration that serves it.
//! It renews itself: the handshake that finds it past half of its life, or another authority in force, has it signed anew, which takes some 100 µs and
//! needs no task.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use identity::bundle::Validity;
use identity::key::PrivateKey;
use identity::tls::Tls;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use thiserror::Error;

use super::issue::{self, IssueError, Lifetimes, Subject};
use super::keyring::Keyring;

/// How long the controller's certificate lives.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The names every controller answers to: Istio's, for its own ztunnel, and this machine's.
const DEFAULT_NAMES: [&str; 3] =
    ["istiod.istio-system.svc", "istiod.istio-system.svc.cluster.local", "localhost"];

/// Names of the controller's certificate.
#[derive(Debug, Clone)]
pub struct OwnNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

/// Why the controller has no certificate.
#[derive(Debug, Error)]
pub enum OwnError {
    /// It could not be signed.
    #[error("cannot issue the controller's own certificate: {0}")]
    Issue(#[from] IssueError),
    /// No key could be made.
    #[error("cannot issue the controller's own certificate: {0}")]
    Key(#[from] identity::key::KeyError),
    /// rustls refused it.
    #[error("cannot serve the controller's own certificate: {0}")]
    Tls(#[from] identity::tls::TlsError),
}

impl Default for OwnNames {
    fn default() -> Self {
        Self {
            dns: DEFAULT_NAMES.map(str::to_owned).to_vec(),
            ips: vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])],
        }
    }
}

impl OwnNames {
    /// The default names and these, each a DNS name or an address.
    pub fn with(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut own = Self::default();
        for name in names {
            let name = name.as_ref();
            match name.parse::<IpAddr>() {
                Ok(ip) if !own.ips.contains(&ip) => own.ips.push(ip),
                Err(_) if !own.dns.iter().any(|known| known == name) => own.dns.push(name.to_owned()),
                _ => {}
            }
        }
        own
    }
}

/// TLS for the controller's gRPC server: no client certificates (callers bring tokens), the certificate always fresh.
///
/// # Errors
/// [`OwnError`] if none can be issued now.
pub fn server_config(
    tls: &Tls,
    keyring: Arc<Keyring>,
    names: OwnNames,
) -> Result<Arc<ServerConfig>, OwnError> {
    let own = OwnCertificate::issue(tls, &keyring, &names, SystemTime::now())?;
    let resolver = Renewing { tls: tls.clone(), keyring, names, own: RwLock::new(own) };
    Ok(tls.token_server(Arc::new(resolver))?)
}

#[derive(Debug)]
struct Renewing {
    tls: Tls,
    keyring: Arc<Keyring>,
    names: OwnNames,
    own: RwLock<OwnCertificate>,
}

#[derive(Debug, Clone)]
struct OwnCertificate {
    key: Arc<CertifiedKey>,
    renew: SystemTime,
    /// Who signed it.
    issuer: String,
}

impl OwnCertificate {
    fn issue(tls: &Tls, keyring: &Keyring, names: &OwnNames, now: SystemTime) -> Result<Self, OwnError> {
        let (issuer, authority) = (keyring.current_print(), keyring.current());
        let limits = Lifetimes { default: LIFETIME, longest: LIFETIME };
        let validity = issue::validity(None, limits, authority.validity(), now)?;
        let key = PrivateKey::generate()?;
        let subject = Subject::Server { dns: &names.dns, ips: &names.ips };
        let leaf = issue::sign(&authority, &key.public(), subject, validity)?;
        let chain = [vec![leaf], authority.intermediates.clone()].concat();
        let der = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
        let key = tls.certified_key(chain, der.into())?;
        Ok(Self { key: Arc::new(key), renew: half_life(validity), issuer })
    }
}

impl Renewing {
    fn current(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let issuer = self.keyring.current_print();
        {
            let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
            if now < own.renew && own.issuer == issuer {
                return Arc::clone(&own.key);
            }
        }
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        if own.renew <= now || own.issuer != issuer {
            match OwnCertificate::issue(&self.tls, &self.keyring, &self.names, now) {
                Ok(renewed) => *own = renewed,
                Err(error) => {
                    tracing::error!(%error, "the controller's certificate is not renewed; the old one stays in use");
                    own.renew = now + Duration::from_secs(60);
                    own.issuer = issuer;
                }
            }
        }
        Arc::clone(&own.key)
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(SystemTime::now()))
    }
}

fn half_life(validity: Validity) -> SystemTime {
    let lifetime = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    validity.not_before + lifetime / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::keyring::KeyringSettings;
    use identity::tls::TlsSettings;

    #[test]
    fn renews_itself_at_half_life() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let settings = KeyringSettings::new(folder.path(), "cluster.local");
        let keyring = Arc::new(Keyring::open(settings, now).unwrap());
        let tls = Tls::new(TlsSettings::default());
        let names = OwnNames::with(["ctrl.example", "10.1.2.3", "localhost", "::1"]);
        assert_eq!(names.dns.len(), 4, "{names:?}");
        assert_eq!(names.ips.len(), 3, "{names:?}");
        let own = OwnCertificate::issue(&tls, &keyring, &names, now).unwrap();
        let renewing = Renewing { tls, keyring, names, own: RwLock::new(own.clone()) };
        let day = Duration::from_secs(24 * 3600);
        assert!(Arc::ptr_eq(&renewing.current(now + 3 * day), &own.key));
        let renewed = renewing.current(now + 4 * day);
        assert!(!Arc::ptr_eq(&renewed, &own.key));
        assert!(Arc::ptr_eq(&renewing.current(now + 6 * day), &renewed));
        // With the authority expired the last one stays, and is not tried for at every handshake.
        let later = now + 4000 * day;
        let kept = renewing.current(later);
        assert_eq!(renewing.own.read().unwrap().renew, later + Duration::from_secs(60));
        assert!(Arc::ptr_eq(&kept, &renewing.current(later + Duration::from_secs(30))));
    }
}
