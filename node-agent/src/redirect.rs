//! The redirecting role: captures the node's pods, one network namespace at a time, and keeps what a proxy needs
//! over its own restarts. This file joins its parts.
//!
//! ```text
//! source ─► catalog ─► reconcile ─┬► enrol ─► rules, listeners ─► private socket, ZDS ─► proxy
//!       CNI plugin ──► cni ───────┘                                        ▲
//!                                  supervise ── starts, restarts ──────────┘
//! ```

mod options;

pub mod source;

pub mod catalog;
pub mod eligible;
pub mod whereabouts;

pub mod cni;
mod end;
pub mod install;
pub mod reconcile;
mod taint;
mod uninstall;

pub mod enrol;

pub mod apply;
pub mod rules;

pub mod notes;
pub mod probes;

pub mod supervise;

use std::{
    io,
    path::PathBuf,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use daemon::{
    http::{Answer, Routes, serve_unix},
    settings::SettingsError,
    shutdown::Shutdown,
    tasks::{Defect, Tasks},
};
use futures_util::future::join_all;
use http::Method;
use kube::Client;
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

pub use self::options::Options;
use self::{
    catalog::Catalog,
    cni::Endpoint,
    eligible::{PodFacts, Verdict},
    enrol::Enroller,
    install::Installation,
    reconcile::{Capturer, Counts},
    source::Fed,
    supervise::{Orders, Program},
};
use crate::{
    private::{
        server::{Drained, PrivateServer},
        takeover,
    },
    zds::server::ZdsServer,
};

/// How often a node that is not ready yet is looked at.
const LOOK_FOR_PROXY: Duration = Duration::from_millis(200);

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
    /// A part that it cannot do without has ended.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// The API server.
    #[error(
        "the API server cannot be asked: {0}; outside a pod of its cluster, name a kubeconfig with --kubeconfig"
    )]
    Cluster(String),
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
/// When a socket cannot be made, the manifests cannot be watched, another one runs and does not hand over, or a part of this
/// one has ended.
pub async fn run(options: Options, orders: Orders, shutdown: Shutdown) -> Result<(), RedirectError> {
    // Nine descriptors a pod, here and in the proxy: the usual soft limit of 1,024 is a hundred pods.
    daemon::files::raise_limit(u64::MAX);
    make_folders(&options)?;
    // Before that: reading the manifests takes longer than anything else, and meanwhile nobody would capture.
    let fed = tokio::select! {
        fed = options.source.read(&options.node, &options.policy.nft) => fed?,
        // It would take everything over, and end with it.
        () = shutdown.begun() => return Ok(()),
    };
    let catalog = fed.catalog.clone();
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
    let capturer = Capturer {
        enroller: enroller.clone(),
        notes: fed.notes.clone(),
        defaults: options.defaults.clone(),
        whereabouts: fed.whereabouts.clone(),
        probes: fed.probes.clone(),
        counts: Arc::default(),
    };
    let first = catalog.borrow().clone();
    prepare_all(&capturer, &first).await;

    let installation = options.plugin.clone().map(Installation::new);
    let mut proxy = pin!(keep_proxy(options.proxy.clone(), orders.clone(), shutdown.clone()));
    let handed_over = loop {
        let parts = Parts {
            private: &private,
            zds: &zds,
            capturer: &capturer,
            catalog: &catalog,
            installation: installation.as_ref(),
            client: fed.client.as_ref(),
        };
        let tasks = parts.start(&options)?;
        info!(node = options.node, "redirecting");
        tokio::select! {
            () = proxy.as_mut() => break None,
            () = follow_drained(&enroller, &mut drained) => {}
            () = replace_leaving(&private, &orders) => {}
            () = shutdown.begun(), if !foreign => {
                let follows = options.lingers && !uninstalled(&fed, &options).await;
                if follows {
                    let socket = (&private, options.private.as_path());
                    break end::awaiting_an_heir(&tasks, socket, &enroller, proxy.as_mut()).await?;
                }
                end::alone(&tasks, &private, proxy.as_mut()).await;
                break None;
            }
            defect = defect(&tasks, &fed) => {
                // Like one that is told to end, but that rules stay in any case: it is started anew.
                shutdown.begin();
                end::alone(&tasks, &private, proxy.as_mut()).await;
                enroller.stop().await;
                return Err(defect.into());
            }
            heir = private.heir() => {
                if let Some(still) = end::in_favour_of(&heir, &tasks, &private, &enroller).await {
                    break Some(still);
                }
            }
        }
    };
    if let Some(still) = handed_over {
        enroller.stop_still(still).await;
        info!("another redirector has taken over; ending with the proxy that this one has started");
        private.let_go();
        orders.let_go();
        return end::replaced(options, shutdown, proxy).await;
    }
    enroller.stop().await;
    clean_up(&options, &fed, &capturer, installation.as_ref()).await;
    Ok(())
}

