//! Cross-origin requests (`corsPolicy`), as Envoy's filter answers them.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::headers::Edit;
use super::text::TextMatch;
use crate::request::Request;

/// Which origins may call, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// `allowOrigins` (or `allowOrigin`, exact). An exact `*` is any.
    pub allow_origins: Box<[TextMatch]>,
    /// `allowMethods`, joined by commas.
    pub allow_methods: Option<HeaderValue>,
    /// `allowHeaders`, joined by commas.
    pub allow_headers: Option<HeaderValue>,
    /// `exposeHeaders`, joined by commas.
    pub expose_headers: Option<HeaderValue>,
    /// `maxAge`, in whole seconds.
    pub max_age: Option<u64>,
    /// `allowCredentials`.
    pub allow_credentials: bool,
    /// `unmatchedPreflights`.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of a preflight from an origin that may not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnmatchedPreflights {
    /// `FORWARD`, `UNSPECIFIED`: the application answers it.
    #[default]
    Forward,
    /// `IGNORE`: it is answered with 200, but the origin is not among the headers, which a browser takes for a refusal.
    Ignore,
}

/// What CORS makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsDecision {
    /// Nothing: it goes on, and so does the response.
    Pass,
    /// It goes on, and these come into the response.
    Allow(Vec<Edit>),
    /// It is answered at once, with this status and these headers.
    Answer(StatusCode, HeaderMap),
}

impl Cors {
    /// What becomes of a request.
    pub fn decide(&self, request: &Request<'_>) -> CorsDecision {
        let Some(origin) = request.headers.get(header::ORIGIN).filter(|origin| !origin.is_empty()) else {
            return CorsDecision::Pass;
        };
        let allowed = self.allows(origin.as_bytes());
        if is_preflight(request) {
            return match (allowed, self.unmatched_preflights) {
                (false, UnmatchedPreflights::Forward) => CorsDecision::Pass,
                _ => CorsDecision::Answer(StatusCode::OK, self.preflight(allowed.then_some(origin))),
            };
        }
        if allowed { CorsDecision::Allow(self.response(origin)) } else { CorsDecision::Pass }
    }

    /// Envoy lets a `*` among the patterns through by comparing the pattern with the text `*`.
    fn allows(&self, origin: &[u8]) -> bool {
        self.allow_origins.iter().any(|one| one.holds(b"*") || one.holds(origin))
    }

    /// The headers of an answer to a preflight, as Envoy has them: with what scripts may read of a response only for
    /// origins that may call.
    fn preflight(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let all = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.cloned()),
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone()),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.clone()),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, origin.and(self.expose_headers.clone())),
            (header::ACCESS_CONTROL_MAX_AGE, self.max_age.map(HeaderValue::from)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn response(&self, origin: &HeaderValue) -> Vec<Edit> {
        let mut edits = vec![Edit::Set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())];
        let more = [
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials()),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose_headers.clone()),
        ];
        edits.extend(more.into_iter().filter_map(|(name, value)| Some(Edit::Set(name, value?))));
        edits
    }

    fn credentials(&self) -> Option<HeaderValue> {
        self.allow_credentials.then(|| HeaderValue::from_static("true"))
    }
}

/// A browser's question whether it may send a request.
fn is_preflight(request: &Request<'_>) -> bool {
    let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    *request.method == Method::OPTIONS && asked.is_some_and(|method| !method.is_empty())
}

#[cfg(test)]
mod tests;
