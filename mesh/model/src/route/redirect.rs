//! Redirects (`HTTPRedirect`): where the client is sent.

use http::{HeaderValue, StatusCode};

use super::condition::path_and_query;
use crate::address::Str;
use crate::request::Request;

/// What of the request's address is replaced; the rest stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `uri`.
    pub path: Option<RedirectPath>,
    /// `authority`.
    pub authority: Option<Str>,
    /// `port` or `derivePort: FROM_REQUEST_PORT`. `None` is also `FROM_PROTOCOL_DEFAULT`.
    pub port: Option<RedirectPort>,
    /// `scheme`.
    pub scheme: Option<Str>,
    /// `redirectCode`: 301 unless it says 302, 303, 307 or 308.
    pub code: StatusCode,
}

/// A new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// All of it. The query is kept, unless this has one.
    Whole(Str),
    /// In place of the prefix that matched (Gateway API, `ReplacePrefixMatch`); the rest and the query stay.
    Prefix(Str),
}

/// A new port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The one that the request came to, whatever its authority says.
    OfRequest,
}

impl Redirect {
    /// The `location` for a request of whose path so many bytes were matched. `None` if it came out as no header's
    /// value, which the authority of a request that HTTP allows does not bring about.
    pub fn location(&self, request: &Request<'_>, matched: usize) -> Option<HeaderValue> {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let default = match scheme {
            "https" => 443,
            _ => 80,
        };
        let port = self.port.map(|port| match port {
            RedirectPort::Number(number) => number,
            RedirectPort::OfRequest => request.destination.port(),
        });
        // What the scheme implies is not said.
        let shown = port.filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
        let host = self.authority.as_deref().unwrap_or_else(|| host(request, scheme, port.is_some()));
        let path = self.path(request, matched);
        HeaderValue::try_from(format!("{scheme}://{host}{shown}{path}")).ok()
    }

    fn path(&self, request: &Request<'_>, matched: usize) -> String {
        let with_query = |path: &str| match request.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        match &self.path {
            None => path_and_query(request),
            Some(RedirectPath::Whole(path)) if path.contains('?') => path.to_string(),
            Some(RedirectPath::Whole(path)) => with_query(path),
            Some(RedirectPath::Prefix(prefix)) => {
                let rest = request.path.get(matched..).unwrap_or_default();
                with_query(&format!("{prefix}{rest}"))
            }
        }
    }
}

/// The request's authority, without a port that another replaces or that another scheme does not imply.
fn host<'a>(request: &Request<'a>, scheme: &str, replaced: bool) -> &'a str {
    let authority = request.authority;
    let Some((host, port)) = split_port(authority) else { return authority };
    let implied = match request.scheme {
        "http" => "80",
        "https" => "443",
        _ => "",
    };
    if replaced || (scheme != request.scheme && port == implied) { host } else { authority }
}

/// Host and port of an authority that has both; `[fd00::1]` has none.
pub(super) fn split_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bare_v6 = port.ends_with(']') || (host.contains(':') && !host.ends_with(']'));
    (!bare_v6).then_some((host, port))
}

#[cfg(test)]
mod tests;
