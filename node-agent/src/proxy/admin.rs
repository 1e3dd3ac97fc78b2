//! What an operator asks of the proxy: readiness (15021), metrics (15020), and the admin page on loopback (15000).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemon::http::{Answer, Routes, serve_tcp};
use daemon::metrics::Metrics;
use daemon::ports::{any, listen};
use daemon::readiness::Readiness;
use daemon::settings::Settings;
use daemon::shutdown::Shutdown;
use daemon::start::StartError;
use http::Method;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::connections::Listed;
use super::demand::Asked;
use super::dump::dump;
use super::limits::LimitMetrics;
use super::worker::Job;
use super::{Agent, members_metrics};
use crate::config::name;

/// The three ports, open.
#[derive(Debug)]
pub(crate) struct Ports {
    admin: TcpListener,
    stats: TcpListener,
    readiness: TcpListener,
}

/// Where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    admin: SocketAddr,
    stats: SocketAddr,
    readiness: SocketAddr,
}

/// How long a predecessor may keep the ports after it has heard of this proxy.
const PREDECESSOR: Duration = Duration::from_secs(10);

impl Addresses {
    /// As set.
    ///
    /// # Errors
    /// Something that is no port.
    pub(crate) fn of(settings: &Settings) -> Result<Self, StartError> {
        let port = |name| settings.parse::<u16>(name, "a port");
        Ok(Self {
            admin: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(name::ADMIN_PORT)?),
            stats: any(port(name::STATS_PORT)?),
            readiness: any(port(name::READINESS_PORT)?),
        })
    }

    /// Opens the ports; if that is `allowed`, ports that are taken may be opened later.
    ///
    /// # Errors
    /// One is taken.
    pub(crate) fn listen_unless_taken(self, allowed: bool) -> Result<Result<Ports, Self>, StartError> {
        match self.listen() {
            Ok(ports) => Ok(Ok(ports)),
            Err(_) if allowed => Ok(Err(self)),
            Err(error) => Err(error),
        }
    }

    fn listen(self) -> Result<Ports, StartError> {
        Ok(Ports {
            admin: listen(self.admin)?,
            stats: listen(self.stats)?,
            readiness: listen(self.readiness)?,
        })
    }

    /// Opens the ports as soon as the predecessor has left them.
    async fn listen_in_time(self) -> Result<Ports, StartError> {
        let deadline = Instant::now() + PREDECESSOR;
        loop {
            match self.listen() {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)).await,
                outcome => return outcome,
            }
        }
    }
}

/// What is served there.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) agent: Arc<Agent>,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    /// Begins the end of the process.
    pub(crate) shutdown: Shutdown,
}

/// Serves all three until a newer proxy wants the ports.
pub(crate) async fn serve(ports: Result<Ports, Addresses>, page: Page) {
    let Page { agent, metrics, readiness, shutdown } = page;
    let superseded = agent.superseded.clone();
    let ports = match ports {
        Ok(ports) => Ok(ports),
        Err(addresses) => addresses.listen_in_time().await,
    };
    let ports = match ports {
        Ok(ports) => ports,
        Err(error) => {
            tracing::error!(%error, "nobody could see whether this proxy is well; it ends");
            return shutdown.begin();
        }
    };
    proxy::build::register(&metrics, "ztunnel");
    metrics
        .register(|registry| registry.register_collector(Box::new(members_metrics::Members(agent.clone()))));
    if agent.demand.is_on() {
        metrics.register(|registry| registry.register_collector(Box::new(Asked(agent.clone()))));
    }
    metrics.register(|registry| registry.register_collector(Box::new(LimitMetrics(agent.clone()))));
    let ready = readiness.clone();
    let readiness_routes = Routes::default().on(Method::GET, "/healthz/ready", move |call| {
        let answer = match call.parameter("process") {
            // Asked of one of two agents that may have the port (`ready.rs`).
            Some(process) if process != std::process::id().to_string() => Answer::text(
                503,
                format!("the port is another proxy's still, not that of process {process}\n"),
            ),
            _ => {
                let (status, text) = ready.answer();
                Answer::text(status, text)
            }
        };
        async move { answer }
    });
    let serving = async {
        tokio::join!(
            serve_tcp(ports.readiness, readiness_routes),
            serve_tcp(ports.stats, metrics.routes(Routes::default())),
            serve_tcp(ports.admin, admin(agent, &metrics, readiness, shutdown)),
        )
    };
    tokio::select! {
        _ = serving => {}
        () = superseded.begun() => {}
    }
}

fn admin(agent: Arc<Agent>, metrics: &Metrics, readiness: Readiness, shutdown: Shutdown) -> Routes {
    let log = agent.log.clone();
    let top = agent.clone();
    let routes = Routes::default()
        .on(Method::GET, "/config_dump", move |_| {
            let agent = agent.clone();
            async move { config_dump(&agent).await }
        })
        .on(Method::GET, "/healthz/ready", move |_| {
            let (status, text) = readiness.answer();
            async move { Answer::text(status, text) }
        })
        .on(Method::POST, "/quitquitquit", move |_| {
            shutdown.begin();
            async { Answer::text(200, "shutting down\n") }
        })
        .on(Method::GET, "/top", move |_| {
            let page = super::top::page(&top);
            async move { Answer::json(&page) }
        })
        .on(Method::GET, "/version", |_| async { Answer::json(&super::dump::version()) })
        .on(Method::GET, "/", |_| async {
            Answer::text(
                200,
                "GET /config_dump /healthz/ready /metrics /top /version; POST /logging?level=… /quitquitquit\n",
            )
        });
    metrics.routes(log.routes(routes))
}

async fn config_dump(agent: &Agent) -> Answer {
    let connections = list(agent).await;
    let certificates = serde_json::to_value(agent.trust.certificates.list()).unwrap_or_else(|_| json!([]));
    let mut pods: Vec<_> = agent.pods().values().cloned().collect();
    pods.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut page = dump(&agent.state.read(), &certificates, &pods, &connections, &agent.config);
    if agent.demand.is_on() {
        page["onDemand"] = agent.demand.page();
    }
    Answer::json(&page)
}

/// The connections of all threads.
pub(crate) async fn list(agent: &Agent) -> Vec<Listed> {
    let mut all = Vec::new();
    for worker in &agent.workers {
        let (answer, listed) = oneshot::channel();
        worker.send(Job::List(answer)).await;
        all.extend(listed.await.unwrap_or_default());
    }
    all
}
