//! Header operations (`VirtualService` `headers`): what they are, and the edits they come to for one message.
//!
//! The order is Envoy's, whatever the order in the manifest: what is removed goes first, then values are worked out, then
//! what is set replaces, then what is added comes behind. A value that comes out empty changes nothing.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::template::{Message, Template};
use crate::address::Str;
use crate::request::Request;

/// What is changed in a request and its response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// In the request; `None` is nothing.
    pub request: Option<Box<Operations>>,
    /// In the response; `None` is nothing.
    pub response: Option<Box<Operations>>,
}

/// Operations on the headers of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operations {
    /// `remove`.
    pub remove: Box<[HeaderName]>,
    /// `set`: in place of all values there are.
    pub set: Box<[(HeaderName, Template)]>,
    /// `add`: beside the values there are.
    pub add: Box<[(HeaderName, Template)]>,
    /// `set` or else `add` of `host` or `:authority` in a request: the authority that it is sent on with, unless the
    /// rule rewrites it.
    pub authority: Option<Str>,
}

/// A step in changing headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// All values go.
    Remove(HeaderName),
    /// All values go for this one.
    Set(HeaderName, HeaderValue),
    /// Another value, on a line of its own.
    Add(HeaderName, HeaderValue),
}

impl Edit {
    /// Makes the change.
    pub fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::Set(name, value) => {
                headers.insert(name, value);
            }
            Self::Add(name, value) => {
                headers.append(name, value);
            }
        }
    }
}

/// Headers by which clients of Envoy steer its router. They are taken off every request that is sent on and never
/// followed: how long a request may take, how often and when it is tried again is for the owner of the host to say, and
/// a client that could say it could hold a waypoint's connections for as long as it liked.
pub static CONTROL_HEADERS: [HeaderName; 12] = [
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-stream-duration-ms"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
];

/// Headers that frame messages or say how they go on: to change them is to smuggle.
static FRAMING: [HeaderName; 8] = [
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::CONNECTION,
    http::header::UPGRADE,
    http::header::TE,
    http::header::TRAILER,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a header, whatever its case, frames messages, so that no rule may change it.
pub fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| framing.as_str().eq_ignore_ascii_case(name))
}

/// Whether a name is taken for `own` by who reads it: whatever its case, and with `_` for `-`, which are the same behind CGI,
/// WSGI and their like.
pub fn is_taken_for(name: &str, own: &str) -> bool {
    let is_same = |(one, own): (u8, u8)| one.eq_ignore_ascii_case(&own) || (one, own) == (b'_', b'-');
    name.len() == own.len() && name.bytes().zip(own.bytes()).all(is_same)
}

/// Whether a name is taken for that of a header that frames messages.
pub fn is_taken_for_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| is_taken_for(name, framing.as_str()))
}

/// Takes away from trailers what frames messages, or belongs to the connection that they came on: it may not stand there (RFC 9110,
/// section 6.5.1), and a connection of HTTP/2 refuses to send the most of it (RFC 9113, section 8.2.2).
pub fn leave_framing(trailers: &mut HeaderMap) {
    for name in &FRAMING {
        trailers.remove(name);
    }
}

/// Whether a rule may change a header. Not what frames a message.
pub fn may_change(name: &HeaderName) -> bool {
    !FRAMING.contains(name) && *name != http::header::HOST
}

/// The edits that several operations come to, one list after the other: each list is worked off as if the one before had
/// been written by somebody else.
pub(super) fn in_turn<'a>(
    stages: impl IntoIterator<Item = Option<&'a Operations>>,
    message: &Message<'_>,
) -> Vec<Edit> {
    let mut edits = Vec::new();
    for stage in stages.into_iter().flatten() {
        edits.extend(together(&[stage], message));
    }
    edits
}

/// The edits that several operations come to as if they were one: all removals, all settings, all additions.
pub(super) fn together(stages: &[&Operations], message: &Message<'_>) -> Vec<Edit> {
    let removed: Vec<&HeaderName> = stages.iter().flat_map(|stage| &stage.remove).collect();
    let message = Message { removed: &removed, ..*message };
    let mut edits: Vec<Edit> = removed.iter().map(|name| Edit::Remove((*name).clone())).collect();
    let value = |(name, template): &(HeaderName, Template)| {
        template.value(&message).map(|value| (name.clone(), value))
    };
    let set = stages.iter().flat_map(|stage| &stage.set).filter_map(value);
    edits.extend(set.map(|(name, value)| Edit::Set(name, value)));
    let add = stages.iter().flat_map(|stage| &stage.add).filter_map(value);
    edits.extend(add.map(|(name, value)| Edit::Add(name, value)));
    edits
}

/// The message that a response's operations read: the request, and the response as it came.
pub(super) fn response_message<'a>(
    request: &'a Request<'a>,
    status: StatusCode,
    headers: &'a HeaderMap,
) -> Message<'a> {
    Message { request, response: Some((status, headers)), removed: &[] }
}

#[cfg(test)]
mod tests;
