//! A request's head as it goes to endpoints: what is theirs to know of the client, what is not, and what the rule changes.

use hbone::connection::ConnectionId;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use model::route::head::HeadChanges;
use model::route::headers::Edit;
use model::route::select::Forwarding;

use super::chain::{Course, Local};
use super::forwarded::{self, Asker};
use super::headers;
use super::read::Asked;
use crate::protocol::Http;
use crate::telemetry::Flags;
use crate::upstream::{Gate, RequestBody};

/// A head, ready for as many tries as it takes.
#[derive(Debug)]
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
                let (status, details) = (StatusCode::INTERNAL_SERVER_ERROR, "route_rewrite_failed");
                Box::new(Local::new(status, Flags::NONE, details, error.to_string()))
            })?,
            None => HeadChanges { path_and_query: None, authority: None, edits: Vec::new() },
        };
        let (worker, inbound) = (&course.connection.worker, &course.connection.inbound);
        let client = &inbound.client;
        let mut fields = course.head.headers.clone();
        headers::leave_connection(&mut fields, upgrade);
        let asker = Asker {
            address: client.peer.ip(),
            principal: &client.principal,
            fingerprint: &client.fingerprint,
            is_proxy: inbound.source.as_ref().is_some_and(|source| source.profile.native_tunnel),
        };
        let own = &worker.waypoint.own.principal;
        forwarded::tell(&mut fields, &asker, own, || ConnectionId::random().to_bytes());
        let uri = target(&mut fields, course.asked, &changes, version).ok_or_else(|| {
            let text = "the request's host or path cannot be sent on";
            Box::new(Local::new(StatusCode::BAD_REQUEST, Flags::DPE, "path_or_host_rejected", text))
        })?;
        changes.apply(&mut fields);
        Ok(Self { method: course.head.method.clone(), uri, headers: fields })
    }

    /// The request of one try; `edits` say how much time it has.
    pub(super) fn request(
        &self,
        body: RequestBody,
        gate: Option<&Gate>,
        edits: Vec<Edit>,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
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

/// The target in the form that the version wants, from the canonical path; the host is where the version has it.
fn target(headers: &mut HeaderMap, asked: &Asked, changes: &HeadChanges, version: Http) -> Option<Uri> {
    let path = match (&changes.path_and_query, &asked.query) {
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
            parts.authority = Some(Authority::try_from(authority).ok()?);
        }
    }
    Uri::from_parts(parts).ok()
}
