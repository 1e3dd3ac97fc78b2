//! One end of a bare tunnel, for measuring against ztunnel and Envoy (docs/decisions/0001-own-framing.md):
//!
//! ```text
//! tunnel_end certs  --dir D                                   a CA and one leaf for both ends
//! tunnel_end server --listen 10.0.0.2:15008 --certs D         mTLS, connects to each CONNECT's authority
//! tunnel_end client --listen 10.0.0.1:9000 --peer 10.0.0.2:15008 --authority 10.0.0.2:8080 --certs D
//! ```
//!
//! Each of `--threads` has its own runtime, its own listener (SO_REUSEPORT) and its own tunnels.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use hbone::account::{Account, AccountLimits};
use hbone::connection::{Connection, ConnectionId};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::pool::Pool;
use hbone::transport::Tls;
use hbone::tunnel::{self, Client};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Writes ca.pem, cert.pem and key.pem.
    Certs {
        /// Where to.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Accepts plain TCP and opens a CONNECT for each connection.
    Client {
        #[command(flatten)]
        end: EndArgs,
        /// The server end, ip:port.
        #[arg(long)]
        peer: SocketAddr,
        /// What to CONNECT to.
        #[arg(long)]
        authority: String,
    },
    /// Accepts tunnels and connects to the authority of each CONNECT.
    Server {
        #[command(flatten)]
        end: EndArgs,
    },
}

#[derive(Args, Clone)]
struct EndArgs {
    /// ip:port.
    #[arg(long)]
    listen: SocketAddr,
    /// A folder with ca.pem, cert.pem and key.pem, for what the following do not name.
    #[arg(long, default_value = ".")]
    certs: PathBuf,
    /// The CA's certificates, PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Our chain, PEM, leaf first.
    #[arg(long)]
    cert: Option<PathBuf>,
    /// Our key, PEM.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Threads, each with its own listener and tunnels.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> Result<(), Failure> {
    match Command::parse().mode {
        Mode::Certs { dir } => write_certs(&dir),
        Mode::Client { end, peer, authority } => {
            let config = Arc::new(client_config(&end)?);
            on_threads(&end.clone(), move || run_client(end.clone(), config.clone(), peer, authority.clone()))
        }
        Mode::Server { end } => {
            let config = Arc::new(server_config(&end)?);
            on_threads(&end.clone(), move || run_server(end.clone(), config.clone()))
        }
    }
}

fn on_threads<F>(end: &EndArgs, run: impl Fn() -> F + Clone + Send + 'static) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + 'static,
{
    let threads: Vec<_> = (0..end.threads)
        .map(|_| {
            let run = run.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(tokio::runtime::LocalOptions::default())?;
                runtime.block_on(run())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into())?)
}

async fn run_client(
    end: EndArgs,
    config: Arc<ClientConfig>,
    peer: SocketAddr,
    authority: String,
) -> Result<(), Failure> {
    let listener = listen(end.listen)?;
    let account = Account::new(AccountLimits::default());
    let pool: Pool<SocketAddr, String> = Pool::new(&Limits::default());
    let idle = pool.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            idle.release_idle();
        }
    });
    let shared = std::rc::Rc::new((pool, config, authority));
    loop {
        let (socket, _) = listener.accept().await?;
        let connection = Connection::new(ConnectionId::random(), socket, &account)?;
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            // The opening is boxed and gives back the splice alone, so that a connection that only carries traffic keeps
            // nothing of what it took to open it.
            let opening = Box::pin(async move {
                let (pool, config, authority) = &*shared;
                match pool.connect(&peer, || dial(peer, config.clone()), authority, &Headers::new()).await {
                    Ok(opened) => Some(opened.stream.splice(connection)),
                    Err(err) => {
                        eprintln!("{err}");
                        None
                    }
                }
            });
            if let Some(splice) = opening.await {
                splice.await;
            }
        });
    }
}

async fn dial(peer: SocketAddr, config: Arc<ClientConfig>) -> Result<Client, String> {
    let socket = TcpStream::connect(peer).await.map_err(|err| err.to_string())?;
    let limits = Limits::default();
    let name = ServerName::IpAddress(peer.ip().into());
    let tls = Tls::connect(socket, config, name, &limits, &Account::new(AccountLimits::default()))
        .await
        .map_err(|err| err.to_string())?;
    let (client, driver) = tunnel::client(tls, limits);
    tokio::task::spawn_local(async move {
        let why = driver.await;
        eprintln!("tunnel ended: {why}");
    });
    Ok(client)
}

async fn run_server(end: EndArgs, config: Arc<ServerConfig>) -> Result<(), Failure> {
    let listener = listen(end.listen)?;
    let account = Account::new(AccountLimits::default());
    loop {
        let (socket, _) = listener.accept().await?;
        let (config, account) = (config.clone(), account.clone());
        tokio::task::spawn_local(async move {
            match Tls::accept(socket, config, &Limits::default(), &account).await {
                Ok(tls) => serve(tls, account).await,
                Err(err) => eprintln!("{err}"),
            }
        });
    }
}

async fn serve(tls: Tls, account: Arc<Account>) {
    let (mut server, driver) = tunnel::server(tls, Limits::default());
    tokio::task::spawn_local(driver);
    while let Some(request) = server.accept().await {
        let account = account.clone();
        tokio::task::spawn_local(async move {
            let opened = Box::pin(async move {
                let id = request.connection().unwrap_or_else(ConnectionId::random);
                match TcpStream::connect(request.authority()).await {
                    Ok(socket) => {
                        let connection = Connection::new(id, socket, &account).ok()?;
                        Some(request.accept(&Headers::new()).splice(connection))
                    }
                    Err(err) => {
                        eprintln!("{}: {err}", request.authority());
                        request.refuse(503, &Headers::new());
                        None
                    }
                }
            });
            if let Some(splice) = opened.await {
                splice.await;
            }
        });
    }
}

fn read_chain(
    end: &EndArgs,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let path = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| end.certs.join(name));
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path(&end.ca, "ca.pem"))? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(path(&end.cert, "cert.pem"))?.collect::<Result<_, _>>()?;
    Ok((roots, chain, PrivateKeyDer::from_pem_file(path(&end.key, "key.pem"))?))
}

fn server_config(end: &EndArgs) -> Result<ServerConfig, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (roots, chain, key) = read_chain(end)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_secret_extraction = true;
    Ok(config)
}

fn client_config(end: &EndArgs) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (roots, chain, key) = read_chain(end)?;
    let verifier = Arc::new(ChainOnly { roots, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_secret_extraction = true;
    config.enable_sni = false;
    Ok(config)
}

/// Verifies the chain; which SPIFFE id it names is no matter here.
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = rustls::server::ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn write_certs(dir: &Path) -> Result<(), Failure> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?;
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let mut leaf = rcgen::CertificateParams::default();
    let name = "spiffe://cluster.local/ns/default/sa/default".try_into()?;
    leaf.subject_alt_names = vec![rcgen::SanType::URI(name)];
    leaf.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = leaf.signed_by(&key, &issuer)?;
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("ca.pem"), ca.pem())?;
    std::fs::write(dir.join("cert.pem"), cert.pem())?;
    std::fs::write(dir.join("key.pem"), key.serialize_pem())?;
    Ok(())
}
