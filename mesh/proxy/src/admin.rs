//! What an operator asks of a proxy: readiness (15021), metrics (15020), and the admin page on loopback (15000).

mod build;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use daemon::http::{Answer, Routes, serve_tcp};
use daemon::log::Log;
use daemon::metrics::Metrics;
use daemon::ports::{any, listen};
use daemon::readiness::Readiness;
use daemon::settings::Settings;
use daemon::settings::shared::name;
use daemon::shutdown::Shutdown;
use daemon::start::StartError;
use http::Method;
use serde_json::Value;
use tokio::net::TcpListener;

use self::build::Build;

/// The three ports, open.
#[derive(Debug)]
pub struct Ports {
    admin: TcpListener,
    stats: TcpListener,
    readiness: TcpListener,
}

/// Where they are.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    admin: SocketAddr,
    stats: SocketAddr,
    readiness: SocketAddr,
}

impl Addresses {
    /// As set.
    ///
    /// # Errors
    /// Something that is no port.
    pub fn of(settings: &Settings) -> Result<Self, StartError> {
        let port = |name| settings.parse::<u16>(name, "a port");
        Ok(Self {
            admin: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(name::ADMIN_PORT)?),
            stats: any(port(name::STATS_PORT)?),
            readiness: any(port(name::READINESS_PORT)?),
        })
    }

    /// Opens the ports.
    ///
    /// # Errors
    /// One is taken.
    pub fn listen(self) -> Result<Ports, StartError> {
        Ok(Ports {
            admin: listen(self.admin)?,
            stats: listen(self.stats)?,
            readiness: listen(self.readiness)?,
        })
    }
}

/// What every proxy has there.
#[derive(Debug)]
pub struct Page {
    /// What Istio calls this kind of proxy.
    pub component: &'static str,
    /// What this program is, as `/version` says it.
    pub version: Value,
    /// Its metrics.
    pub metrics: Metrics,
    /// What it still waits for.
    pub readiness: Readiness,
    /// Begins the end of the process.
    pub shutdown: Shutdown,
    /// Its log, whose levels can be changed.
    pub log: Log,
}

/// Answers whether the process is ready.
pub fn ready(routes: Routes, readiness: &Readiness) -> Routes {
    let readiness = readiness.clone();
    routes.on(Method::GET, "/healthz/ready", move |_| {
        let (status, text) = readiness.answer();
        async move { Answer::text(status, text) }
    })
}

impl Page {
    /// Serves all three until dropped: `probed` where readiness is asked, and on the admin page what is this proxy's `own`
    /// beside what every proxy has.
    pub async fn serve(self, ports: Ports, probed: Routes, own: Routes) {
        self.metrics.register_istio(|registry| registry.register_collector(Box::new(Build(self.component))));
        tokio::join!(
            serve_tcp(ports.readiness, probed),
            serve_tcp(ports.stats, self.metrics.routes(Routes::default())),
            serve_tcp(ports.admin, self.admin(own)),
        );
    }

    fn admin(self, own: Routes) -> Routes {
        let Self { version, metrics, readiness, shutdown, log, .. } = self;
        let index = index(own.paths(&Method::GET));
        let routes = ready(own, &readiness)
            .on(Method::POST, "/quitquitquit", move |_| {
                shutdown.begin();
                async { Answer::text(200, "shutting down\n") }
            })
            .on(Method::GET, "/version", move |_| {
                let answer = Answer::json(&version);
                async { answer }
            })
            .on(Method::GET, "/", move |_| {
                let answer = Answer::text(200, index.clone());
                async { answer }
            });
        metrics.routes(log.routes(routes))
    }
}

/// What there is to ask, for who asks for nothing.
fn index(own: impl Iterator<Item = &'static str>) -> String {
    let mut paths: Vec<_> = own.chain(["/healthz/ready", "/metrics", "/version"]).collect();
    paths.sort_unstable();
    format!("GET {}; POST /logging?level=… /quitquitquit\n", paths.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_proxys_own_stands_among_what_all_have() {
        let none = || async { Answer::text(200, "") };
        let own = Routes::default()
            .on(Method::GET, "/top", move |_| none())
            .on(Method::POST, "/forget", move |_| none())
            .on(Method::GET, "/config_dump", move |_| none());
        assert_eq!(
            index(own.paths(&Method::GET)),
            "GET /config_dump /healthz/ready /metrics /top /version; POST /logging?level=… /quitquitquit\n"
        );
    }
}
