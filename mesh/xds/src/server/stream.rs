//! One client's stream.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::watch;
use tokio::time;
use tonic::{Status, Streaming};

use super::clients::Seat;
use super::publisher::{Publisher, State};
use super::{Control, MAX_NODE, Report};
use crate::delta::session::{Session, SessionError};
use crate::names;
use crate::node::NodeInfo;

/// A client that has said nothing for so long has nothing to say.
const FIRST_REQUEST: Duration = Duration::from_secs(15);

/// One client's stream.
pub(super) struct Connection<C: Control> {
    control: Arc<C>,
    /// Its place, until it has said who it is.
    seat: Option<Seat<C::Caller>>,
    caller: C::Caller,
    requests: Streaming<DeltaDiscoveryRequest>,
    shown: Option<Shown<C>>,
}

/// What the client is shown, once it has said who it is.
struct Shown<C: Control> {
    control: Arc<C>,
    caller: C::Caller,
    node: NodeInfo,
    publisher: Arc<Publisher>,
    state: watch::Receiver<State>,
    session: Session,
    seat: Seat<C::Caller>,
}

impl<C: Control> Connection<C> {
    pub(super) fn new(
        control: Arc<C>,
        seat: Seat<C::Caller>,
        caller: C::Caller,
        requests: Streaming<DeltaDiscoveryRequest>,
    ) -> Self {
        Self { control, seat: Some(seat), caller, requests, shown: None }
    }

    /// The next response; nothing once the client has gone.
    pub(super) async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let shown = match &mut self.shown {
            Some(shown) => shown,
            None => {
                let first = time::timeout(FIRST_REQUEST, self.requests.message());
                let first = first.await.map_err(|_| Status::deadline_exceeded("no request came"))?;
                let Some(first) = first? else { return Ok(None) };
                let Some(seat) = self.seat.take() else { return Ok(None) };
                let shown = Shown::new(&self.control, seat, &self.caller, &first)?;
                let shown = self.shown.insert(shown);
                shown.take(first)?;
                shown
            }
        };
        loop {
            let closed = shown.state.borrow_and_update().closed;
            if closed {
                return Err(Status::unavailable("the controller is going away; connect again"));
            }
            if let Some(response) = shown.respond()? {
                return Ok(Some(response));
            }
            tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => shown.take(request)?,
                    // A stream that breaks off ends as one that is closed: there is nobody left to tell.
                    Ok(None) | Err(_) => return Ok(None),
                },
                changed = shown.state.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

impl<C: Control> Shown<C> {
    fn new(
        control: &Arc<C>,
        seat: Seat<C::Caller>,
        caller: &C::Caller,
        first: &DeltaDiscoveryRequest,
    ) -> Result<Self, Status> {
        let node =
            first.node.as_ref().ok_or_else(|| Status::invalid_argument("the first request names no node"))?;
        // It is kept as long as the client is there.
        if node.encoded_len() > MAX_NODE {
            let reason = format!("the node says more of itself than {MAX_NODE} bytes; leave metadata out");
            return Err(Status::invalid_argument(reason));
        }
        let node = NodeInfo::from_wire(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let publisher = control.view(caller, &node)?;
        seat.introduce(node.clone());
        control.observe(caller, &node, Report::Connected);
        Ok(Self {
            control: control.clone(),
            caller: caller.clone(),
            state: publisher.subscribe(),
            publisher,
            session: Session::new()
                .sent_unasked(node.node_name().map(names::node))
                .fitted(control.fit(&node)),
            node,
            seat,
        })
    }

    fn report(&self, report: Report<'_>) {
        self.control.observe(&self.caller, &self.node, report);
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let event = self.publisher.read(|store| self.session.request(store, request));
        if event == Err(SessionError::TooManyNames) {
            self.report(Report::TooManyNames);
        }
        let event = event.map_err(status)?;
        if let Some(event) = event {
            self.seat.event(&event);
            self.report(Report::Event(&event));
        }
        Ok(())
    }

    fn respond(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let (response, in_force) = self.publisher.read(|store| {
            let response = self.session.next(store);
            let types = self.session.types(store);
            let in_force =
                types.filter_map(|of| Some((of.clone(), self.session.in_force(store, of)?))).collect();
            (response, in_force)
        });
        self.seat.in_force(in_force);
        let response = response.map_err(status)?;
        if let Some(response) = &response {
            self.report(Report::Sent {
                type_url: &response.type_url,
                resources: response.resources.len(),
                removed: response.removed_resources.len(),
                bytes: response.encoded_len(),
            });
        }
        Ok(response)
    }
}

impl<C: Control> Drop for Shown<C> {
    fn drop(&mut self) {
        self.report(Report::Disconnected);
    }
}

fn status(error: SessionError) -> Status {
    match error {
        SessionError::Behind => Status::aborted(error.to_string()),
        SessionError::TooManyNames => Status::resource_exhausted(error.to_string()),
    }
}
