//! The use of a connection for one request.

use std::rc::Rc;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::traffic::pool::Ticket;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Counted, Freed, Opened};
use super::rules::Rules;
use super::{Key, One};
use crate::pace::Paced;
use crate::upstream::{Answer, Broken, Io, RequestBody, two};
use crate::worker::Worker;

/// What is left of a connection when HTTP is over on it.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The connection, and what was read of it already.
    pub(crate) http: http1::Parts<TokioIo<Paced<Io>>>,
    /// It counts as one for as long as it lasts.
    pub(crate) opened: Opened,
}

/// The use of a connection for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) used: Used,
    pub(super) pooled: bool,
    /// Counts the request, where requests are counted.
    pub(super) ticket: Option<Ticket>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and is moved, not kept")]
pub(super) enum Used {
    One { one: One, key: Key, rules: Rules },
    Two { sender: two::Sender, _counted: Counted, _freed: Freed },
}

impl Lease {
    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// The connection's, and the request where nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Answer>, (Broken, Option<Request<RequestBody>>)> {
        match &mut self.used {
            Used::One { one, .. } => {
                one.pace.begin();
                request.body_mut().keep_to(&one.pace);
                one.sender.try_send_request(request).await.map(|response| response.map(Answer::One)).map_err(
                    |mut error| {
                        let unsent = error.take_message();
                        (error.into_error().into(), unsent)
                    },
                )
            }
            Used::Two { sender, .. } => match sender.send(request).await {
                Ok(response) => Ok(response.map(Answer::Two)),
                Err((error, unsent)) => Err((error.into(), unsent)),
            },
        }
    }

    /// Whether the connection had been there before.
    pub(crate) fn was_pooled(&self) -> bool {
        self.pooled
    }

    /// The connection itself, once the endpoint has agreed to speak something else on it, and what counts the request.
    pub(crate) fn leave_http(self) -> Option<(oneshot::Receiver<Parts>, Option<Ticket>)> {
        match self.used {
            Used::One { one, .. } => Some((one.left, self.ticket)),
            Used::Two { .. } => None,
        }
    }

    /// The answer is whole: the connection may be used again as soon as the request is.
    pub(crate) fn done(self, worker: &Rc<Worker>) {
        let Used::One { mut one, key, rules } = self.used else { return };
        one.since = Instant::now();
        if one.sender.is_closed() || !rules.may_carry(one.carried, one.opened) {
            return;
        }
        if one.sender.is_ready() {
            return worker.pools.keep(key, one);
        }
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            if one.sender.ready().await.is_ok() {
                worker.pools.keep(key, one);
            }
        });
    }
}
