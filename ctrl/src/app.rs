//! The controller put together: this file and its folder alone know every part.

mod backing;
mod kept;

use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemon::files::raise_limit;
use daemon::http;
use daemon::log::Log;
use daemon::metrics::Metrics;
use daemon::ports::listen;
use daemon::readiness::Readiness;
use daemon::shutdown::Shutdown;
use daemon::tasks::{Defect, Tasks};
use futures_util::Stream;
use identity::tls::{Tls, TlsSettings};
use identity::verify::TrustDomains;
use manifest::Batch;
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time;
use tonic::transport::server::Router;
use xds::diagnostics::{Attending, Desk};
use xds::server::Server;

use self::backing::{authority, callers, connect, open_source};
use self::kept::Kept;
use crate::admin::Admin;
use crate::admission;
use crate::ca::listen::{Accepted, Bounds, accept_tls};
use crate::ca::metrics::{CaMetrics, Counted};
use crate::ca::own::{OwnNames, server_config};
use crate::ca::service::{CaService, MAX_CALL};
use crate::ca::upkeep::Upkeep;
use crate::cluster;
use crate::config::{Config, SourceSettings};
use crate::core::Core;
use crate::limits::{LimitMetrics, Limits};
use crate::serve::Gate;
use crate::serve::convergence::{Published, measure};
use crate::serve::diagnostics::Door;
use crate::serve::metrics::XdsMetrics;
use crate::source::Source;
use crate::source::kube::outage::Outage;

/// The socket of operators, in the state folder.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// What readiness waits for.
const CONFIGURATION: &str = "configuration";
/// Between PINGs to a proxy that is silent, and how long its answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Calls of one connection at a time: a proxy has one stream, or asks for eight certificates.
const CALLS: u32 = 16;

/// A controller whose sockets are open.
pub struct App {
    config: Config,
    core: Core,
    admin: Admin,
    metrics: XdsMetrics,
    limits: Limits,
    listener: TcpListener,
    router: Router,
    tls: Arc<rustls::ServerConfig>,
    source: Source,
    kept: Kept,
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
            Ok(cause) => tracing::info!(%cause, "ending"),
            Err(error) => tracing::error!(%error, "signals cannot be waited for"),
        }
    };
    let served = async {
        let outcome = app.run(shutdown.clone()).await;
        // However it came about: nobody is to wait for a signal any more.
        shutdown.begin();
        outcome
    };
    let (outcome, ()) = tokio::join!(served, signalled);
    Ok(outcome?)
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
        let limits = Limits::default();
        let xds_metrics = XdsMetrics::default();
        let client = connect(&config.source).await?;
        let outage = Outage::counting(xds_metrics.source_errors.clone());
        let (keyring, member) = authority(&config, client.as_ref(), &limits, outage).await?;
        let listener = listen(config.listen)
            .map_err(|error| format!("{error}; choose another address with --listen"))?;
        let mut names = config.names.clone();
        names.push(listener.local_addr()?.ip().to_string());
        let server_tls = server_config(&tls, keyring.clone(), OwnNames::with(names))?;

        let metrics = Metrics::default();
        xds_metrics.register(&metrics);
        metrics.register(|all| all.register_collector(Box::new(LimitMetrics(limits.clone()))));
        let core = Core::new(config.context.clone());
        core.set_trust(keyring.trust());
        let tokens = Arc::new(callers(&config, client.as_ref()));
        let on_node = {
            let core = core.clone();
            move |node: &str, identity: &_| core.on_node(node, identity)
        };
        let ca_metrics = CaMetrics::default();
        ca_metrics.register(&metrics);
        let ca = CaService::new(keyring.clone(), tokens.clone(), on_node).counting(limits.clone());
        let attending = Attending::default();
        let desk = Desk::new(Door::new(tokens.clone(), core.clone()), attending.clone());
        let xds = Server::new(Arc::new(Gate::new(tokens, core.clone(), xds_metrics.clone(), limits.clone())));
        let readiness = Readiness::default();
        readiness.pending(CONFIGURATION);
        let upkeep = Upkeep {
            keyring,
            core: core.clone(),
            clients: xds.clients(),
            metrics: ca_metrics.clone(),
            custody: member.as_ref().map(|member| member.custody.clone()),
        };
        let admin =
            Admin { core: core.clone(), clients: xds.clients(), attending, upkeep, readiness, metrics, log };
        let router = server()
            .add_service(
                IstioCertificateServiceServer::new(Counted::new(ca, ca_metrics))
                    .max_decoding_message_size(MAX_CALL),
            )
            .add_service(xds.into_service())
            .add_service(desk.into_service());
        let tasks = Tasks::default();
        let kept = Kept::open(&config.state, member.as_ref(), &core).await;
        let source = open_source(&config.source, member.as_ref())?;
        if let (Some(member), SourceSettings::Kubernetes { waypoints, .. }) = (&member, &config.source) {
            cluster::start(&tasks, member, &core, &admin.upkeep, waypoints.clone(), kept.listen());
        }
        Ok(Self {
            config,
            core,
            admin,
            metrics: xds_metrics,
            limits,
            listener,
            router,
            tls: server_tls,
            source,
            kept,
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
    ///
    /// # Errors
    /// A part that it cannot do without has ended.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), Defect> {
        self.serve_admin().await;
        let first = tokio::select! {
            first = self.source.next() => first.ok_or_else(watch_ended)?,
            () = shutdown.begun() => {
                self.tasks.stop().await;
                return Ok(());
            }
        };
        let (publish, published) = watch::channel(None);
        let measured = measure(published, self.admin.clients.clone(), self.metrics.clone());
        self.tasks.spawn("convergence", measured);
        self.tasks.spawn_lasting("authorities", self.admin.upkeep.clone().run());
        // Before anybody is served: a proxy that came back would take what is not there yet for gone.
        take(&self.core, &self.metrics, &publish, &mut self.kept, first);
        self.serve_admission().await;
        self.admin.readiness.done(CONFIGURATION);
        tracing::info!(address = %self.config.listen, "serving");

        let Self { core, metrics, limits, mut source, mut kept, tasks, config, .. } = self;
        let accepted = accept_tls(self.listener, self.tls, bounds(), limits);
        let mut served = serve_calls(&tasks, accepted, self.router, shutdown.clone());
        let outcome = loop {
            tokio::select! {
                () = shutdown.begun() => break Ok(()),
                defect = tasks.defect(&[]) => break Err(defect),
                _ = &mut served => break Err(Defect("the server of xDS and certificates".into())),
                batch = source.next() => match batch {
                    Some(batch) => take(&core, &metrics, &publish, &mut kept, batch),
                    None => break Err(watch_ended()),
                },
            }
        };
        core.close();
        if outcome.is_ok() && time::timeout(config.grace, served).await.is_err() {
            tracing::warn!("calls were cut off at the end of the grace period");
        }
        tasks.stop().await;
        outcome
    }

    /// Once the objects are known, beside which others are judged.
    async fn serve_admission(&self) {
        let SourceSettings::Kubernetes { webhook, replica, .. } = &self.config.source else { return };
        match listen(*webhook) {
            Ok(listener) => {
                let (core, revision) = (self.core.clone(), replica.revision.clone());
                let (tls, limits) = (self.tls.clone(), self.limits.clone());
                self.tasks
                    .spawn_lasting("admission", admission::serve(listener, tls, core, revision, limits));
            }
            // What is wrong with objects stands in their status too.
            Err(error) => tracing::error!(
                %error, address = %webhook,
                "the admission webhook is not served; choose another address with --webhook-listen"
            ),
        }
    }

    async fn serve_admin(&self) {
        let socket = self.config.state.join(ADMIN_SOCKET);
        match http::serve_unix(&socket, self.admin.routes()) {
            Ok(serving) => {
                self.tasks.spawn_lasting("admin", serving);
            }
            Err(error) => {
                tracing::error!(%error, socket = %socket.display(), "cannot serve the admin socket")
            }
        }
        if let Some(address) = self.config.admin {
            match listen(address) {
                Ok(listener) => self
                    .tasks
                    .spawn_lasting("admin on loopback", http::serve_tcp(listener, self.admin.routes())),
                Err(error) => tracing::error!(
                    %error,
                    "operators are not answered on loopback; choose another address with --admin-addr"
                ),
            }
        }
        match listen(self.config.monitoring) {
            Ok(listener) => {
                self.tasks.spawn_lasting("metrics", http::serve_tcp(listener, self.admin.public_routes()))
            }
            // Configuration without metrics is better than none.
            Err(error) => tracing::error!(
                %error,
                "metrics are not served; choose another address with --monitoring-addr"
            ),
        }
    }
}

