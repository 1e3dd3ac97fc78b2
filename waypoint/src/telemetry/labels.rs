//! The labels of a series, in the order of Istio's.

use std::fmt;
use std::hash::{Hash, Hasher};

use daemon::metrics::end::{End, ServiceLabels};
use daemon::metrics::traffic::{Labels, Reporter};
use model::baggage::Baggage;
use model::service::Service;
use model::workload::Workload;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use super::Flags;
use crate::listen::Client;
use crate::route::Endpoint;

/// What a series of requests is told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestLabels {
    /// Who is at the ends; its flags are not used.
    pub(crate) ends: Labels,
    /// The status; 0 where the client went away before there was one.
    pub(crate) code: u16,
    /// The status of gRPC, for requests of gRPC.
    pub(crate) grpc: Option<GrpcStatus>,
    /// How it ended.
    pub(crate) flags: Flags,
}

/// The status of a gRPC call; none where it ended without one.
pub(crate) type GrpcStatus = Option<u16>;

/// A status as clients of gRPC take it: what is none of the 17 that there are is UNKNOWN (the status
/// codes of gRPC). An endpoint that makes numbers up makes no series of them.
pub(super) fn known_status(said: u16) -> u16 {
    const UNKNOWN: u16 = 2;
    const UNAUTHENTICATED: u16 = 16;
    if said > UNAUTHENTICATED { UNKNOWN } else { said }
}

/// By what tells most series apart.
impl Hash for RequestLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.ends, self.code, self.grpc, self.flags).hash(state);
    }
}

impl RequestLabels {
    /// What does not fit under the cap.
    pub(crate) fn overflow() -> Self {
        let ends = labels(End::default(), None, None, None, Flags::NONE);
        Self { ends, code: 0, grpc: None, flags: Flags::NONE }
    }
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let flags = self.flags.to_string();
        for (name, value) in self.ends.pairs() {
            let value = match name {
                "request_protocol" if self.grpc.is_some() => "grpc",
                "request_protocol" => "http",
                "response_flags" => &flags,
                _ if value.is_empty() => "unknown",
                _ => value,
            };
            (name, value).encode(encoder.encode_label())?;
            if name == "request_protocol" {
                ("response_code", u32::from(self.code)).encode(encoder.encode_label())?;
                if let Some(status) = self.grpc {
                    let status = status.map(|status| status.to_string()).unwrap_or_default();
                    ("grpc_response_status", status.as_str()).encode(encoder.encode_label())?;
                }
            }
        }
        Ok(())
    }
}

/// What the labels say of a client: what the mesh knows of it, or else what it says of itself as far as its certificate
/// does not say otherwise.
pub(crate) fn source(client: &Client, source: Option<&Workload>, baggage: Option<&Baggage>) -> End {
    match (source, baggage) {
        (Some(source), _) => End::of(source, client.principal.clone()),
        (None, Some(baggage)) => End::said(baggage, Some(&client.identity), client.principal.clone()),
        (None, None) => End { principal: client.principal.clone(), ..End::default() },
    }
}

/// What the labels say of a workload that proved to be itself.
pub(super) fn end_of(workload: &Workload) -> End {
    End::of(workload, workload.identity().to_string().into())
}

/// The labels of what goes from a client to an endpoint, or to none.
pub(crate) fn labels(
    source: End,
    endpoint: Option<&Endpoint>,
    workload: Option<&Workload>,
    service: Option<&Service>,
    flags: Flags,
) -> Labels {
    let workload = endpoint.and_then(|endpoint| endpoint.workload.as_deref()).or(workload);
    let service = endpoint.and_then(|endpoint| endpoint.service.as_deref()).or(service);
    let destination = workload.map(end_of);
    Labels {
        reporter: Reporter::Waypoint,
        source,
        destination: destination.unwrap_or_default(),
        service: ServiceLabels::of(service),
        // Nobody comes here but through a tunnel.
        mutual_tls: true,
        flags: flags.first(),
    }
}

#[cfg(test)]
mod tests {
    use super::known_status;

    #[test]
    fn statuses_that_there_are_not_are_one() {
        for (said, taken) in [(0, 0), (2, 2), (16, 16), (17, 2), (65_535, 2)] {
            assert_eq!(known_status(said), taken);
        }
    }
}