/// The folders of the sockets.
fn make_folders(options: &Options) -> Result<(), RedirectError> {
    let sockets = [&options.zds, &options.private, &options.cni];
    for folder in sockets.into_iter().filter_map(|path| path.parent()) {
        std::fs::create_dir_all(folder)
            .map_err(RedirectError::system(format!("cannot make {}", folder.display())))?;
    }
    Ok(())
}

/// What is taken away at the end: nothing, rules if the settings say so, everything if the mesh leaves the cluster.
async fn clean_up(options: &Options, fed: &Fed, capturer: &Capturer, installation: Option<&Installation>) {
    // Who is told that it may not ask takes that for the end of everything; an agent that serves here knows better.
    let uninstalled = uninstalled(fed, options).await && !end::serves(&options.cni).await;
    if uninstalled {
        info!("the DaemonSet is gone: taking everything of ours off the node");
        uninstall::plugin(installation);
    }
    if uninstalled || options.clean_up {
        capturer.enroller.clean_up().await;
    }
    if uninstalled {
        // Let go at once: what is borrowed stops the watch, and with it this thread, at the first pod that changes.
        let last = fed.catalog.borrow().clone();
        uninstall::traces(capturer, &last).await;
    }
}

/// Whether the mesh is being taken off the cluster.
async fn uninstalled(fed: &Fed, options: &Options) -> bool {
    match &fed.client {
        Some(client) => uninstall::is_wanted(client, &options.daemon_set).await,
        None => false,
    }
}

/// Waits until a part has ended that is to last.
async fn defect(tasks: &Tasks, fed: &Fed) -> Defect {
    tokio::select! {
        defect = tasks.defect(&[]) => defect,
        defect = fed.tasks.defect(&[]) => defect,
    }
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
    installation: Option<&'a Installation>,
    client: Option<&'a Client>,
}

impl Parts<'_> {
    fn start(&self, options: &Options) -> Result<Tasks, RedirectError> {
        let tasks = Tasks::default();
        let listening =
            |path: &PathBuf| RedirectError::system(format!("cannot listen on {}", path.display()));
        if !options.policy.foreign_proxy {
            let serving = self.private.serve(&options.private).map_err(listening(&options.private))?;
            tasks.spawn_lasting("private socket", serving);
        }
        tasks.spawn_lasting("ZDS", self.zds.serve(&options.zds).map_err(listening(&options.zds))?);
        tasks.spawn_lasting("reconcile", reconcile::run(self.capturer.clone(), self.catalog.clone()));
        let endpoint = Endpoint { capturer: self.capturer.clone(), catalog: self.catalog.clone() };
        let routes = health(endpoint.routes(Routes::default()), self.zds.clone(), self.installation.cloned());
        let routes = status(routes, options.pod.clone(), self.private.clone(), self.capturer.counts.clone());
        tasks.spawn_lasting("CNI", serve_unix(&options.cni, routes).map_err(listening(&options.cni))?);
        // Last: from now on pods wait for what is behind that socket.
        if let Some(installation) = self.installation {
            tasks.spawn_lasting("plugin", installation.clone().run(self.catalog.clone()));
            if let Some(client) = self.client {
                let captures = captures(installation.clone(), self.zds.clone());
                tasks.spawn("taint", taint::lift(client.clone(), options.node.clone(), captures));
            }
        }
        Ok(tasks)
    }
}

