//! What of a request is hashed, so that requests with the same key go to the same endpoint (`consistentHash`).
//!
//! Hashes are Envoy's (XXH64 of the very bytes that it takes), so that a client that moves from Envoy to us stays at its
//! endpoint.

mod xxh64;

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;
use http::header::COOKIE;

pub(crate) use self::xxh64::xxh64;
use super::{HashCookie, HashKey};
use crate::request::Request;

/// The hash of a request by some key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hashed {
    /// It has the key: this is its hash.
    Hash(u64),
    /// It has no such key: any endpoint will do.
    Missing,
    /// It has none yet; this is the hash of the cookie that the response gives to the client.
    NewCookie {
        /// The hash.
        hash: u64,
        /// What follows `set-cookie: `.
        set_cookie: String,
    },
}

impl Hashed {
    /// The hash, if there is one.
    pub fn hash(&self) -> Option<u64> {
        match self {
            Self::Hash(hash) | Self::NewCookie { hash, .. } => Some(*hash),
            Self::Missing => None,
        }
    }

    /// What follows `set-cookie: `, where the client is to be given a cookie.
    pub fn into_set_cookie(self) -> Option<String> {
        match self {
            Self::NewCookie { set_cookie, .. } => Some(set_cookie),
            Self::Hash(_) | Self::Missing => None,
        }
    }
}

impl HashKey {
    /// The hash of a request.
    pub fn of_request(&self, request: &Request<'_>) -> Hashed {
        match self {
            Self::Header(name) => missing_or(header(request.headers, name)),
            Self::Cookie(cookie) => of_cookie(cookie, request),
            Self::SourceIp => self.of_connection(request.client.address),
            Self::QueryParameter(name) => {
                let value = request.query.and_then(|query| parameter(query, name));
                missing_or(value.map(|value| xxh64(value.as_bytes(), 0)))
            }
        }
    }

    /// The hash of a connection of which no more is known than who opened it: only an address can be its key.
    pub fn of_connection(&self, client: SocketAddr) -> Hashed {
        match self {
            Self::SourceIp => Hashed::Hash(xxh64(client.ip().to_canonical().to_string().as_bytes(), 0)),
            Self::Header(_) | Self::Cookie(_) | Self::QueryParameter(_) => Hashed::Missing,
        }
    }
}

fn missing_or(hash: Option<u64>) -> Hashed {
    hash.map_or(Hashed::Missing, Hashed::Hash)
}

/// A header's hash. Of a repeated one all values count, in the order of their bytes, so that it does not matter in which
/// order they were sent; each is hashed with the hash of those before it as the seed.
fn header(headers: &HeaderMap, name: &str) -> Option<u64> {
    let mut values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    if values.is_empty() {
        return None;
    }
    values.sort_unstable();
    Some(values.into_iter().fold(0, |seed, value| xxh64(value, seed)))
}

/// The value of the first query parameter of a name, as it was sent.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}

fn of_cookie(cookie: &HashCookie, request: &Request<'_>) -> Hashed {
    if let Some(value) = cookie_value(request.headers, &cookie.name) {
        return Hashed::Hash(xxh64(value.as_bytes(), 0));
    }
    let Some(ttl) = cookie.ttl else { return Hashed::Missing };
    // As in Envoy: requests of one connection that come before its first response get the same value.
    let from_whom = format!("{}{}", request.client.address, request.destination);
    let value = format!("{:016x}", xxh64(from_whom.as_bytes(), 0));
    let hash = xxh64(value.as_bytes(), 0);
    Hashed::NewCookie { hash, set_cookie: set_cookie(cookie, &value, ttl) }
}

/// The value of the first cookie of a name; one that is empty is none. Quotes are no part of it.
fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(found, _)| found.trim() == name).map(|(_, value)| value.trim()).next()?;
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (!unquoted.is_empty()).then_some(unquoted)
}

/// What gives the client its cookie: for a session if it lasts for no time.
fn set_cookie(cookie: &HashCookie, value: &str, ttl: Duration) -> String {
    let mut text = format!("{}=\"{value}\"", cookie.name);
    // Writing to a string does not fail.
    if !ttl.is_zero() {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs());
    }
    if let Some(path) = cookie.path.as_deref().filter(|path| !path.is_empty()) {
        let _ = write!(text, "; Path={path}");
    }
    for (name, value) in &cookie.attributes {
        let _ = match value {
            Some(value) => write!(text, "; {name}={value}"),
            None => write!(text, "; {name}"),
        };
    }
    text.push_str("; HttpOnly");
    text
}

#[cfg(test)]
mod tests;
