//! A request's head as it goes to endpoints: what is theirs to know of the client, what is not, and what the rule changes.

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use model::route::head::HeadChanges;
use model::route::headers::Edit;
use model::route::mirror::shadow_authority;
use model::route::select::Forwarding;

use super::chain::{Course, Local};
use super::forwarded;
use super::headers;
use crate::protocol::Http;
use crate::telemetry::Flags;
use crate::upstream::{Gate, RequestBody};

/// A head, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Prepared {
    /// Makes one of what came.
    ///
    /// # Errors
    /// What came, or what the rule makes of it, cannot be sent.
    pub(super) fn new(
        course: &Course<'_>,
        forwarding: Option<&Forwarding<'_>>,
        version: Http,
        upgrade: Option<HeaderValue>,
    ) -> Result<Self, Box<Local>> {
        let changes = match forwarding {
            Some(forwarding) => forwarding.changes(course.seen).map_err(|error| {
                Box::new(Local::new(error.status(), Flags::NONE, "route_rewrite_failed", error.to_string()))
            })?,
            None => HeadChanges { path_and_query: None, authority: None, edits: Vec::new() },
        };
        let inbound = &course.connection.inbound;
        let mut fields = course.head.headers.clone();
        headers::leave_connection(&mut fields, upgrade);
        forwarded::tell(&mut fields, &inbound.client.asker);
        let uri = target(&mut fields, course, &changes, version).ok_or_else(|| {
            let text = "the request's host or path cannot be sent on";
            Box::new(Local::new(StatusCode::BAD_REQUEST, Flags::DPE, "path_or_host_rejected", text))
        })?;
        let edited = !changes.edits.is_empty();
        changes.apply(&mut fields);
        if edited {
            forwarded::uphold(&mut fields, &course.head.headers);
        }
        Ok(Self { method: course.head.method.clone(), uri, headers: fields })
    }

    /// The request of one try; `edits` say how much time it has.
    pub(super) fn request(
        self,
        body: RequestBody,
        gate: Option<&Gate>,
        edits: Vec<Edit>,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        edits.into_iter().for_each(|edit| edit.apply(request.headers_mut()));
        let Some(gate) = gate else {
            // Who is not held back hears from us that it may go on.
            request.headers_mut().remove(header::EXPECT);
            return request;
        };
        let gate = gate.clone();
        hyper::ext::on_informational(&mut request, move |informed| {
            if informed.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
        request
    }
}

impl Prepared {
    /// Its method, target and headers.
    pub(super) fn into_head(self) -> (Method, Uri, HeaderMap) {
        (self.method, self.uri, self.headers)
    }

    /// The same for a copy of the request, marked as one by its host; `None` if it has a host that cannot be marked so.
    pub(super) fn copy(&self, body: RequestBody, version: Http) -> Option<Request<RequestBody>> {
        let mut request = self.clone().request(body, None, Vec::new());
        match version {
            Http::One => {
                let host = request.headers().get(header::HOST)?.to_str().ok()?;
                let host = HeaderValue::from_str(&shadow_authority(host)).ok()?;
                request.headers_mut().insert(header::HOST, host);
            }
            Http::Two => {
                let mut parts = request.uri().clone().into_parts();
                let authority = shadow_authority(parts.authority?.as_str());
                parts.authority = Some(Authority::try_from(authority).ok()?);
                *request.uri_mut() = Uri::from_parts(parts).ok()?;
            }
        }
        Some(request)
    }
}

/// The target in the form that the version wants, from the canonical path; the host is where the version has it.
fn target(headers: &mut HeaderMap, course: &Course<'_>, changes: &HeadChanges, version: Http) -> Option<Uri> {
    let (asked, came) = (course.asked, &course.head.uri);
    let is_canonical =
        |came: &&PathAndQuery| came.path() == asked.path && came.query() == asked.query.as_deref();
    // Nearly always it came as it goes.
    let ready = changes.path_and_query.as_ref().or_else(|| came.path_and_query().filter(is_canonical));
    let path = match (ready, &asked.query) {
        (Some(path), _) => path.clone(),
        (None, Some(query)) => {
            PathAndQuery::from_maybe_shared(bytes::Bytes::from(format!("{}?{query}", asked.path))).ok()?
        }
        (None, None) => PathAndQuery::try_from(asked.path.as_str()).ok()?,
    };
    let authority = changes.authority.as_ref().map_or(asked.authority.as_str(), Authority::as_str);
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    match version {
        Http::One => {
            headers.insert(header::HOST, HeaderValue::from_str(authority).ok()?);
        }
        Http::Two => {
            headers.remove(header::HOST);
            parts.scheme = Some(Scheme::HTTP);
            let same = came.authority().filter(|came| came.as_str() == authority);
            parts.authority = Some(match same {
                Some(same) => same.clone(),
                None => Authority::try_from(authority).ok()?,
            });
        }
    }
    Uri::from_parts(parts).ok()
}
