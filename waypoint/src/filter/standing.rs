//! A request whose connection speaks something else than HTTP since: whoever may not ask for it any more, because a policy has
//! changed, does not go on with what came of it. As for connections that are carried as bytes ([`crate::tcp`]).

use std::rc::Rc;

use http::request::Parts;

use super::policy::{self, Denied, Judged};
use super::read::Asked;
use crate::http::Connection;
use crate::route::Endpoint;

/// What was asked for, and whom it went to.
#[derive(Debug)]
pub(crate) struct Standing {
    head: Parts,
    asked: Asked,
    endpoint: Rc<Endpoint>,
}

impl Standing {
    pub(super) fn new(head: Parts, asked: Asked, endpoint: Rc<Endpoint>) -> Self {
        Self { head, asked, endpoint }
    }

    /// Waits until a policy denies it.
    pub(crate) async fn denied(&self, connection: &Connection) -> Denied {
        let Connection { worker, inbound, .. } = connection;
        let seen = self.asked.request(&self.head, inbound);
        policy::until_denied(worker, inbound, &self.endpoint, Judged::Request(&seen)).await
    }
}