/// As many connections as the usual bounds allow and there are files for, of which some are left for all else.
fn bounds() -> Bounds {
    let usual = Bounds::default();
    let wanted = usual.connections as u64 * 4 / 3;
    let files = raise_limit(wanted);
    if files < wanted {
        tracing::warn!(
            files,
            "few files may be open, so few proxies may be connected; raise the limit (ulimit -n)"
        );
    }
    let connections = usize::try_from(files / 4 * 3).unwrap_or(usize::MAX).min(usual.connections);
    Bounds { connections, handshakes: usual.handshakes.min(connections / 2), ..usual }
}

/// What calls come in by, without services yet.
fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(CALLS)
}

fn watch_ended() -> Defect {
    Defect("the watch of the configuration".into())
}

/// Serves xDS and certificates; what is returned ends when that has.
fn serve_calls(
    tasks: &Tasks,
    accepted: impl Stream<Item = std::io::Result<Accepted>> + Send + 'static,
    router: Router,
    shutdown: Shutdown,
) -> oneshot::Receiver<()> {
    let (done, finished) = oneshot::channel();
    tasks.spawn("grpc", async move {
        let end = async move { shutdown.begun().await };
        if let Err(error) = router.serve_with_incoming_shutdown(accepted, end).await {
            tracing::error!(%error, "the server of xDS and certificates ended");
        }
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    finished
}

/// Takes a batch: publishes it, then keeps what must outlive a restart.
fn take(
    core: &Core,
    metrics: &XdsMetrics,
    published: &watch::Sender<Published>,
    kept: &mut Kept,
    batch: Batch,
) {
    let begun = time::Instant::now();
    let batch = kept.pass(batch);
    let applied = core.apply(&batch);
    let took = begun.elapsed();
    if let Some(revision) = applied.revision {
        published.send_replace(Some((revision, begun)));
    }
    kept.keep(core);
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
