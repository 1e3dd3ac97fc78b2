//! A request whose connection speaks something else than HTTP since: whoever may not ask for it any more, because a policy has
//! changed, does not go on with what came of it. As for connections that are carried as bytes ([`crate::tcp`]).

use std::rc::Rc;

use http::request::Parts;

use super::chain::Course;
use super::outgoing::Outgoing;
use super::policy::{self, Denied, Judged};
use super::read::Asked;
use crate::http::Connection;
use crate::route::Endpoint;

/// What was asked for, and whom it went to.
#[derive(Debug)]
pub(crate) struct Standing {
    head: Parts,
    asked: Asked,
    /// As it went, where that was judged as well.
    outgoing: Option<Box<Outgoing>>,
    endpoint: Rc<Endpoint>,
}

impl Standing {
    pub(super) fn new(course: &Course<'_>, endpoint: Rc<Endpoint>) -> Self {
        // It has gone so.
        let outgoing = course.outgoing(Some(&endpoint)).unwrap_or_default();
        Self { head: course.head.clone(), asked: course.asked.clone(), outgoing, endpoint }
    }

    /// Waits until a policy denies it.
    pub(crate) async fn denied(&self, connection: &Connection) -> Denied {
        let Connection { worker, inbound, .. } = connection;
        let came = self.asked.request(&self.head, inbound);
        let goes = self.outgoing.as_ref().map(|outgoing| outgoing.request(inbound));
        let judged = Judged::Request { came: &came, goes: goes.as_ref() };
        policy::until_denied(worker, inbound, &self.endpoint, judged).await
    }
}
