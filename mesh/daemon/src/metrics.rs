//! Metrics in OpenMetrics text, with the names and labels of Istio.

pub mod end;
pub mod process;
pub mod traffic;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::sleep;

use crate::http::{Answer, Routes};

/// How often series of what is gone are looked for.
const EXPIRE: Duration = Duration::from_secs(60);

/// Has series of what is gone go too, as long as it runs.
pub async fn expire(expire: impl Fn()) {
    loop {
        sleep(EXPIRE).await;
        expire();
    }
}

/// All metrics of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self(Arc::new(Mutex::new(Registry::default())));
        metrics.register(|registry| registry.register_collector(Box::new(process::Process)));
        metrics
    }
}

impl Metrics {
    /// Registers metrics.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers metrics whose names begin with `istio_`.
    pub fn register_istio<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        self.register(|registry| register(registry.sub_registry_with_prefix("istio")))
    }

    /// What is scraped.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            Ok(()) => text,
            // Formatting into a string fails only if a collector does.
            Err(error) => format!("# a collector failed: {error}\n# EOF\n"),
        }
    }

    /// `/metrics` and `/stats/prometheus`.
    pub fn routes(&self, routes: Routes) -> Routes {
        let (one, other) = (self.clone(), self.clone());
        routes
            .on(Method::GET, "/metrics", move |_| {
                let answer = one.answer();
                async move { answer }
            })
            .on(Method::GET, "/stats/prometheus", move |_| {
                let answer = other.answer();
                async move { answer }
            })
    }

    fn answer(&self) -> Answer {
        let content_type = "application/openmetrics-text;charset=utf-8;version=1.0.0";
        Answer { status: http::StatusCode::OK, content_type, body: self.text().into() }
    }
}
