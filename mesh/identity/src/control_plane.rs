//! The way to the controller: a gRPC channel over TLS whose server is verified by name against a root file. The
//! certificate client uses it, and so may whoever else talks to the same controller (xDS).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::bundle::RootBundle;
use crate::tls::Tls;
use crate::verify::explain;

/// HTTP/2 PING interval and patience towards the controller: a dead one is noticed within 40 s.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// Where the controller is and how it is verified.
#[derive(Debug, Clone)]
pub struct ControlPlaneSettings {
    /// `https://HOST:PORT`.
    pub address: String,
    /// PEM file with the roots that vouch for the controller. Read at every connect, so a replaced file counts.
    pub root_file: PathBuf,
    /// The name its certificate must have, where that is not the address's host.
    pub server_name: Option<String>,
    /// How long TCP and TLS may take together.
    pub connect_timeout: Duration,
}

/// Why the settings cannot work. Failures to connect come later, as the channel's errors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlPlaneError {
    /// The address is not of the form needed.
    #[error("{0:?} is no controller address: use https://HOST:PORT")]
    Address(String),
    /// The name to verify is no DNS name and no address.
    #[error("{0:?} cannot be the controller's name: use a DNS name or an IP address")]
    Name(String),
}

impl ControlPlaneSettings {
    /// The usual settings for an address and a root file.
    pub fn new(address: impl Into<String>, root_file: impl Into<PathBuf>) -> Self {
        Self {
            address: address.into(),
            root_file: root_file.into(),
            server_name: None,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// A controller that can be reached: the settings, checked, and what is needed to verify it.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    endpoint: Endpoint,
    dialer: Arc<Dialer>,
}

impl ControlPlane {
    /// Checks the settings; connects nowhere yet.
    ///
    /// # Errors
    /// [`ControlPlaneError`] if they make no sense.
    pub fn new(tls: &Tls, settings: &ControlPlaneSettings) -> Result<Self, ControlPlaneError> {
        let malformed = || ControlPlaneError::Address(settings.address.clone());
        let address: Uri = settings.address.parse().map_err(|_| malformed())?;
        let authority = address.authority().cloned().ok_or_else(malformed)?;
        let (Some("https"), Some(port)) = (address.scheme_str(), address.port_u16()) else {
            return Err(malformed());
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = settings.server_name.clone().unwrap_or_else(|| host.clone());
        let server_name = ServerName::try_from(name.clone()).map_err(|_| ControlPlaneError::Name(name))?;
        let dialer = Dialer {
            tls: tls.clone(),
            root_file: settings.root_file.clone(),
            target: (host, port),
            server_name,
        };
        // TLS is ours (`tls` alone chooses suites), so tonic must believe in plain HTTP; the origin restores the
        // scheme that the far side sees.
        let plain = format!("http://{authority}");
        let origin = format!("https://{authority}").parse().map_err(|_| malformed())?;
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|_| malformed())?
            .origin(origin)
            .connect_timeout(settings.connect_timeout)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        Ok(Self { endpoint, dialer: Arc::new(dialer) })
    }

    /// A channel that connects when it is first used and again whenever the connection is lost.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let dialer = self.dialer.clone();
        self.endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| dial(Arc::clone(&dialer))))
    }

    /// A channel over a new connection, for what should not share one that may be stuck.
    ///
    /// # Errors
    /// What stands between us and the controller.
    pub fn connect(&self) -> impl Future<Output = Result<Channel, tonic::transport::Error>> + Send + use<> {
        let Self { endpoint, dialer } = self.clone();
        async move {
            endpoint.connect_with_connector(tower::service_fn(move |_: Uri| dial(Arc::clone(&dialer)))).await
        }
    }
}

#[derive(Debug)]
struct Dialer {
    tls: Tls,
    root_file: PathBuf,
    target: (String, u16),
    server_name: ServerName<'static>,
}

async fn dial(dialer: Arc<Dialer>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let roots = tokio::fs::read_to_string(&dialer.root_file).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "cannot read the controller's root certificate {}: {error}; it is mounted by Kubernetes or written \
                 by `lateen up`",
                dialer.root_file.display()
            ),
        )
    })?;
    let config = RootBundle::from_pem(&roots)
        .map_err(io::Error::other)
        .and_then(|roots| dialer.tls.token_client(&roots).map_err(io::Error::other))?;
    let (host, port) = &dialer.target;
    let tcp = TcpStream::connect((host.as_str(), *port)).await?;
    tcp.set_nodelay(true)?;
    let stream = TlsConnector::from(config).connect(dialer.server_name.clone(), tcp).await.map_err(said)?;
    Ok(TokioIo::new(stream))
}

/// A failed handshake in words that say what to look at.
fn said(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(cause) => io::Error::new(error.kind(), explain(cause)),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::TlsSettings;

    #[tokio::test]
    async fn refuses_what_is_no_address() {
        let tls = Tls::new(TlsSettings::default());
        for (address, name, expected) in [
            ("https://istiod.istio-system.svc:15012", None, Ok(())),
            ("https://[::1]:15012", None, Ok(())),
            ("https://10.0.0.1:15012", Some("istiod.istio-system.svc"), Ok(())),
            ("http://istiod:15010", None, Err(true)),
            ("https://istiod", None, Err(true)),
            ("istiod:15012", None, Err(true)),
            ("", None, Err(true)),
            ("https://istiod:15012", Some("a b"), Err(false)),
        ] {
            let settings = ControlPlaneSettings {
                server_name: name.map(str::to_owned),
                ..ControlPlaneSettings::new(address, "/nonexistent")
            };
            let outcome = ControlPlane::new(&tls, &settings)
                .map(|_| ())
                .map_err(|error| matches!(error, ControlPlaneError::Address(_)));
            assert_eq!(outcome, expected, "{address} {name:?}");
        }
    }
}
