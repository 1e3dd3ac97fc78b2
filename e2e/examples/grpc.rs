//! A gRPC server and client, for pods in the end-to-end tests: a unary call, a refused one (its status is in the
//! trailers), and a stream in both directions. The services are two that the workspace has protos for.

use std::pin::Pin;

use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// Messages of the stream, each way.
const MESSAGES: usize = 500;

#[derive(Debug, Clone, Copy)]
struct Answering;

#[tonic::async_trait]
impl IstioCertificateService for Answering {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let text = request.into_inner().csr;
        if text == "refuse" {
            return Err(Status::failed_precondition("refused, as asked"));
        }
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![text] }))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Answering {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let answers = request.into_inner().map(|asked| {
            asked.map(|asked| DeltaDiscoveryResponse { type_url: asked.type_url, ..Default::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port] => {
            let server = Server::builder()
                .add_service(IstioCertificateServiceServer::new(Answering))
                .add_service(AggregatedDiscoveryServiceServer::new(Answering));
            server.serve(format!("[::]:{port}").parse()?).await?;
        }
        ["call", target] => call(target).await?,
        _ => return Err("grpc serve PORT | call HOST:PORT".into()),
    }
    Ok(())
}

async fn call(target: &str) -> Result<(), Box<dyn std::error::Error>> {
    let channel = Channel::from_shared(format!("http://{target}"))?.connect().await?;
    let mut unary = IstioCertificateServiceClient::new(channel.clone());
    let asked = IstioCertificateRequest { csr: "x".repeat(100_000), ..Default::default() };
    let answer = unary.create_certificate(asked).await?.into_inner();
    if answer.cert_chain != ["x".repeat(100_000)] {
        return Err("the unary call came back changed".into());
    }
    let refused = IstioCertificateRequest { csr: "refuse".into(), ..Default::default() };
    match unary.create_certificate(refused).await {
        Err(status) if status.code() == Code::FailedPrecondition => println!("status: {}", status.message()),
        other => return Err(format!("the refusal came as {other:?}").into()),
    }
    let asked = tokio_stream::iter(0..MESSAGES)
        .map(|number| DeltaDiscoveryRequest { type_url: number.to_string(), ..Default::default() });
    let mut stream =
        AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(asked).await?.into_inner();
    let mut count = 0;
    while let Some(message) = stream.message().await? {
        if message.type_url != count.to_string() {
            return Err(format!("message {count} is {}", message.type_url).into());
        }
        count += 1;
    }
    if count != MESSAGES {
        return Err(format!("{count} messages of {MESSAGES} came back").into());
    }
    println!("messages: {count}");
    Ok(())
}
