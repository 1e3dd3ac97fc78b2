//! What an operator asks of the waypoint: readiness (15021), metrics (15020), and the admin page on loopback (15000).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

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

use crate::Waypoint;
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
    pub(crate) fn open(settings: &Settings) -> Result<Self, StartError> {
        let port = |name| settings.parse::<u16>(name, "a port");
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(name::ADMIN_PORT)?);
        Ok(Self {
            admin: listen(loopback)?,
            stats: listen(any(port(name::STATS_PORT)?))?,
            readiness: listen(any(port(name::READINESS_PORT)?))?,
        })
    }
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
    proxy::build::register(&metrics, "waypoint");
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
        "certificates": serde_json::to_value(waypoint.trust.certificates.list()).unwrap_or_default(),
        "config": settings,
    })
}
