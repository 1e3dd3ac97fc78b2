//! The access log's lines, in Istio's default format for requests, as text or JSON, with the cause of what was decided at
//! the end.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Display, Write as _};
use std::time::{Duration, SystemTime};

use daemon::log::{Format, Log};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::Level;

use super::Flags;
use crate::listen::Inbound;
use crate::route::{Endpoint, Hop};

/// What is said of a request beside its end.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) method: Method,
    /// As it came.
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) authority: String,
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) request_id: Option<HeaderValue>,
}

impl Said {
    /// Takes out of a head what its line will need.
    pub(crate) fn of(
        method: &Method,
        uri: &Uri,
        version: Version,
        authority: &str,
        headers: &HeaderMap,
    ) -> Self {
        let header = |name: &str| headers.get(name).cloned();
        Self {
            method: method.clone(),
            uri: uri.clone(),
            version,
            authority: authority.to_owned(),
            forwarded_for: header("x-forwarded-for"),
            user_agent: header("user-agent"),
            request_id: header("x-request-id"),
        }
    }
}

/// All of a line.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) at: SystemTime,
    pub(super) request: Option<&'a Said>,
    pub(super) status: u16,
    pub(super) flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) details: &'a str,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub(super) termination: Option<&'a str>,
    /// Why the endpoint could not be reached, or what broke.
    pub(super) failure: Option<&'a str>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) duration: Duration,
    pub(super) upstream_time: Option<Duration>,
    pub(super) endpoint: Option<&'a Endpoint>,
    pub(super) inbound: &'a Inbound,
    /// The cluster of the destination that a rule names.
    pub(super) cluster: Option<&'a str>,
    /// The resource and rule that decided.
    pub(super) cause: Option<&'a str>,
    /// `%ROUTE_NAME%`.
    pub(super) route_name: &'a str,
}

/// Writes a line, if the access log is wanted.
pub(super) fn write(log: &Log, entry: &Entry<'_>) {
    log.access_line(Level::INFO, |out, format| {
        // Formatting into a buffer does not fail.
        let _ = match format {
            Format::Plain => text(out, entry),
            Format::Json => json(out, entry),
        };
    });
}

/// Text that stays on its line and in its quotes; `-` where there is none.
struct Quoted<T>(Option<T>);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = &self.0 else { return f.write_str("-") };
        struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                // Nearly always there is nothing to escape.
                if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
                    return self.0.write_str(text);
                }
                for c in text.chars() {
                    match c {
                        '"' => self.0.write_str("\\\"")?,
                        '\\' => self.0.write_str("\\\\")?,
                        c if c.is_control() => write!(self.0, "\\u{:04x}", u32::from(c))?,
                        c => self.0.write_char(c)?,
                    }
                }
                Ok(())
            }
        }
        write!(Escaping(f), "{value}")
    }
}

/// A value, or `-`.
struct Bare<T>(Option<T>);

impl<T: Display> Display for Bare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// The header's text; what is no text is shown as it would be in a string.
pub(super) fn shown(value: Option<&HeaderValue>) -> Option<Cow<'_, str>> {
    value.map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// `%PROTOCOL%`.
pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// `%START_TIME%`. What precedes the fraction of a second is put together once a second on each thread.
fn start(at: SystemTime) -> String {
    thread_local!(static LAST: RefCell<(u64, String)> = RefCell::default());
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].");
            *text = OffsetDateTime::from(at).format(format).unwrap_or_default();
            *second = since.as_secs();
        }
        let millis = since.subsec_millis();
        let digit = |place: u32| char::from_digit(millis / place % 10, 10).unwrap_or('0');
        let mut whole = String::with_capacity(text.len() + 4);
        whole.push_str(text);
        whole.extend([digit(100), digit(10), digit(1), 'Z']);
        whole
    })
}

/// The name that Istio gives the cluster of a service's port at a waypoint.
pub(super) fn cluster_name(port: u16, protocol: &str, subset: Option<&str>, host: &str) -> String {
    match subset {
        Some(subset) => put_together(format_args!("inbound-vip|{port}|{protocol}/{subset}|{host}")),
        None => put_together(format_args!("inbound-vip|{port}|{protocol}|{host}")),
    }
}

/// A text of a line's, which is made for each request: in room that nearly always does, instead of growing piece by piece.
pub(super) fn put_together(text: fmt::Arguments<'_>) -> String {
    let mut whole = String::with_capacity(96);
    // Formatting into a String does not fail.
    let _ = whole.write_fmt(text);
    whole
}

/// `%UPSTREAM_CLUSTER_RAW%`: of what the rule names, else of what was asked for.
pub(super) fn cluster<'a>(entry: &Entry<'a>) -> Cow<'a, str> {
    let target = &entry.inbound.target;
    match (entry.cluster, &target.service) {
        (Some(named), _) => named.into(),
        (None, Some(service)) => {
            let protocol = if entry.request.is_some() { "http" } else { "tcp" };
            cluster_name(target.destination.port(), protocol, None, service.key.hostname()).into()
        }
        (None, None) => "encap".into(),
    }
}

