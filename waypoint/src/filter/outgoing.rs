//! A request's head as it goes, read as one that comes: what a rule makes of it is for the policies of another namespace to
//! see ([`super::policy::leads_away`]).

use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri};

use super::chain::{Course, Local};
use super::prepare::Prepared;
use super::read::{Asked, read};
use crate::listen::Inbound;
use crate::protocol::Http;
use crate::telemetry::Flags;

/// A head as it goes, in the form in which heads are judged.
#[derive(Debug)]
pub(super) struct Outgoing {
    head: Parts,
    asked: Asked,
}

impl Outgoing {
    /// That of a request to an endpoint; the version in which it is sent makes no difference to policy.
    ///
    /// # Errors
    /// As of [`Prepared::new`] and [`read`](Self::read).
    pub(super) fn of(course: &Course<'_>) -> Result<Box<Self>, Box<Local>> {
        let (method, uri, headers) = Prepared::new(course, course.forwarding(), Http::One, None)?.into_head();
        Self::read(method, uri, headers)
    }

    /// That of a request as it stands: with its host in the target, or as a header.
    ///
    /// # Errors
    /// It can be read in two ways.
    pub(super) fn read(method: Method, uri: Uri, headers: HeaderMap) -> Result<Box<Self>, Box<Local>> {
        let (mut head, ()) = Request::new(()).into_parts();
        (head.method, head.uri, head.headers) = (method, uri, headers);
        match read(&head) {
            Ok(asked) => Ok(Box::new(Self { head, asked })),
            Err(error) => {
                let text = format!("what the rule makes of the request is refused: {error}");
                let (status, details) = (StatusCode::BAD_REQUEST, "path_or_host_rejected");
                Err(Box::new(Local::new(status, Flags::DPE, details, text)))
            }
        }
    }

    /// It, as policy sees it.
    pub(super) fn request<'a>(&'a self, inbound: &'a Inbound) -> model::request::Request<'a> {
        self.asked.request(&self.head, inbound)
    }
}