/// Waits until whatever starts on the node is captured.
async fn captures(installation: Installation, zds: ZdsServer) {
    while installation.failing().is_some() || !zds.is_connected() {
        sleep(LOOK_FOR_PROXY).await;
    }
}

/// `GET /status`: the processes of the agent, so that who upgrades it sees when the new ones have taken over, and how many
/// pods it has captured.
fn status(routes: Routes, pod: String, private: PrivateServer, counts: Arc<Counts>) -> Routes {
    routes.on(Method::GET, "/status", move |_| {
        let (proxy, superseded) = private.processes();
        let version = env!("CARGO_PKG_VERSION");
        let process = std::process::id();
        let (started, running) =
            (counts.started.load(Ordering::Relaxed), counts.running.load(Ordering::Relaxed));
        let proxy_is_own = proxy.is_some_and(supervise::is_child);
        let page = json!({
            "version": version, "pod": pod, "process": process,
            "proxy": proxy, "proxy_is_own": proxy_is_own, "superseded": superseded,
            "captured": {"before_start": started, "while_running": running},
        });
        async move { Answer::json(&page) }
    })
}

/// `GET /healthz`: whether a proxy is connected, and new pods ask for it.
fn health(routes: Routes, zds: ZdsServer, installation: Option<Installation>) -> Routes {
    routes.on(Method::GET, "/healthz", move |_| {
        let connected = zds.is_connected();
        let failing = installation.as_ref().and_then(Installation::failing);
        async move {
            match failing {
                Some(failing) => Answer::text(503, format!("the CNI plugin is not in force: {failing}\n")),
                None if connected => Answer::text(200, "ok\n"),
                None => Answer::text(
                    503,
                    "no proxy is connected; look at the log of `node-agent proxy` on this node\n",
                ),
            }
        }
    })
}

/// Rules and listeners of every pod that was captured by an earlier run, before the first proxy may connect: its
/// snapshot must name them all, or it would let them go.
async fn prepare_all(capturer: &Capturer, catalog: &Catalog) {
    // After a restart of its node a pod's object may say that it was captured while it is only being made again.
    let is_there = |pod: &&PodFacts| pod.is_noted() && !capturer.whereabouts.is_left_to_cni(pod);
    let captured = || catalog.pods().filter(is_there).filter(|pod| catalog.verdict(pod) == Verdict::Captured);
    if let Some(probes) = &capturer.probes
        && let Err(error) = probes.admit(captured()).await
    {
        warn!(%error, "the kubelet's probes of captured pods may fail until this is set");
    }
    let captured = captured();
    join_all(captured.map(|pod| async move {
        let prepared = async {
            let spec = capturer.spec(pod, None).await?;
            capturer.enroller.prepare(spec).await.map_err(reconcile::CaptureError::from)
        };
        if let Err(error) = prepared.await {
            warn!(%error, pod = pod.name, namespace = pod.namespace, "a captured pod could not be taken over");
        }
    }))
    .await;
}

/// A proxy that somebody else told to end hands over to another instead.
async fn replace_leaving(private: &PrivateServer, orders: &Orders) {
    loop {
        private.proxy_leaves().await;
        info!("the proxy was told to end; another takes its place");
        orders.replace();
    }
}

/// Never waits for one of them: it may be dropped at any time.
async fn follow_drained(enroller: &Enroller, drained: &mut Drained) {
    loop {
        enroller.finish_leaving(drained.next().await);
    }
}
