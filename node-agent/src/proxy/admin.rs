//! The agent's own part of what an operator asks the proxy (`proxy::admin`): ports that a predecessor may still have, what the agent
//! knows and does, and what its pods cost.

use std::sync::Arc;
use std::time::Duration;

use daemon::http::{Answer, Routes};
use daemon::metrics::Metrics;
use daemon::readiness::Readiness;
use daemon::shutdown::Shutdown;
use daemon::start::StartError;
use http::Method;
use proxy::admin::{Addresses, Ports};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::connections::Listed;
use super::demand::DemandMetrics;
use super::dump::dump;
use super::limits::LimitMetrics;
use super::worker::Job;
use super::{Agent, members_metrics};

/// How long a predecessor may keep the ports after it has heard of this proxy.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// Opens the ports; if that is `allowed`, ports that are taken may be opened later.
///
/// # Errors
/// One is taken.
pub(crate) fn listen_unless_taken(
    addresses: Addresses,
    allowed: bool,
) -> Result<Result<Ports, Addresses>, StartError> {
    match addresses.listen() {
        Ok(ports) => Ok(Ok(ports)),
        Err(_) if allowed => Ok(Err(addresses)),
        Err(error) => Err(error),
    }
}

/// Opens the ports as soon as the predecessor has left them.
async fn listen_in_time(addresses: Addresses) -> Result<Ports, StartError> {
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match addresses.listen() {
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)).await,
            outcome => return outcome,
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
        Err(addresses) => listen_in_time(addresses).await,
    };
    let ports = match ports {
        Ok(ports) => ports,
        Err(error) => {
            tracing::error!(%error, "nobody could see whether this proxy is well; it ends");
            return shutdown.begin();
        }
    };
    metrics
        .register(|registry| registry.register_collector(Box::new(members_metrics::Members(agent.clone()))));
    if agent.demand.is_on() {
        metrics.register(|registry| registry.register_collector(Box::new(DemandMetrics(agent.clone()))));
    }
    metrics.register(|registry| registry.register_collector(Box::new(LimitMetrics(agent.clone()))));
    let probed = probed(readiness.clone());
    let own = own(agent.clone());
    let (version, log) = (super::dump::version(), agent.log.clone());
    let page = proxy::admin::Page { component: "ztunnel", version, metrics, readiness, shutdown, log };
    tokio::select! {
        () = page.serve(ports, probed, own) => {}
        () = superseded.begun() => {}
    }
}

/// Readiness, where it may be asked of one of two agents that may have the port (`ready.rs`).
fn probed(readiness: Readiness) -> Routes {
    Routes::default().on(Method::GET, "/healthz/ready", move |call| {
        let answer = match call.parameter("process") {
            Some(process) if process != std::process::id().to_string() => Answer::text(
                503,
                format!("the port is another proxy's still, not that of process {process}\n"),
            ),
            _ => {
                let (status, text) = readiness.answer();
                Answer::text(status, text)
            }
        };
        async move { answer }
    })
}

fn own(agent: Arc<Agent>) -> Routes {
    let top = agent.clone();
    Routes::default()
        .on(Method::GET, "/config_dump", move |_| {
            let agent = agent.clone();
            async move { config_dump(&agent).await }
        })
        .on(Method::GET, "/top", move |_| {
            let page = super::top::page(&top);
            async move { Answer::json(&page) }
        })
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
