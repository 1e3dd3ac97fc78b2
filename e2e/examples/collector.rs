//! A collector of traces, for pods in the end-to-end tests: takes OTLP over gRPC and prints a line of JSON for each span.
//! With `silent` it takes calls and never answers.

use std::io::Write as _;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use serde_json::json;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

#[derive(Debug, Clone, Copy)]
struct Collector {
    silent: bool,
}

fn tags(attributes: &[KeyValue]) -> serde_json::Map<String, serde_json::Value> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|one| (one.key.clone(), text(one).into())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.silent {
            println!("{{\"silent\":true}}");
            std::future::pending::<()>().await;
        }
        let mut out = std::io::stdout().lock();
        for group in request.into_inner().resource_spans {
            let resource = tags(group.resource.as_ref().map_or(&[][..], |resource| &resource.attributes));
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let line = json!({
                    "resource": resource,
                    "name": span.name,
                    "trace": hex(&span.trace_id),
                    "id": hex(&span.span_id),
                    "parent": hex(&span.parent_span_id),
                    "kind": span.kind,
                    "failed": span.status.as_ref().is_some_and(|status| status.code == 2),
                    "micros": span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) / 1000,
                    "tags": tags(&span.attributes),
                });
                let _ = writeln!(out, "{line}");
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = arguments.first().ok_or("collector PORT [silent]")?;
    let silent = arguments.get(1).is_some_and(|word| word == "silent");
    let server = Server::builder().add_service(TraceServiceServer::new(Collector { silent }));
    Ok(server.serve(format!("[::]:{port}").parse()?).await?)
}
