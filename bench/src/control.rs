//! A controller for node proxies under test: tells them of the two pods (and, for memory, of a crowd), signs what
//! they ask for. Istio's own protocols, so that ztunnel and our agent are driven alike.
//!
//! It listens inside each proxy's namespace, on loopback, and believes everyone: only what is measured is there.

mod ca;
pub(crate) mod hostile;
pub(crate) mod mesh;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use testkit::envoy::Credentials;
use testkit::netns::{Netns, NetnsError};
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Extensions, Status};
use xds::node::NodeInfo;
use xds::server::{Control, Publisher, Server};

use self::ca::Ca;
use self::hostile::{Harm, Hostile};

/// Where it is, seen from a proxy.
const AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15012);

/// Why the controller could not be had.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// Its own key or certificates.
    #[error("the controller's certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// Its files, sockets or threads.
    #[error("the controller: {0}")]
    Io(#[from] io::Error),
    /// Its TLS.
    #[error("the controller's TLS: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// A proxy's namespace.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
}

/// The controller of one variant; gone with this value.
#[derive(Debug)]
pub(crate) struct Controller {
    runtime: Runtime,
    publisher: Arc<Publisher>,
    ca: Arc<Ca>,
    /// PEM file of the roots that vouch for it.
    pub roots: PathBuf,
    /// File with a token; any will do.
    pub token: PathBuf,
}

impl Controller {
    /// Knows the two pods; listens nowhere yet.
    pub(crate) fn start(folder: &Path) -> Result<Self, ControlError> {
        let runtime = runtime()?;
        let publisher = Arc::new(Publisher::new([MESH_SETTINGS, AUTHORIZATION, ADDRESS]));
        publisher.apply(mesh::pods());
        let ca = Arc::new(Ca::new()?);
        let (roots, token) = (folder.join("controller-roots.pem"), folder.join("controller-token"));
        fs::write(&roots, ca.root())?;
        fs::write(&token, "bench")?;
        Ok(Self { runtime, publisher, ca, roots, token })
    }

    /// Its address, for a proxy in a namespace where it [listens](Self::listen).
    pub(crate) fn address() -> String {
        format!("https://{AT}")
    }

    /// Listens in this namespace too.
    pub(crate) fn listen(&self, namespace: &Netns) -> Result<(), ControlError> {
        self.serve(namespace, Server::new(Arc::new(Everyone(self.publisher.clone()))).into_service())
    }

    /// Ends all streams, and from now on answers in these namespaces as one who means harm, or as before.
    pub(crate) fn turn(&mut self, harm: Option<Harm>, namespaces: &[&Netns]) -> Result<(), ControlError> {
        // Its sockets are closed when this returns: the next ones are bound to the same address.
        std::mem::replace(&mut self.runtime, runtime()?).shutdown_timeout(Duration::from_secs(5));
        for namespace in namespaces {
            match harm {
                Some(harm) => {
                    self.serve(namespace, AggregatedDiscoveryServiceServer::new(Hostile::new(harm)))?
                }
                None => self.listen(namespace)?,
            }
        }
        Ok(())
    }

    fn serve<S: AggregatedDiscoveryService>(
        &self,
        namespace: &Netns,
        service: AggregatedDiscoveryServiceServer<S>,
    ) -> Result<(), ControlError> {
        let listener = namespace.run(|| std::net::TcpListener::bind(AT))??;
        listener.set_nonblocking(true)?;
        let (certificate, key) = self.ca.server(AT.ip())?;
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let serve = tonic::transport::Server::builder()
            .tls_config(tls)?
            .add_service(service)
            .add_service(self.ca.clone().into_service());
        let _inside = self.runtime.enter();
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
        self.runtime.spawn(async move {
            if let Err(error) = serve.serve_with_incoming(incoming).await {
                eprintln!("bench: the controller: {error}");
            }
        });
        Ok(())
    }

    /// Tells of those who mean harm.
    pub(crate) fn strangers(&self) {
        self.publisher.apply(mesh::strangers());
    }

    /// A certificate of the mesh.
    pub(crate) fn issue(&self, id: &str) -> Result<Credentials, ControlError> {
        Ok(self.ca.issue(id)?)
    }

    /// Tells of so many pods more at the server's place, each with an address of its own.
    pub(crate) fn replicas(&self, addresses: &[IpAddr]) {
        self.publisher.apply(mesh::replicas(addresses));
    }

    /// Tells all proxies of so many workloads more.
    pub(crate) fn crowd(&self, workloads: u32) {
        self.publisher.apply(mesh::crowd(workloads));
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Shows everything to everyone.
struct Everyone(Arc<Publisher>);

impl Control for Everyone {
    type Caller = ();

    async fn authenticate(&self, _: &MetadataMap, _: &Extensions) -> Result<(), Status> {
        Ok(())
    }

    /// All are the same caller here.
    fn streams_of(&self, (): &()) -> usize {
        usize::MAX
    }

    fn view(&self, (): &(), _: &NodeInfo) -> Result<Arc<Publisher>, Status> {
        Ok(self.0.clone())
    }
}
