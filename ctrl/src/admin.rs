//! What operators and the command line ask: over `admin.sock` in the state folder, readable by its owner only. Readiness
//! and metrics stand on TCP too.

mod ca;
mod decisions;
mod kinds;
mod objects;
mod sync;

use std::sync::Arc;

use daemon::http::{Answer, Routes};
use daemon::log::Log;
use daemon::metrics::Metrics;
use daemon::readiness::Readiness;
use http::Method;
use xds::diagnostics::Attending;
use xds::server::Clients;

use crate::ca::authorize::Caller;
use crate::ca::upkeep::Upkeep;
use crate::core::Core;

/// Everything that answers are made from.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What the controller holds.
    pub core: Core,
    /// The proxies.
    pub clients: Arc<Clients<Caller>>,
    /// The proxies that answer questions.
    pub attending: Attending,
    /// The authorities.
    pub upkeep: Upkeep,
    /// What the process waits for.
    pub readiness: Readiness,
    /// What is scraped.
    pub metrics: Metrics,
    /// The log, whose levels can be changed.
    pub log: Option<Log>,
}

impl Admin {
    /// Readiness and metrics: for everybody.
    pub fn public_routes(&self) -> Routes {
        let readiness = self.readiness.clone();
        let ready = move |_| {
            let (status, text) = readiness.answer();
            async move { Answer::text(status, text) }
        };
        let routes = Routes::default().on(Method::GET, "/healthz/ready", ready.clone());
        self.metrics.routes(routes.on(Method::GET, "/ready", ready))
    }

    /// All of it: for the owner of the mesh.
    pub fn routes(&self) -> Routes {
        let routes = self.public_routes();
        let (a, b, c, d) = (self.clone(), self.clone(), self.clone(), self.clone());
        let routes = routes
            .on(Method::GET, "/objects/", move |call| {
                let answer = objects::list(&a.core, &call);
                async move { answer }
            })
            .on(Method::GET, "/findings", move |_| {
                let answer = objects::findings(&b.core);
                async move { answer }
            })
            .on(Method::GET, "/version", move |_| {
                let answer = Answer::json(&sync::version(&c.clients.all()));
                async move { answer }
            })
            .on(Method::GET, "/sync", move |_| {
                let answer = Answer::json(&sync::sync(&d.core, &d.clients.all()));
                async move { answer }
            });
        let attending = self.attending.clone();
        let routes = routes.on(Method::GET, "/decisions", move |call| {
            let attending = attending.clone();
            async move { decisions::list(&attending, &call).await }
        });
        let routes = ca::routes(routes, &self.upkeep);
        match &self.log {
            Some(log) => log.routes(routes),
            None => routes,
        }
    }
}
