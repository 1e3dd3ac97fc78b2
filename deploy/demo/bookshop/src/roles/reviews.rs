//! What readers say. v1 has no stars, v2 black ones, v3 red ones; the patience with ratings depends on the colour,
//! as the exercise in fault injection wants it.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{Call, env, not_found};
use crate::client::Service;
use crate::headers::passed_on;
use crate::server;

/// The service.
#[derive(Debug)]
pub(crate) struct Reviews {
    version: String,
    pod: String,
    color: String,
    ratings: Option<Service>,
}

impl Reviews {
    pub(crate) fn from_env() -> Self {
        let version = env("SERVICE_VERSION", "v1");
        let (by_version, default_color) = match version.as_str() {
            "v2" => ("true", "black"),
            "v3" => ("true", "red"),
            _ => ("false", "black"),
        };
        let asks = env("ENABLE_RATINGS", by_version) == "true";
        Self {
            pod: env("HOSTNAME", ""),
            color: env("STAR_COLOR", default_color),
            ratings: asks.then(|| Service::from_env("ratings")),
            version,
        }
    }

    /// `GET /reviews/{id}`
    pub(crate) async fn answer(&self, call: Call) -> Response<Full<Bytes>> {
        let Some(id) = call.number_after("/reviews/") else { return not_found(&call) };
        let stars = match &self.ratings {
            Some(ratings) => Some(self.stars(ratings, id, &call).await),
            None => None,
        };
        let review = |reviewer: &str, text: &str| {
            let mut review = json!({ "reviewer": reviewer, "text": text });
            match &stars {
                Some(Ok(stars)) => {
                    review["rating"] = json!({ "stars": stars.get(reviewer), "color": self.color });
                }
                Some(Err(_)) => {
                    review["rating"] = json!({ "error": "Ratings service is currently unavailable" });
                }
                None => {}
            }
            review
        };
        let reviews = [
            review(
                "Reviewer1",
                "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
            ),
            review(
                "Reviewer2",
                "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
            ),
        ];
        server::json(
            200,
            &json!({ "id": id.to_string(), "podname": self.pod, "version": self.version, "clustername": "null", "reviews": reviews }),
        )
    }

    async fn stars(&self, ratings: &Service, id: u32, call: &Call) -> Result<Value, String> {
        let patience = if self.color == "black" { 10_000 } else { 2_500 };
        let path = format!("/ratings/{id}");
        let headers = passed_on(&call.headers);
        match ratings.get(&path, &headers, Duration::from_millis(patience)).await? {
            (200, document) => Ok(document["ratings"].clone()),
            (status, _) => Err(format!("ratings answered {status}")),
        }
    }
}
