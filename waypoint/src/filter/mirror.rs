//! Copies of requests (`mirror`, `mirrors`): sent beside the original, which never waits for them, and answered to nobody.
//! A copy is judged by policy like any request, tried once, and ends if it cannot keep up with the body.

use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Body as _;
use model::route::Destination;
use model::route::mirror::mirrors;
use model::route::select::Forwarding;
use proxy::random::draw;
use tokio::time::timeout;

use super::chain::Course;
use super::forward::note;
use super::outgoing::Outgoing;
use super::policy::{self, Judged};
use super::prepare::Prepared;
use super::read::Asked;
use crate::balance::Tried;
use crate::http::Connection;
use crate::known::Edition;
use crate::limits::Limit;
use crate::protocol::Http;
use crate::route::{self, Wish};
use crate::upstream::{self, Answer, Lease, RequestBody, SharedSource};
use crate::worker::Worker;

/// How long a copy may take where its rule says nothing.
const LONGEST: Duration = Duration::from_secs(15);
/// Bytes of an answer that are read so that the connection can be used again.
const ANSWER: u64 = 1 << 20;

/// All that a copy needs: it may outlive the request.
struct Copy {
    connection: Rc<Connection>,
    head: Parts,
    asked: Asked,
    routing: Edition,
    destination: Destination,
    version: Http,
    request: Request<RequestBody>,
}

/// Counts a copy under way while it lasts.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Option<Self> {
        let copies = &worker.copies;
        if copies.get() >= worker.waypoint.bounds.copies {
            worker.waypoint.hits.hit(Limit::Copies);
            return None;
        }
        copies.set(copies.get() + 1);
        Some(Self(worker.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.copies.set(self.0.copies.get().saturating_sub(1));
    }
}

/// Sends the copies of a request that its rule asks for. To be called before any of its body is read.
pub(super) fn send(
    course: &Course<'_>,
    forwarding: &Forwarding<'_>,
    prepared: &Prepared,
    version: Http,
    source: &SharedSource,
) {
    let longest = forwarding.forward.timeout.filter(|time| !time.is_zero()).unwrap_or(LONGEST);
    for destination in mirrors(&forwarding.forward.mirrors, &mut draw) {
        let Some(counted) = Counted::new(&course.connection.worker) else { return };
        let Some(request) = prepared.copy(RequestBody::copy(source), version) else { return };
        let copy = Copy {
            connection: course.connection.clone(),
            head: course.head.clone(),
            asked: course.asked.clone(),
            routing: course.routing.clone(),
            destination: destination.clone(),
            version,
            request,
        };
        tokio::task::spawn_local(async move {
            let _counted = counted;
            if timeout(longest, copy.send()).await.is_err() {
                tracing::debug!("a copy of a request took too long");
            }
        });
    }
}

impl Copy {
    async fn send(self) {
        let (worker, inbound) = (&self.connection.worker, &self.connection.inbound);
        let seen = self.asked.request(&self.head, inbound);
        let tried = Tried::default();
        let wish = Wish {
            routing: &self.routing,
            destination: Some(&self.destination),
            request: Some(&seen),
            tried: &tried,
        };
        let endpoint = match route::endpoint(worker, inbound, &wish).await {
            Ok(endpoint) => endpoint,
            Err(error) => return tracing::debug!(%error, "a copy of a request goes nowhere"),
        };
        let outgoing = match policy::leads_away(inbound, &endpoint) {
            false => None,
            true => {
                let (method, uri) = (self.request.method().clone(), self.request.uri().clone());
                match Outgoing::read(method, uri, self.request.headers().clone()) {
                    Ok(outgoing) => Some(outgoing),
                    Err(_) => return tracing::debug!("what a rule makes of a copy of a request is refused"),
                }
            }
        };
        let goes = outgoing.as_ref().map(|outgoing| outgoing.request(inbound));
        let judged = Judged::Request { came: &seen, goes: goes.as_ref() };
        if let Err(denied) = policy::judge(worker, inbound, Some(&endpoint), judged).await {
            return tracing::debug!(%denied, "a copy of a request is not allowed");
        }
        let sent = upstream::send(worker, inbound, &endpoint, self.version, self.request).await;
        match sent {
            Ok((response, lease)) => {
                note(&endpoint, Ok(&response), self.asked.grpc);
                drain(response, lease, worker).await;
            }
            Err((error, _)) => {
                note(&endpoint, Err(&error), self.asked.grpc);
                tracing::debug!(%error, "a copy of a request failed");
            }
        }
    }
}

/// Reads an answer to its end, unless that is far, so that others can use its connection.
async fn drain(response: Response<Answer>, lease: Lease, worker: &Rc<Worker>) {
    let mut body = response.into_body();
    let mut seen = 0;
    while !body.is_end_stream() {
        let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        match next {
            None => break,
            Some(Err(_)) => return,
            Some(Ok(frame)) => seen += frame.data_ref().map_or(0, |data| data.len() as u64),
        }
        if seen > ANSWER {
            return;
        }
    }
    lease.done(worker);
}