fn text(out: &mut Vec<u8>, entry: &Entry<'_>) -> std::io::Result<()> {
    use std::io::Write as _;
    let request = entry.request;
    let path = request.map(|said| said.uri.path_and_query().map_or("/", |path| path.as_str()));
    let upstream = entry.endpoint.map(|endpoint| endpoint.address);
    writeln!(
        out,
        "[{}] \"{} {} {}\" {} {} {} {} \"{}\" {} {} {} {} \"{}\" \"{}\" \"{}\" \"{}\" \"{}\" {} - {} {} - {} \"{}\"",
        start(entry.at),
        Bare(request.map(|said| &said.method)),
        Quoted(path),
        Bare(request.map(|said| version(said.version))),
        entry.status,
        entry.flags,
        entry.details,
        Bare(entry.termination),
        Quoted(entry.failure),
        entry.received,
        entry.sent,
        entry.duration.as_millis(),
        Bare(entry.upstream_time.map(|time| time.as_millis())),
        Quoted(request.and_then(|said| shown(said.forwarded_for.as_ref()))),
        Quoted(request.and_then(|said| shown(said.user_agent.as_ref()))),
        Quoted(request.and_then(|said| shown(said.request_id.as_ref()))),
        Quoted(request.map(|said| &said.authority)),
        Bare(upstream),
        cluster(entry),
        entry.inbound.target.destination,
        entry.inbound.client.peer,
        Quoted(Some(entry.route_name)),
        Quoted(entry.cause),
    )
}

fn json(out: &mut Vec<u8>, entry: &Entry<'_>) -> std::io::Result<()> {
    use std::io::Write as _;
    let request = entry.request;
    let path = request.map(|said| said.uri.path_and_query().map_or("/", |path| path.as_str()));
    let hop = entry.endpoint.map(|endpoint| match &endpoint.hop {
        Hop::Tunnel { next_hop, .. } | Hop::Plain(next_hop) => *next_hop,
    });
    let numbers = [
        ("response_code", u128::from(entry.status)),
        ("bytes_received", u128::from(entry.received)),
        ("bytes_sent", u128::from(entry.sent)),
        ("duration", entry.duration.as_millis()),
    ];
    write!(out, "{{\"start_time\":\"{}\"", start(entry.at))?;
    for (key, value) in numbers {
        write!(out, ",\"{key}\":{value}")?;
    }
    if let Some(time) = entry.upstream_time {
        write!(out, ",\"upstream_service_time\":{}", time.as_millis())?;
    }
    let mut field = |key: &str, value: Option<&dyn Display>| match value {
        Some(value) => write!(out, ",\"{key}\":\"{}\"", Quoted(Some(value))),
        None => write!(out, ",\"{key}\":null"),
    };
    let forwarded_for = request.and_then(|said| shown(said.forwarded_for.as_ref()));
    let user_agent = request.and_then(|said| shown(said.user_agent.as_ref()));
    let request_id = request.and_then(|said| shown(said.request_id.as_ref()));
    field("method", request.map(|said| &said.method as &dyn Display))?;
    field("path", path.as_ref().map(|path| path as &dyn Display))?;
    field("protocol", request.map(|said| version(said.version)).as_ref().map(|said| said as &dyn Display))?;
    field("response_flags", Some(&entry.flags))?;
    field("response_code_details", Some(&entry.details))?;
    field("connection_termination_details", entry.termination.as_ref().map(|text| text as &dyn Display))?;
    field("upstream_transport_failure_reason", entry.failure.as_ref().map(|text| text as &dyn Display))?;
    field("x_forwarded_for", forwarded_for.as_ref().map(|text| text as &dyn Display))?;
    field("user_agent", user_agent.as_ref().map(|text| text as &dyn Display))?;
    field("request_id", request_id.as_ref().map(|text| text as &dyn Display))?;
    field("authority", request.map(|said| &said.authority as &dyn Display))?;
    field("upstream_host", entry.endpoint.map(|endpoint| &endpoint.address as &dyn Display))?;
    field("upstream_hop", hop.as_ref().map(|hop| hop as &dyn Display))?;
    field("upstream_cluster", Some(&cluster(entry)))?;
    field("downstream_local_address", Some(&entry.inbound.target.destination))?;
    field("downstream_remote_address", Some(&entry.inbound.client.peer))?;
    field("downstream_peer", Some(&entry.inbound.client.principal))?;
    field("requested_server_name", None)?;
    field("route_name", Some(&entry.route_name))?;
    field("cause", entry.cause.as_ref().map(|cause| cause as &dyn Display))?;
    out.extend_from_slice(b"}\n");
    Ok(())
}
