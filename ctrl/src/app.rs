//! The controller put together: the only file that knows every part.

use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use daemon::http;
use daemon::log::Log;
use daemon::metrics::Metrics;
use daemon::readiness::Readiness;
use daemon::shutdown::Shutdown;
use daemon::tasks::Tasks;
use identity::tls::{Tls, TlsSettings};
use identity::verify::TrustDomains;
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time;
use tonic::transport::server::Router;
use xds::server::Server;

use crate::admin::Admin;
use crate::ca::authorize::TokenFolder;
use crate::ca::listen::accept_tls;
use crate::ca::own::{OwnNames, server_config};
use crate::ca::root::Authority;
use crate::ca::service::CaService;
use crate::config::Config;
use crate::core::Core;
use crate::serve::Gate;
use crate::serve::certificates::{CaMetrics, Counted};
use crate::serve::convergence::{Published, measure};
use crate::serve::metrics::XdsMetrics;
use crate::source::Batch;
use crate::source::file::Files;
use crate::source::last_good::LastGood;

/// The socket of operators, in the state folder.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// What readiness waits for.
const CONFIGURATION: &str = "configuration";
/// The largest request for a certificate, in bytes: one for a large RSA key and its metadata.
const MAX_CALL: usize = 64 * 1024;
/// Between PINGs to a proxy that is silent, and how long its answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A controller whose sockets are open.
pub struct App {
    config: Config,
    core: Core,
    admin: Admin,
    metrics: XdsMetrics,
    listener: TcpListener,
    router: Router,
    tls: Arc<rustls::ServerConfig>,
    files: Files,
    last_good: LastGood,
    tasks: Tasks,
}

/// Runs the controller until it is told to end.
///
/// # Errors
/// What it cannot start without, and what to do about it.
pub async fn run(config: Config, log: Log) -> Result<(), Box<dyn Error>> {
    let app = App::bind(config, Some(log)).await?;
    let shutdown = Shutdown::default();
    let signals = shutdown.clone();
    let signalled = async move {
        match signals.signalled().await {
            Ok(cause) => tracing::info!(cause, "ending"),
            Err(error) => tracing::error!(%error, "signals cannot be waited for"),
        }
    };
    tokio::join!(app.run(shutdown), signalled);
    Ok(())
}

impl App {
    /// Opens everything; nothing is served yet.
    ///
    /// # Errors
    /// What is missing.
    pub async fn bind(config: Config, log: Option<Log>) -> Result<Self, Box<dyn Error>> {
        private_folder(&config.state)?;
        let trust_domain = config.context.settings.trust_domain.clone();
        let domains = [&trust_domain].into_iter().chain(&config.context.settings.trust_domain_aliases);
        let tls = Tls::new(TlsSettings {
            key_exchange: config.key_exchange,
            trust_domains: TrustDomains::new(domains.map(ToString::to_string)),
            ..TlsSettings::default()
        });
        let plugged = config.plugged_authority.as_deref();
        let authority = Arc::new(Authority::open(&config.state, plugged, &trust_domain, SystemTime::now())?);
        let listener =
            TcpListener::bind(config.listen).await.map_err(|error| cannot_listen(config.listen, &error))?;
        let mut names = config.names.clone();
        names.push(listener.local_addr()?.ip().to_string());
        let server_tls = server_config(&tls, authority.clone(), OwnNames::with(names))?;

        let metrics = Metrics::default();
        let xds_metrics = XdsMetrics::default();
        xds_metrics.register(&metrics);
        let core = Core::new(config.context.clone());
        let tokens = Arc::new(TokenFolder::new(&config.tokens, trust_domain.clone()));
        let on_node = {
            let core = core.clone();
            move |node: &str, identity: &_| core.on_node(node, identity)
        };
        let ca_metrics = CaMetrics::default();
        ca_metrics.register(&metrics, authority.validity().not_after);
        let ca = CaService::new(authority, trust_domain, config.lifetimes, tokens.clone(), on_node);
        let xds = Server::new(Arc::new(Gate::new(tokens, core.clone(), xds_metrics.clone())));
        let readiness = Readiness::default();
        readiness.pending(CONFIGURATION);
        let admin = Admin { core: core.clone(), clients: xds.clients(), readiness, metrics, log };
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_service(
                IstioCertificateServiceServer::new(Counted::new(ca, ca_metrics))
                    .max_decoding_message_size(MAX_CALL),
            )
            .add_service(xds.into_service());
        let files = Files::watch(config.sources.clone(), config.objects.clone())?;
        let last_good = LastGood::open(&config.state);
        let tasks = Tasks::default();
        Ok(Self {
            config,
            core,
            admin,
            metrics: xds_metrics,
            listener,
            router,
            tls: server_tls,
            files,
            last_good,
            tasks,
        })
    }

