//! A controller that has been taken over, or has lost its mind: what it says is refused, or never comes.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::Any;
use proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Garbage in every field, resources above what one may have, once a message above what one may be.
    Garbage,
    /// Nothing, for ever.
    Silence,
}

/// More than a client takes in one message (200 MiB) and as one resource (8 MiB).
const MESSAGE: usize = 201 << 20;
const RESOURCE: usize = 9 << 20;
const SMALL: usize = 64;
/// Between two messages.
const EVERY: Duration = Duration::from_millis(5);
/// Messages of a stream; then it breaks off.
const MESSAGES: usize = 200;
/// Names that the garbage goes by.
const NAMES: usize = 100;

pub(super) struct Hostile {
    harm: Harm,
    /// The message that is too large was sent.
    large: AtomicBool,
}

impl Hostile {
    pub(super) fn new(harm: Harm) -> Self {
        Self { harm, large: AtomicBool::new(false) }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Hostile {
    type DeltaAggregatedResourcesStream = Responses;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut said = request.into_inner();
        let large = self.harm == Harm::Garbage && !self.large.swap(true, Ordering::Relaxed);
        let (responses, stream) = tokio::sync::mpsc::channel(1);
        let harm = self.harm;
        tokio::spawn(async move {
            if harm == Harm::Silence {
                while let Some(Ok(_)) = said.next().await {}
                return;
            }
            if large {
                let _ = responses.send(Ok(one(0, MESSAGE))).await;
                return;
            }
            for number in 0..MESSAGES {
                let size = if number % 100 == 50 { RESOURCE } else { SMALL };
                if responses.send(Ok(one(number, size))).await.is_err() {
                    return;
                }
                tokio::time::sleep(EVERY).await;
            }
            let _ = responses.send(Err(Status::internal("enough"))).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// A message of ten resources, none of which can be read.
fn one(number: usize, size: usize) -> DeltaDiscoveryResponse {
    let type_url = [ADDRESS, AUTHORIZATION, MESH_SETTINGS, "type.googleapis.com/nobody.Knows"][number % 4];
    let resources = (0..if size > SMALL { 1 } else { 10 }).map(|at| {
        let name = format!("elsewhere/garbage-{}", (number * 10 + at) % NAMES);
        let value: Vec<u8> = match at % 4 {
            // Nonsense; a length of four gigabytes; messages nested in one another; a workload with half an address.
            0 if size > SMALL => vec![0xa5; size],
            0 => (0..size).map(|byte| (byte.wrapping_mul(167) ^ number) as u8).collect(),
            1 => vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            2 => [0x0a, 0x7e].repeat(size / 2),
            _ => vec![0x0a, 0x0b, 0xa2, 0x01, 1, b'u', 0x1a, 3, 1, 2, 3, 0x22, 0x01],
        };
        let resource = Some(Any { type_url: type_url.to_owned(), value: value.into() });
        Resource { name, version: number.to_string(), resource, ..Resource::default() }
    });
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: number.to_string(),
        resources: resources.collect(),
        removed_resources: vec![String::new(), "\0".to_owned(), "x".repeat(4096)],
        ..DeltaDiscoveryResponse::default()
    }
}
