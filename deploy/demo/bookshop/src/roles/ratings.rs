//! Stars; and, by its version, a service that fails, dawdles or is away every other minute.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Call, env, not_found};
use crate::server;

/// How long `v-delayed` dawdles; longer than anybody who asks is willing to wait.
const DELAY: Duration = Duration::from_secs(7);
/// How long `v-unavailable` is there, and then away.
const PERIOD: u64 = 60;

/// The service.
#[derive(Debug)]
pub(crate) struct Ratings {
    version: String,
    asked: AtomicU64,
    started: Instant,
    stars: Mutex<Value>,
}

impl Ratings {
    pub(crate) fn from_env() -> Self {
        Self {
            version: env("SERVICE_VERSION", "v1"),
            asked: AtomicU64::new(0),
            started: Instant::now(),
            stars: Mutex::new(json!({ "Reviewer1": 5, "Reviewer2": 4 })),
        }
    }

    /// `GET` and `POST /ratings/{id}`
    pub(crate) async fn answer(&self, call: &Call) -> Response<Full<Bytes>> {
        let Some(id) = call.number_after("/ratings/") else { return not_found(call) };
        if call.method == Method::POST {
            return self.rate(id, &call.body);
        }
        let every_other = self.asked.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        match self.version.as_str() {
            "v-faulty" if every_other => return unavailable(),
            "v-delayed" if every_other => sleep(DELAY).await,
            "v-unavailable" if (self.started.elapsed().as_secs() / PERIOD) % 2 == 1 => return unavailable(),
            _ => {}
        }
        self.current(id)
    }

    fn rate(&self, id: u32, body: &[u8]) -> Response<Full<Bytes>> {
        match serde_json::from_slice::<Value>(body) {
            Ok(stars @ Value::Object(_)) => {
                *self.stars.lock().unwrap_or_else(PoisonError::into_inner) = stars;
                self.current(id)
            }
            _ => server::json(400, &json!({ "error": "please provide valid ratings JSON" })),
        }
    }

    fn current(&self, id: u32) -> Response<Full<Bytes>> {
        let stars = self.stars.lock().unwrap_or_else(PoisonError::into_inner).clone();
        server::json(200, &json!({ "id": id, "ratings": stars }))
    }
}

fn unavailable() -> Response<Full<Bytes>> {
    server::json(503, &json!({ "error": "Service unavailable" }))
}