    /// Where xDS and certificates are served.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What the controller holds.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// What operators see.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Serves until told to end.
    pub async fn run(mut self, shutdown: Shutdown) {
        self.serve_admin().await;
        let Some(first) = self.files.next().await else { return };
        let (publish, published) = watch::channel(None);
        let measured = measure(published, self.admin.clients.clone(), self.metrics.clone());
        self.tasks.spawn("convergence", measured);
        // Before anybody is served: a proxy that came back would take what is not there yet for gone.
        take(&self.core, &self.metrics, &publish, &mut self.last_good, first);
        self.admin.readiness.done(CONFIGURATION);
        tracing::info!(address = %self.config.listen, "serving");

        let Self { core, metrics, mut files, mut last_good, listener, router, tls, tasks, config, .. } = self;
        let ending = shutdown.clone();
        let served = async move {
            let incoming = accept_tls(listener, tls);
            let end = async move { ending.begun().await };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, end).await {
                tracing::error!(%error, "the server of xDS and certificates ended");
            }
        };
        let (done, finished) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("grpc", async move {
            served.await;
            // Nobody may be waiting any more.
            let _ = done.send(());
        });
        loop {
            tokio::select! {
                () = shutdown.begun() => break,
                batch = files.next() => match batch {
                    Some(batch) => take(&core, &metrics, &publish, &mut last_good, batch),
                    None => {
                        tracing::error!("the files are no longer watched; what is in force stays");
                        shutdown.begun().await;
                        break;
                    }
                },
            }
        }
        core.close();
        if time::timeout(config.grace, finished).await.is_err() {
            tracing::warn!("calls were cut off at the end of the grace period");
        }
        tasks.stop().await;
    }

    async fn serve_admin(&self) {
        let socket = self.config.state.join(ADMIN_SOCKET);
        match http::serve_unix(&socket, self.admin.routes()) {
            Ok(serving) => {
                // The folder may be one that others can look into.
                let owner_only = std::fs::Permissions::from_mode(0o600);
                if let Err(error) = std::fs::set_permissions(&socket, owner_only) {
                    tracing::warn!(%error, socket = %socket.display(), "others may use the admin socket");
                }
                self.tasks.spawn("admin", serving);
            }
            Err(error) => {
                tracing::error!(%error, socket = %socket.display(), "cannot serve the admin socket")
            }
        }
        match TcpListener::bind(self.config.monitoring).await {
            Ok(listener) => {
                self.tasks.spawn("metrics", http::serve_tcp(listener, self.admin.public_routes()))
            }
            // Configuration without metrics is better than none.
            Err(error) => tracing::error!(
                %error, address = %self.config.monitoring,
                "metrics are not served; choose another address with --monitoring-addr"
            ),
        }
    }
}

/// Takes a batch: publishes it, then keeps what must outlive a restart.
fn take(
    core: &Core,
    metrics: &XdsMetrics,
    published: &watch::Sender<Published>,
    last_good: &mut LastGood,
    batch: Batch,
) {
    let begun = time::Instant::now();
    let batch = last_good.pass(batch);
    let applied = core.apply(&batch);
    let took = begun.elapsed();
    if let Some(revision) = applied.revision {
        published.send_replace(Some((revision, begun)));
    }
    last_good.flush();
    metrics.batches.inc();
    metrics.revision.set(core.ours.revision() as f64);
    {
        let held = core.read();
        metrics.services.set(i64::try_from(held.compiler.index().service_count()).unwrap_or(i64::MAX));
        let errors = held.findings.iter().filter(|finding| finding.level == manifest::Level::Error).count();
        metrics.errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
    }
    tracing::debug!(
        upserted = batch.upserted.len(),
        removed = batch.removed.len(),
        translated = applied.translated,
        revision = applied.revision,
        ?took,
        "configuration taken"
    );
}

fn private_folder(path: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        format!("cannot make the state folder {}: {error}; choose another with --state", path.display())
    })
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    format!("cannot listen on {address}: {error}; choose another address with --listen")
}
