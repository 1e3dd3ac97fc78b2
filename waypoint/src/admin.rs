//! What an operator asks of the waypoint: readiness (15021), metrics (15020), and the admin page on loopback (15000).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use daemon::http::{Answer, Routes, serve_tcp};
use daemon::metrics::Metrics;
use daemon::readiness::Readiness;
use daemon::settings::Settings;
use daemon::shutdown::Shutdown;
use http::Method;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::json;
use tokio::net::TcpListener;

use crate::Waypoint;
use crate::app::StartError;
use crate::config::name;

/// The three ports, open.
#[derive(Debug)]
pub(crate) struct Ports {
    admin: TcpListener,
    stats: TcpListener,
    readiness: TcpListener,
}

impl Ports {
    /// Opens them as set.
    ///
    /// # Errors
    /// Something that is no port, or one that is taken.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, StartError> {
        let port = |name| settings.parse::<u16>(name, "a port");
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(name::ADMIN_PORT)?);
        Ok(Self {
            admin: bind(loopback).await?,
            stats: bind(any(port(name::STATS_PORT)?)).await?,
            readiness: bind(any(port(name::READINESS_PORT)?)).await?,
        })
    }
}

/// Every address of this machine.
pub(crate) fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// Listens on an address.
///
/// # Errors
/// It is taken, or not ours.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        // A node without IPv6 has no [::].
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            TcpListener::bind(v4).await.map_err(|error| taken(v4, &error))
        }
        Err(error) => Err(taken(address, &error)),
    }
}

fn taken(address: SocketAddr, error: &std::io::Error) -> StartError {
    StartError::Value(format!(
        "cannot listen on {address}: {error}; is another proxy running here? The ports are settings, see --help"
    ))
}

/// What is served there.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) waypoint: Arc<Waypoint>,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    /// Begins the end of the process.
    pub(crate) shutdown: Shutdown,
    /// The settings in force.
    pub(crate) settings: serde_json::Value,
}

/// Serves all three until dropped.
pub(crate) async fn serve(ports: Ports, page: Page) {
    let metrics = page.metrics.clone();
    metrics.register_istio(|registry| {
        let labels = vec![("component", "waypoint"), ("tag", env!("CARGO_PKG_VERSION"))];
        registry.register_collector(Box::new(Build(labels)));
    });
    let ready = ready(Routes::default(), &page.readiness);
    tokio::join!(
        serve_tcp(ports.readiness, ready),
        serve_tcp(ports.stats, metrics.routes(Routes::default())),
        serve_tcp(ports.admin, admin(page)),
    );
}

fn ready(routes: Routes, readiness: &Readiness) -> Routes {
    let readiness = readiness.clone();
    routes.on(Method::GET, "/healthz/ready", move |_| {
        let (status, text) = readiness.answer();
        async move { Answer::text(status, text) }
    })
}

fn admin(page: Page) -> Routes {
    let Page { waypoint, metrics, readiness, shutdown, settings } = page;
    let log = waypoint.log.clone();
    let routes = ready(Routes::default(), &readiness)
        .on(Method::GET, "/config_dump", move |_| {
            let page = config_dump(&waypoint, &settings);
            async move { Answer::json(&page) }
        })
        .on(Method::POST, "/quitquitquit", move |_| {
            shutdown.begin();
            async { Answer::text(200, "shutting down\n") }
        })
        .on(Method::GET, "/version", |_| async {
            Answer::json(
                &json!({ "name": "lateen", "component": "waypoint", "version": env!("CARGO_PKG_VERSION") }),
            )
        })
        .on(Method::GET, "/", |_| async {
            Answer::text(
                200,
                "GET /config_dump /healthz/ready /metrics /version; POST /logging?level=… /quitquitquit\n",
            )
        });
    metrics.routes(log.routes(routes))
}

fn config_dump(waypoint: &Waypoint, settings: &serde_json::Value) -> serde_json::Value {
    let mesh = waypoint.state.read();
    let services: Vec<_> = mesh.services().map(|service| service.key.to_string()).collect();
    let policies: Vec<_> = mesh.policies().map(|policy| policy.name.to_string()).collect();
    json!({
        "identity": waypoint.own.identity.to_string(),
        "workload": waypoint.own.workload(&mesh).map(|workload| workload.uid.to_string()),
        "services": services,
        "workloads": mesh.workloads().count(),
        "policies": policies,
        "routings": waypoint.routings.hosts().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "certificates": serde_json::to_value(waypoint.certificates.list()).unwrap_or_default(),
        "config": settings,
    })
}

/// `istio_build`, whose value is its labels.
#[derive(Debug)]
struct Build(Vec<(&'static str, &'static str)>);

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor("build", "What this is", None, MetricType::Gauge)?;
        ConstGauge::new(1i64).encode(metric.encode_family(&self.0)?)
    }
}
