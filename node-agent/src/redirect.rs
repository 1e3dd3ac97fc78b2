//! The redirecting role: captures the node's pods, one network namespace at a time, and keeps what a proxy needs
//! over its own restarts. This file joins its parts.
//!
//! ```text
//! manifests ─► catalog ─► reconcile ─┬► enrol ─► rules, listeners ─► private socket, ZDS ─► proxy
//!          CNI plugin ──► cni ───────┘                                        ▲
//!                                     supervise ── starts, restarts ──────────┘
//! ```

pub mod catalog;
pub mod eligible;

pub mod cni;
pub mod reconcile;

pub mod enrol;

pub mod apply;
pub mod rules;

pub mod notes;

pub mod supervise;

use std::{io, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use daemon::{
    http::{Answer, Routes, serve_unix},
    settings::{Settings, SettingsError},
    shutdown::Shutdown,
};
use futures_util::future::join_all;
use http::Method;
use manifest::{Folder, State, Watch};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use self::{
    catalog::Catalog,
    cni::Endpoint,
    eligible::Verdict,
    enrol::{Enroller, Policy},
    notes::Notes,
    reconcile::Capturer,
    rules::RuleSet,
    supervise::{Orders, Program},
};
use crate::{
    config::{self, name},
    private::{
        server::{Drained, PrivateServer},
        takeover,
    },
    zds::server::ZdsServer,
};

/// What the role needs to be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose pods.
    pub node: String,
    /// The ZDS socket.
    pub zds: PathBuf,
    /// The private socket.
    pub private: PathBuf,
    /// The socket of the CNI plugin.
    pub cni: PathBuf,
    /// Manifests.
    pub sources: Vec<PathBuf>,
    /// Folder of the mesh's own objects.
    pub objects: PathBuf,
    /// How pods are enrolled.
    pub policy: Policy,
    /// What rules do where a pod does not say.
    pub defaults: RuleSet,
    /// The proxy to start; `None` where it is started otherwise.
    pub proxy: Option<Program>,
    /// Whether rules are taken out at the end.
    pub clean_up: bool,
}

