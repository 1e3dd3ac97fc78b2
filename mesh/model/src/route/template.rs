//! Values of header operations, with what Envoy fills in: `%REQ(x-user)%`, `%DOWNSTREAM_REMOTE_ADDRESS%`, …
//!
//! `%%` is a percent sign. A command that is not known here is refused by its name, so that no header ever carries a
//! command's text in place of its value.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use thiserror::Error;

use super::condition::{HeaderKey, path_and_query};
use crate::address::Str;
use crate::request::Request;

/// The longest text of a value, in bytes.
pub const MAX_TEMPLATE: usize = 8192;

/// A header's value, perhaps with commands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: Str,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Fixed(HeaderValue),
    Parts(Box<[Part]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Str),
    Header { of: Side, key: HeaderKey, or: Option<HeaderKey>, longest: Option<usize> },
    Fact(Fact),
}

/// Whose header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// A fact about the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    ClientAddress,
    ClientIp,
    ClientPort,
    LocalAddress,
    LocalIp,
    LocalPort,
    ClientIdentity,
    ResponseCode,
}

/// The commands without arguments, by Envoy's names.
const FACTS: [(&str, Fact); 10] = [
    ("DOWNSTREAM_REMOTE_ADDRESS", Fact::ClientAddress),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Fact::ClientIp),
    ("DOWNSTREAM_REMOTE_PORT", Fact::ClientPort),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Fact::ClientAddress),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Fact::ClientIp),
    ("DOWNSTREAM_LOCAL_ADDRESS", Fact::LocalAddress),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Fact::LocalIp),
    ("DOWNSTREAM_LOCAL_PORT", Fact::LocalPort),
    ("DOWNSTREAM_PEER_URI_SAN", Fact::ClientIdentity),
    ("RESPONSE_CODE", Fact::ResponseCode),
];

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidTemplate {
    /// Too long.
    #[error("a value of {0} bytes; at most {MAX_TEMPLATE} are read")]
    TooLong(usize),
    /// Characters that no header has.
    #[error("it has characters that no header may have")]
    Characters,
    /// A percent sign without its partner.
    #[error("a command is not closed; write %% for a percent sign")]
    Open,
    /// Not known here.
    #[error("%{0}% is not supported in a header's value; write %% for a percent sign")]
    Command(String),
}

/// What a value is worked out from.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The request, as it came.
    pub request: &'a Request<'a>,
    /// The response, where it is one that is changed.
    pub response: Option<(StatusCode, &'a HeaderMap)>,
    /// Headers of the message that is changed, which are gone already.
    pub removed: &'a [&'a HeaderName],
}

impl Template {
    /// Reads a value.
    ///
    /// # Errors
    /// It cannot be a header's value, or has a command that is not supported.
    pub fn parse(source: &str) -> Result<Self, InvalidTemplate> {
        if source.len() > MAX_TEMPLATE {
            return Err(InvalidTemplate::TooLong(source.len()));
        }
        HeaderValue::from_str(source).map_err(|_| InvalidTemplate::Characters)?;
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once('%') {
            text.push_str(before);
            let (command, after) = after.split_once('%').ok_or(InvalidTemplate::Open)?;
            rest = after;
            if command.is_empty() {
                text.push('%');
                continue;
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text).into()));
            }
            parts.push(self::command(command)?);
        }
        text.push_str(rest);
        let content = if parts.is_empty() {
            Content::Fixed(HeaderValue::from_str(&text).map_err(|_| InvalidTemplate::Characters)?)
        } else {
            if !text.is_empty() {
                parts.push(Part::Text(text.into()));
            }
            Content::Parts(parts.into())
        };
        Ok(Self { source: source.into(), content })
    }

    /// The text as it was written.
    pub fn source(&self) -> &Str {
        &self.source
    }

    /// The value for a message; `None` if it is empty, and then nothing is to be changed.
    pub fn value(&self, message: &Message<'_>) -> Option<HeaderValue> {
        let value = match &self.content {
            Content::Fixed(value) => value.clone(),
            Content::Parts(parts) => {
                let mut text = Vec::new();
                parts.iter().for_each(|part| part.write(message, &mut text));
                HeaderValue::from_bytes(&text).ok()?
            }
        };
        (!value.is_empty()).then_some(value)
    }
}

