//! The head of a request as it is sent on, and of a response as it goes back.
//!
//! Header operations of the rule and of the destination meet as they do in Istio: with one destination they are one list,
//! the rule's before the destination's; of several, the one that was chosen changes the headers first and the rule
//! afterwards, so that what the rule sets stays. The authority is the rule's, else the destination's.

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use thiserror::Error;

use super::action::PathRewrite;
use super::headers::{CONTROL_HEADERS, Edit, Operations, in_turn, response_message, together};
use super::select::{Decision, Forwarding, Outcome, matched_length};
use super::template::Message;
use crate::path;
use crate::request::Request;

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");

/// What is changed in a request that is sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadChanges {
    /// Path and query, if they are rewritten, also to what they were.
    pub path_and_query: Option<PathAndQuery>,
    /// The authority, likewise.
    pub authority: Option<Authority>,
    /// The headers, in this order.
    pub edits: Vec<Edit>,
}

/// Why a request cannot be sent on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidHead {
    /// A rewrite left no path.
    #[error("the rule rewrites the path to {0:?}, which is none")]
    Path(String),
    /// What the client sent makes of the rewritten path one that leads elsewhere, or that can be read in two ways
    /// ([`path::is_straight`]).
    #[error("the rule rewrites the path to {0:?}, which has a . or .. in it, or can be read in two ways")]
    Astray(String),
    /// No authority.
    #[error("the rule sets the authority {0:?}, which is none")]
    Authority(String),
}

impl InvalidHead {
    /// What the client is answered: that its request is bad, or that the rule is.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Astray(_) => StatusCode::BAD_REQUEST,
            Self::Path(_) | Self::Authority(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl HeadChanges {
    /// Makes the changes of headers, and takes off those by which a client would steer the proxy.
    pub fn apply(self, headers: &mut HeaderMap) {
        for name in &CONTROL_HEADERS {
            headers.remove(name);
        }
        self.edits.into_iter().for_each(|edit| edit.apply(headers));
    }
}

impl Forwarding<'_> {
    /// What is changed in the request.
    ///
    /// # Errors
    /// The rule makes something of it that is no request.
    pub fn changes(&self, request: &Request<'_>) -> Result<HeadChanges, InvalidHead> {
        let message = Message { request, response: None, removed: &[] };
        let mut edits = self.edits(|changes| changes.request.as_deref(), &message);
        let authority = self.authority()?;
        let path_and_query = self.path_and_query(request)?;
        let mut original = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                edits.push(Edit::Set(name, value));
            }
        };
        if authority.is_some() {
            original(ORIGINAL_HOST, request.authority);
        }
        if path_and_query.is_some() {
            original(ORIGINAL_PATH, &super::condition::path_and_query(request));
        }
        Ok(HeadChanges { path_and_query, authority, edits })
    }

    fn edits<'a>(
        &'a self,
        side: impl Fn(&'a super::HeaderChanges) -> Option<&'a Operations>,
        message: &Message<'_>,
    ) -> Vec<Edit> {
        let rule = self.rule.and_then(|rule| side(&rule.headers));
        let destination = side(&self.destination.headers);
        if self.is_split() {
            return in_turn([destination, rule], message);
        }
        let stages: Vec<&Operations> = rule.into_iter().chain(destination).collect();
        together(&stages, message)
    }

    fn authority(&self) -> Result<Option<Authority>, InvalidHead> {
        let set = |changes: Option<&super::HeaderChanges>| {
            changes.and_then(|changes| changes.request.as_ref()?.authority.clone())
        };
        let chosen = self
            .forward
            .rewrite_authority
            .clone()
            .or_else(|| set(self.rule.map(|rule| &rule.headers)))
            .or_else(|| set(Some(&self.destination.headers)));
        let parse = |text: crate::address::Str| {
            Authority::try_from(&*text).map_err(|_| InvalidHead::Authority(text.to_string()))
        };
        chosen.map(parse).transpose()
    }

    fn path_and_query(&self, request: &Request<'_>) -> Result<Option<PathAndQuery>, InvalidHead> {
        let Some(rewrite) = &self.forward.rewrite_path else { return Ok(None) };
        let mut path = match rewrite {
            PathRewrite::Replace(text) => {
                let rest = request.path.get(matched_length(self.matched, request.path)..);
                format!("{text}{}", rest.unwrap_or_default())
            }
            PathRewrite::Regex(substitution) => {
                let bytes = substitution.replace(request.path);
                String::from_utf8(bytes).map_err(|error| {
                    InvalidHead::Path(String::from_utf8_lossy(error.as_bytes()).into_owned())
                })?
            }
        };
        let invalid = |path: String| Err(InvalidHead::Path(path));
        if !path.starts_with('/') || path.contains('#') {
            return invalid(path);
        }
        // A rewrite may bring a query.
        let end = path.find('?').unwrap_or(path.len());
        if !path::is_straight(&path[..end]) {
            return Err(InvalidHead::Astray(path));
        }
        if let Some(query) = request.query {
            path.push('?');
            path.push_str(query);
        }
        match PathAndQuery::try_from(path.as_str()) {
            Ok(read) => Ok(Some(read)),
            Err(_) => invalid(path),
        }
    }
}

impl Decision<'_> {
    /// What is changed in the response's headers, whoever made it: an endpoint, a redirect or an answer of the rule's.
    pub fn response_edits(
        &self,
        request: &Request<'_>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Vec<Edit> {
        let message = response_message(request, status, headers);
        if let Outcome::Forward(forwarding) = &self.outcome {
            return forwarding.edits(|changes| changes.response.as_deref(), &message);
        }
        in_turn([self.rule.and_then(|rule| rule.headers.response.as_deref())], &message)
    }
}

#[cfg(test)]
mod tests;
