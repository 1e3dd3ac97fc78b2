//! The controller's end of the streams: authenticates clients, and drives one [`Session`] for each over what is
//! [published](Publisher).
//!
//! A stream is a task of nobody: the transport asks for the next response when there is room for it, and only then
//! is it made, from what is published at that moment.

mod clients;
mod publisher;
mod responses;
mod stream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream as streams};
use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

pub use self::clients::{ClientId, ClientStatus, Clients};
pub use self::publisher::Publisher;
use self::responses::Responses;
use self::stream::Connection;
use crate::delta::session::{Event, Fit};
use crate::node::NodeInfo;

/// The largest request. A client of another's that comes back names everything it has: 200,000 resources by some 80
/// bytes, of no versions. Ours sends digests instead, or the 2^17 names it may have asked for, each twice (as asked for
/// and, with its version, as there).
pub(crate) const MAX_REQUEST: usize = 32 << 20;
/// The largest introduction in one, of who the client is.
pub(crate) const MAX_NODE: usize = 64 << 10;
/// Clients at once, unless said otherwise.
const MAX_CLIENTS: usize = 10_000;
/// The same of one caller, unless said otherwise: a proxy, the one that takes over from it, and what is left of
/// connections that broke.
const MAX_OF_CALLER: usize = 8;

/// What the owner of the server decides.
pub trait Control: Send + Sync + 'static {
    /// Who a client has proved to be.
    type Caller: Clone + Ord + Send + Sync + 'static;

    /// Authenticates a client by the headers of its call; the extensions say what the transport knows of it.
    fn authenticate(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> impl Future<Output = Result<Self::Caller, Status>> + Send;

    /// What a client is shown, by who it has proved to be and what it says of itself. Refuse it here if the two do
    /// not agree.
    ///
    /// # Errors
    /// It is shown nothing; the status ends its stream.
    fn view(&self, caller: &Self::Caller, node: &NodeInfo) -> Result<Arc<Publisher>, Status>;

    /// What a client is sent in the place of what it would not understand, by what it says of itself.
    fn fit(&self, node: &NodeInfo) -> Option<Fit> {
        let _ = node;
        None
    }

    /// How many streams a caller may have; the oldest ends for a further one.
    fn streams_of(&self, caller: &Self::Caller) -> usize {
        let _ = caller;
        MAX_OF_CALLER
    }

    /// Told of limits that a caller runs into, for metrics and logs.
    fn exceeded(&self, caller: &Self::Caller, excess: Excess) {
        let _ = (caller, excess);
    }

    /// Told what happens, for metrics and logs.
    fn observe(&self, caller: &Self::Caller, node: &NodeInfo, report: Report<'_>) {
        let _ = (caller, node, report);
    }
}

/// A limit that a caller runs into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It has as many streams as one caller may; its oldest ends.
    OfCaller,
    /// There are as many clients as there may be; it is turned away.
    OfAll,
}

/// What happened on a stream.
#[derive(Debug)]
pub enum Report<'a> {
    /// A client is there.
    Connected,
    /// A response goes out.
    Sent {
        /// The type.
        type_url: &'a str,
        /// Resources in it.
        resources: usize,
        /// Names removed by it.
        removed: usize,
        /// Its size.
        bytes: usize,
    },
    /// The client said something.
    Event(&'a Event),
    /// The client asks for more names than one may; its stream ends.
    TooManyNames,
    /// The client is gone.
    Disconnected,
}

/// Serves delta xDS.
pub struct Server<C: Control> {
    control: Arc<C>,
    clients: Arc<Clients<C::Caller>>,
}

impl<C: Control> Server<C> {
    /// A server of what `control` shows to whom.
    pub fn new(control: Arc<C>) -> Self {
        Self::with_max_clients(control, MAX_CLIENTS)
    }

    /// The same, with another limit of clients at once.
    pub fn with_max_clients(control: Arc<C>, max: usize) -> Self {
        Self { control, clients: Arc::new(Clients::new(max)) }
    }

    /// The clients that are connected, and what they have.
    pub fn clients(&self) -> Arc<Clients<C::Caller>> {
        self.clients.clone()
    }

    /// As a service to add to a [`tonic::transport::Server`].
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<impl AggregatedDiscoveryService> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

/// What the transport takes from.
type Taken = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl<C: Control> AggregatedDiscoveryService for Server<C> {
    type DeltaAggregatedResourcesStream = Taken;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Taken>, Status> {
        let control = &self.control;
        let caller = control.authenticate(request.metadata(), request.extensions()).await?;
        let (responses, ender) = Responses::new();
        let (seat, ousted) = self.clients.seat(caller.clone(), control.streams_of(&caller), ender);
        if let Some(ousted) = ousted {
            control.exceeded(&caller, Excess::OfCaller);
            ousted.end(Status::resource_exhausted(
                "this caller has opened too many streams, and this is the oldest; does a proxy open one after the \
                 other, or is its token in use elsewhere?",
            ));
        }
        let seat = seat.ok_or_else(|| {
            control.exceeded(&caller, Excess::OfAll);
            Status::resource_exhausted("too many clients; raise the limit or add a replica")
        })?;
        let connection = Connection::new(control.clone(), seat, caller, request.into_inner());
        responses.fill(Box::pin(streams::unfold(Some(connection), |connection| async {
            let mut connection = connection?;
            match connection.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(connection))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })));
        Ok(Response::new(Box::pin(responses)))
    }
}
