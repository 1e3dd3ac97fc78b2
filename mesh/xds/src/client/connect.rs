//! Opens one stream: connection, token, headers, and the requests it begins with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::ClientConfig;
use crate::delta::subscriber::StartOver;

/// Istio's controller sends everything at once.
const MAX_MESSAGE: usize = 200 << 20;
/// Answers that may wait to be sent.
const REQUESTS: usize = 16;
/// From the first packet to the answer's headers. Less than what counts as a connection that did its work
/// ([`Backoff`](super::backoff::Backoff)).
const OPENING: Duration = Duration::from_secs(10);
/// Larger than any token should be.
const MAX_FILE: u64 = 1 << 20;

/// Makes a connection to the controller, trust and all; called for every stream.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync>;

/// Why there is no stream.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A file that is needed cannot be read.
    #[error("cannot read {path}: {source}; is the volume mounted?")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// No connection.
    #[error("cannot connect: {}; is the controller running, and does its certificate carry this name?", chain(.0))]
    Transport(#[from] tonic::transport::Error),
    /// The controller does not answer.
    #[error("no answer within {} s; is the controller overloaded, or does something answer in its place?", OPENING.as_secs())]
    Silent,
    /// The controller ended the stream with an error.
    #[error("the controller says: {}", .0.message())]
    Status(Box<tonic::Status>),
    /// The controller ended the stream.
    #[error("the stream has ended")]
    Closed,
    /// The controller is not the one it was.
    #[error(transparent)]
    StartOver(#[from] StartOver),
}

impl ConnectError {
    pub(super) fn from_status(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<mpsc::error::SendError<DeltaDiscoveryRequest>> for ConnectError {
    fn from(_: mpsc::error::SendError<DeltaDiscoveryRequest>) -> Self {
        Self::Closed
    }
}

/// An error with what caused it; tonic's alone says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What is to be sent: to put it in, and to take it out.
type Requests = (mpsc::Sender<DeltaDiscoveryRequest>, mpsc::Receiver<DeltaDiscoveryRequest>);

/// What a stream begins with, before there is one: a server may send its headers only with its first response.
pub(super) async fn requests(opening: Vec<DeltaDiscoveryRequest>) -> Result<Requests, ConnectError> {
    let (requests, outbound) = mpsc::channel(REQUESTS.max(opening.len()));
    for request in opening {
        requests.send(request).await?;
    }
    Ok((requests, outbound))
}

/// Opens a stream of these requests, within ten seconds; what it goes over takes other streams too.
pub(super) async fn open(
    config: &ClientConfig,
    outbound: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<Stream, ConnectError> {
    timeout(OPENING, call(config, outbound)).await.unwrap_or(Err(ConnectError::Silent))
}

type Stream = (Streaming<DeltaDiscoveryResponse>, Channel);

async fn call(
    config: &ClientConfig,
    outbound: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<Stream, ConnectError> {
    let channel = (config.dial)().await?;
    let mut request = Request::new(ReceiverStream::new(outbound));
    add_headers(config, &mut request).await?;
    let mut client = AggregatedDiscoveryServiceClient::<Channel>::new(channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let response = client.delta_aggregated_resources(request).await.map_err(ConnectError::from_status)?;
    Ok((response.into_inner(), channel))
}

/// Adds what proves to the controller who calls.
pub(crate) async fn add_headers<T>(
    config: &ClientConfig,
    request: &mut Request<T>,
) -> Result<(), ConnectError> {
    let metadata = request.metadata_mut();
    if let Some(path) = &config.token_file {
        let token = read(path).await?;
        let mut value: AsciiMetadataValue = format!("Bearer {}", token.trim()).parse().map_err(|_| {
            ConnectError::Config(format!("the token in {} is no header value", path.display()))
        })?;
        value.set_sensitive(true);
        metadata.insert("authorization", value);
    }
    let cluster = ("clusterid".to_owned(), config.cluster_id.clone());
    for (name, value) in config.headers.iter().chain([&cluster]) {
        let wrong = || ConnectError::Config(format!("{name}: {value:?} is no header"));
        let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|_| wrong())?;
        metadata.insert(key, value.parse().map_err(|_| wrong())?);
    }
    Ok(())
}

async fn read(path: &Path) -> Result<String, ConnectError> {
    let failed = |source| ConnectError::File { path: path.to_owned(), source };
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(ConnectError::Config(format!("{} has {size} bytes; that is no token", path.display())));
    }
    tokio::fs::read_to_string(path).await.map_err(failed)
}