/// Whether there is a command of this name, without its arguments.
pub fn is_command(name: &str) -> bool {
    side(name).is_some() || FACTS.iter().any(|(known, _)| *known == name)
}

/// Whose header a command with arguments is about.
fn side(command: &str) -> Option<Side> {
    match command {
        "REQ" => Some(Side::Request),
        "RESP" => Some(Side::Response),
        _ => None,
    }
}

/// What stands between two percent signs.
fn command(text: &str) -> Result<Part, InvalidTemplate> {
    if let Some((_, fact)) = FACTS.iter().find(|(name, _)| *name == text) {
        return Ok(Part::Fact(*fact));
    }
    let invalid = || InvalidTemplate::Command(text.to_owned());
    let (name, rest) = text.split_once('(').ok_or_else(invalid)?;
    let of = side(name).ok_or_else(invalid)?;
    let (headers, length) = rest.split_once(')').ok_or_else(invalid)?;
    let longest = match length.strip_prefix(':') {
        Some(number) => Some(number.parse().map_err(|_| invalid())?),
        None if length.is_empty() => None,
        None => return Err(invalid()),
    };
    let (first, second) = headers.split_once('?').map_or((headers, None), |(one, two)| (one, Some(two)));
    let key = |name: &str| HeaderKey::parse(name).ok_or_else(invalid);
    Ok(Part::Header { of, key: key(first)?, or: second.map(key).transpose()?, longest })
}

impl Part {
    fn write(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Fact(fact) => out.extend_from_slice(fact.of(message).as_bytes()),
            Self::Header { of, key, or, longest } => {
                let value = [Some(key), or.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(|key| header(*of, key, message))
                    .find(|value| !value.is_empty())
                    .unwrap_or_default();
                let length = longest.map_or(value.len(), |longest| longest.min(value.len()));
                out.extend_from_slice(&value[..length]);
            }
        }
    }
}

/// The first value of a header; empty if there is none.
fn header(of: Side, key: &HeaderKey, message: &Message<'_>) -> Vec<u8> {
    let request = message.request;
    let headers = match (of, message.response) {
        (Side::Request, _) => request.headers,
        (Side::Response, Some((_, headers))) => headers,
        (Side::Response, None) => return Vec::new(),
    };
    // Removed are headers of the message that is changed.
    let changed = (of == Side::Response) == message.response.is_some();
    match key {
        HeaderKey::Name(name) if changed && message.removed.contains(&name) => Vec::new(),
        HeaderKey::Name(name) => headers.get(name).map(|value| value.as_bytes().to_vec()).unwrap_or_default(),
        _ if of == Side::Response => Vec::new(),
        HeaderKey::Method => request.method.as_str().into(),
        HeaderKey::Scheme => request.scheme.into(),
        HeaderKey::Authority => request.authority.into(),
        HeaderKey::Path => path_and_query(request).into(),
    }
}

impl Fact {
    fn of(self, message: &Message<'_>) -> String {
        let request = message.request;
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = match self {
            Self::ClientAddress => write!(text, "{}", request.client.address),
            Self::ClientIp => write!(text, "{}", request.client.address.ip()),
            Self::ClientPort => write!(text, "{}", request.client.address.port()),
            Self::LocalAddress => write!(text, "{}", request.destination),
            Self::LocalIp => write!(text, "{}", request.destination.ip()),
            Self::LocalPort => write!(text, "{}", request.destination.port()),
            Self::ClientIdentity => request.client.identity.map_or(Ok(()), |one| write!(text, "{one}")),
            Self::ResponseCode => {
                message.response.map_or(Ok(()), |(status, _)| write!(text, "{}", status.as_u16()))
            }
        };
        text
    }
}

#[cfg(test)]
mod tests;
