//! The services of the shop.

pub(crate) mod details;
pub(crate) mod productpage;
pub(crate) mod ratings;
pub(crate) mod reviews;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;

use crate::server;

/// A request, read.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// The number after a prefix of the path, as in `/reviews/0`.
    pub(crate) fn number_after(&self, prefix: &str) -> Option<u32> {
        self.path.strip_prefix(prefix)?.parse().ok()
    }
}

/// One service.
#[derive(Debug)]
pub(crate) enum Shop {
    Productpage(Box<productpage::Productpage>),
    Details,
    Reviews(Box<reviews::Reviews>),
    Ratings(ratings::Ratings),
}

impl Shop {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Productpage(_) => "productpage",
            Self::Details => "details",
            Self::Reviews(_) => "reviews",
            Self::Ratings(_) => "ratings",
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, call: Call) -> Response<Full<Bytes>> {
        match self {
            Self::Productpage(page) => page.answer(call).await,
            Self::Details => details::answer(&call),
            Self::Reviews(reviews) => reviews.answer(call).await,
            Self::Ratings(ratings) => ratings.answer(&call).await,
        }
    }
}

/// What every service answers to a path that it does not have.
pub(crate) fn not_found(call: &Call) -> Response<Full<Bytes>> {
    server::json(404, &serde_json::json!({ "error": format!("no {} here", call.path) }))
}

/// A setting of the environment.
pub(crate) fn env(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}
