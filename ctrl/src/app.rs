//! The controller put together: the only file that knows every part.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
use futures_util::Stream;
use identity::tls::{Tls, TlsSettings};
use identity::verify::TrustDomains;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time;
use tonic::transport::server::Router;
use xds::server::Server;

use crate::admin::Admin;
use crate::ca::authorize::TokenFolder;
use crate::ca::keyring::{Keyring, KeyringSettings};
use crate::ca::listen::{Accepted, Bounds, accept_tls};
use crate::ca::own::{OwnNames, server_config};
use crate::ca::service::{CaService, MAX_CALL};
use crate::ca::upkeep::Upkeep;
use crate::config::Config;
use crate::core::Core;
use crate::limits::Limits;
use crate::serve::Gate;
use crate::serve::certificates::{CaMetrics, Counted};
use crate::serve::convergence::{Published, measure};
use crate::serve::metrics::XdsMetrics;
use crate::source::Batch;
use crate::source::file::Files;
use crate::source::last_good::LastGood;
use crate::source::routings::Routings;
use crate::source::waypoints::ReadyWaypoints;

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
    files: Files,
    last_good: LastGood,
    waypoints: ReadyWaypoints,
    routings: Routings,
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
    let served = async {
        let outcome = app.run(shutdown.clone()).await;
        // However it came about: nobody is to wait for a signal any more.
        shutdown.begin();
        outcome
    };
    let (outcome, ()) = tokio::join!(served, signalled);
    Ok(outcome?)
}

/// A part of the controller has ended that never does. Proxies go on with what they have until it is started anew.
#[derive(Debug, thiserror::Error)]
#[error("{0} has ended, which is a defect: please report it; the process ends, to be started anew")]
pub struct Defect(String);

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
        let keyring = Arc::new(Keyring::open(keyring_settings(&config, limits.clone()), SystemTime::now())?);
        let listener = listen(config.listen).await.map_err(|error| cannot_listen(config.listen, &error))?;
        let mut names = config.names.clone();
        names.push(listener.local_addr()?.ip().to_string());
        let server_tls = server_config(&tls, keyring.clone(), OwnNames::with(names))?;

        let metrics = Metrics::default();
        let xds_metrics = XdsMetrics::default();
        xds_metrics.register(&metrics);
        limits.register(&metrics);
        let core = Core::new(config.context.clone());
        core.set_trust(keyring.trust());
        let tokens = Arc::new(TokenFolder::new(&config.tokens, trust_domain.clone()));
        let on_node = {
            let core = core.clone();
            move |node: &str, identity: &_| core.on_node(node, identity)
        };
        let ca_metrics = CaMetrics::default();
        ca_metrics.register(&metrics);
        let ca = CaService::new(keyring.clone(), tokens.clone(), on_node).counting(limits.clone());
        let xds = Server::new(Arc::new(Gate::new(tokens, core.clone(), xds_metrics.clone(), limits.clone())));
        let readiness = Readiness::default();
        readiness.pending(CONFIGURATION);
        let upkeep =
            Upkeep { keyring, core: core.clone(), clients: xds.clients(), metrics: ca_metrics.clone() };
        let admin = Admin { core: core.clone(), clients: xds.clients(), upkeep, readiness, metrics, log };
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .max_concurrent_streams(CALLS)
            .add_service(
                IstioCertificateServiceServer::new(Counted::new(ca, ca_metrics))
                    .max_decoding_message_size(MAX_CALL),
            )
            .add_service(xds.into_service());
        let files = Files::watch(config.sources.clone(), config.objects.clone())?;
        let last_good = LastGood::open(&config.state);
        let waypoints = ReadyWaypoints::open(&config.state);
        core.remember(&waypoints.stored());
        let routings = Routings::open(&config.state);
        core.remember_routings(routings.stored());
        let tasks = Tasks::default();
        Ok(Self {
            config,
            core,
            admin,
            metrics: xds_metrics,
            limits,
            listener,
            router,
            tls: server_tls,
            files,
            last_good,
            waypoints,
            routings,
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
            first = self.files.next() => first.ok_or_else(watch_ended)?,
            () = shutdown.begun() => return Ok(()),
        };
        let (publish, published) = watch::channel(None);
        let measured = measure(published, self.admin.clients.clone(), self.metrics.clone());
        self.tasks.spawn("convergence", measured);
        self.tasks.spawn("authorities", self.admin.upkeep.clone().run());
        // Before anybody is served: a proxy that came back would take what is not there yet for gone.
        take(
            &self.core,
            &self.metrics,
            &publish,
            (&mut self.last_good, &self.waypoints, &self.routings),
            first,
        );
        self.admin.readiness.done(CONFIGURATION);
        tracing::info!(address = %self.config.listen, "serving");

        let Self {
            core, metrics, limits, mut files, mut last_good, waypoints, routings, tasks, config, ..
        } = self;
        let accepted = accept_tls(self.listener, self.tls, bounds(), limits);
        let mut served = serve_calls(&tasks, accepted, self.router, shutdown.clone());
        let outcome = loop {
            tokio::select! {
                () = shutdown.begun() => break Ok(()),
                task = tasks.panicked() => break Err(Defect(format!("the task {task:?}"))),
                _ = &mut served => break Err(Defect("the server of xDS and certificates".into())),
                batch = files.next() => match batch {
                    Some(batch) => take(&core, &metrics, &publish, (&mut last_good, &waypoints, &routings), batch),
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
        match listen(self.config.monitoring).await {
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

fn keyring_settings(config: &Config, limits: Limits) -> KeyringSettings {
    KeyringSettings {
        state: config.state.clone(),
        plugged: config.plugged_authority.clone(),
        trust_domain: config.context.settings.trust_domain.to_string().into(),
        root_lifetime: config.root_lifetime,
        grace_percent: config.root_grace_percent,
        patience: config.rotation_patience,
        lifetimes: config.lifetimes,
        limits,
    }
}

/// As many connections as the usual bounds allow and there are files for, of which some are left for all else.
fn bounds() -> Bounds {
    let usual = Bounds::default();
    let wanted = usual.connections as u64 * 4 / 3;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usual };
    let mut files = soft;
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_ok() {
        files = wanted.min(hard);
    }
    if files < wanted {
        tracing::warn!(
            files,
            "few files may be open, so few proxies may be connected; raise the limit (ulimit -n)"
        );
    }
    let connections = usize::try_from(files / 4 * 3).unwrap_or(usize::MAX).min(usual.connections);
    Bounds { connections, handshakes: usual.handshakes.min(connections / 2), ..usual }
}

fn watch_ended() -> Defect {
    Defect("the watch of the manifests".into())
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
    (last_good, waypoints, routings): (&mut LastGood, &ReadyWaypoints, &Routings),
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
    waypoints.keep(&core.take_kept());
    if let Some(last_good) = core.take_routings()
        && let Err(error) = routings.keep(&last_good)
    {
        tracing::error!(%error, "routings are in force but not kept for a restart");
    }
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

/// A machine without IPv6 has no `[::]`; all of its addresses are those of IPv4 then.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    if bound.is_err() && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // What is wrong with both is told of the one that was asked for.
        return TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.or(bound);
    }
    bound
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    format!("cannot listen on {address}: {error}; choose another address with --listen")
}