/// Why the role cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// A setting.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A setting without which there is nothing to do.
    #[error("{0} is not set; {1}")]
    Missing(&'static str, &'static str),
    /// Another one runs here, and does not let go.
    #[error(transparent)]
    TakeOver(#[from] takeover::TakeOverError),
    /// A socket or folder.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl RedirectError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

impl Options {
    /// Options from the settings.
    ///
    /// # Errors
    /// When one is missing or cannot be read.
    pub fn from_settings(settings: &Settings) -> Result<Self, RedirectError> {
        let required = |name: &'static str, why: &'static str| match settings.text(name) {
            "" => Err(RedirectError::Missing(name, why)),
            text => Ok(text.to_owned()),
        };
        let foreign_proxy = settings.switch(name::FOREIGN_PROXY)?;
        let [zds, private, cni] = config::sockets(settings);
        let start = settings.switch(name::START_PROXY)? && !foreign_proxy;
        Ok(Self {
            node: required(name::NODE_NAME, "give the name of this node with --node")?,
            zds,
            private,
            cni,
            sources: settings.list(name::SOURCE).into_iter().map(PathBuf::from).collect(),
            objects: required(name::OBJECTS, "give the folder of the mesh's objects with --objects")?.into(),
            policy: Policy {
                nft: settings.text(name::NFT).to_owned(),
                foreign_proxy,
                leave_grace: settings.duration(name::LEAVE_GRACE)?,
            },
            defaults: RuleSet {
                dns: settings.switch(name::DNS_CAPTURE)?,
                drop_uncarried: settings.switch(name::DROP_UNCARRIED)?,
                ..RuleSet::default()
            },
            proxy: if start { Some(proxy_program(settings)?) } else { None },
            clean_up: settings.switch(name::CLEANUP)?,
        })
    }
}

/// This binary in its other role, with the same settings.
fn proxy_program(settings: &Settings) -> Result<Program, RedirectError> {
    let path = std::env::current_exe().map_err(RedirectError::system("cannot tell this program's path"))?;
    let env = config::environment(settings);
    Ok(Program {
        path,
        args: vec!["proxy".into()],
        env: env.into_iter().map(|(key, value)| (key, value.into())).collect(),
        drain: settings.duration(name::DRAIN)? + Duration::from_secs(1),
    })
}

/// Runs the role until `shutdown` begins, or until another one has taken its place and the proxy that it started has
/// ended. On the main thread, in a single-threaded runtime: the proxy dies with the thread that started it.
///
/// If another one runs already, on the same sockets, this one takes its place: nobody's connections end. If that one does
/// not let it, it goes on as before, and this one ends.
///
/// Pods keep their rules when the role ends, unless told otherwise: what belongs to the mesh is cut off without
/// it, not exposed.
///
/// # Errors
/// When a socket cannot be made, the manifests cannot be watched, or another one runs and does not hand over.
pub async fn run(options: Options, orders: Orders, shutdown: Shutdown) -> Result<(), RedirectError> {
    raise_open_files();
    for folder in [&options.zds, &options.private, &options.cni].into_iter().filter_map(|path| path.parent())
    {
        std::fs::create_dir_all(folder)
            .map_err(RedirectError::system(format!("cannot make {}", folder.display())))?;
    }
    // Before that: reading the manifests takes longer than anything else, and meanwhile nobody would capture.
    let (_watch, catalog) = watch_manifests(&options).await?;
    let foreign = options.policy.foreign_proxy;
    let taken = if foreign { None } else { takeover::take_over(&options.private).await? };
    let (private, mut drained) = match &taken {
        Some(taken) => PrivateServer::holding(taken),
        None => PrivateServer::new(),
    };
    let zds = if foreign { ZdsServer::new() } else { ZdsServer::for_own(private.clone()) };
    let enroller = Enroller::new(options.policy.clone(), zds.clone(), private.clone())
        .map_err(RedirectError::system("cannot tell the agent's own network namespace; is /proc mounted?"))?;
    enroller.adopt(taken.map(|taken| taken.pods).unwrap_or_default()).await;
    let notes = Notes::new(State::at(&options.objects));
    let capturer = Capturer { enroller: enroller.clone(), notes, defaults: options.defaults.clone() };
    let first = catalog.borrow().clone();
    prepare_all(&capturer, &first).await;

    let mut proxy = pin!(keep_proxy(options.proxy.clone(), orders.clone(), shutdown));
    let handed_over = loop {
        let parts = Parts { private: &private, zds: &zds, capturer: &capturer, catalog: &catalog };
        let mut tasks = parts.start(&options)?;
        info!(node = options.node, "redirecting");
        tokio::select! {
            () = proxy.as_mut() => break None,
            () = follow_drained(&enroller, &mut drained) => {}
            heir = private.heir() => {
                // What has been begun is finished first; nothing changes any more from here on.
                let still = enroller.stand_still().await;
                tasks.shutdown().await;
                match takeover::hand_over(&private, &heir).await {
                    Ok(()) => break Some(still),
                    Err(error) => warn!(%error, "another redirector wanted to take over and has not; going on"),
                }
            }
        }
    };
    if let Some(still) = handed_over {
        enroller.stop_still(still).await;
        info!("another redirector has taken over; ending with the proxy that this one has started");
        private.let_go();
        orders.let_go();
        proxy.await;
        return Ok(());
    }
    enroller.stop().await;
    if options.clean_up {
        enroller.clean_up().await;
    }
    Ok(())
}

/// Keeps the proxy running, if that is this role's business.
async fn keep_proxy(program: Option<Program>, orders: Orders, shutdown: Shutdown) {
    match program {
        Some(program) => supervise::run(program, orders, shutdown).await,
        None => tokio::select! {
            () = shutdown.begun() => {}
            () = orders.let_go_begun() => {}
        },
    }
}

/// What serves others.
struct Parts<'a> {
    private: &'a PrivateServer,
    zds: &'a ZdsServer,
    capturer: &'a Capturer,
    catalog: &'a watch::Receiver<Arc<Catalog>>,
}

impl Parts<'_> {
    fn start(&self, options: &Options) -> Result<JoinSet<()>, RedirectError> {
        let mut tasks = JoinSet::new();
        let listening =
            |path: &PathBuf| RedirectError::system(format!("cannot listen on {}", path.display()));
        if !options.policy.foreign_proxy {
            tasks.spawn(self.private.serve(&options.private).map_err(listening(&options.private))?);
        }
        tasks.spawn(self.zds.serve(&options.zds).map_err(listening(&options.zds))?);
        tasks.spawn(reconcile::run(self.capturer.clone(), self.catalog.clone()));
        let endpoint = Endpoint { capturer: self.capturer.clone(), catalog: self.catalog.clone() };
        let routes = health(endpoint.routes(Routes::default()), self.zds.clone());
        let routes = status(routes, self.private.clone());
        tasks.spawn(serve_unix(&options.cni, routes).map_err(listening(&options.cni))?);
        Ok(tasks)
    }
}

/// `GET /status`: the processes of the agent, so that who upgrades it sees when the new ones have taken over.
fn status(routes: Routes, private: PrivateServer) -> Routes {
    routes.on(Method::GET, "/status", move |_| {
        let (proxy, superseded) = private.processes();
        let version = env!("CARGO_PKG_VERSION");
        let process = std::process::id();
        let page = json!({"version": version, "process": process, "proxy": proxy, "superseded": superseded});
        async move { Answer::json(&page) }
    })
}

/// `GET /healthz`: whether a proxy is connected.
fn health(routes: Routes, zds: ZdsServer) -> Routes {
    routes.on(Method::GET, "/healthz", move |_| {
        let connected = zds.is_connected();
        async move {
            if connected {
                Answer::text(200, "ok\n")
            } else {
                Answer::text(
                    503,
                    "no proxy is connected; look at the log of `node-agent proxy` on this node\n",
                )
            }
        }
    })
}

/// Watches the manifests; returns once everything that is there has been read.
async fn watch_manifests(options: &Options) -> Result<(Watch, watch::Receiver<Arc<Catalog>>), RedirectError> {
    let mut catalog = Catalog::new(&options.node);
    let (sender, mut catalogs) = watch::channel(Arc::default());
    let folder = Folder::new(options.sources.clone()).with_state(options.objects.clone());
    let watch = Watch::start(folder, move |batch| {
        catalog.apply(&batch);
        sender.send(Arc::new(catalog.clone())).is_ok()
    })
    .map_err(RedirectError::system("cannot watch the manifests"))?;
    // The first batch is everything that is there, also if that is nothing.
    catalogs.changed().await.map_err(|_| RedirectError::System {
        what: "cannot watch the manifests".into(),
        source: io::Error::other("the watch has ended"),
    })?;
    Ok((watch, catalogs))
}

/// Rules and listeners of every pod that was captured by an earlier run, before the first proxy may connect: its
/// snapshot must name them all, or it would let them go.
async fn prepare_all(capturer: &Capturer, catalog: &Catalog) {
    let captured = catalog.pods().filter(|pod| pod.is_noted() && catalog.verdict(pod) == Verdict::Captured);
    join_all(captured.map(|pod| async move {
        let prepared = async {
            let spec = capturer.spec(pod, None)?;
            capturer.enroller.prepare(spec).await.map_err(reconcile::CaptureError::from)
        };
        if let Err(error) = prepared.await {
            warn!(%error, pod = pod.name, namespace = pod.namespace, "a captured pod could not be taken over");
        }
    }))
    .await;
}

/// Never waits for one of them: it may be dropped at any time.
async fn follow_drained(enroller: &Enroller, drained: &mut Drained) {
    loop {
        enroller.finish_leaving(drained.next().await);
    }
}

/// Nine descriptors a pod, here and in the proxy: the usual soft limit of 1,024 is a hundred pods.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, soft, "the limit of open files could not be raised");
    }
}
