//! ZDS: how the part of a node agent that redirects pods tells the part that proxies them which pods there are.
//! Both ends, as Istio's CNI agent and ztunnel speak it, so that either can be theirs: one protobuf message a
//! datagram on a `SEQPACKET` socket, the pod's network namespace as a descriptor beside an `Add`.
//!
//! The order is fixed: hello; an `Add` (or `Keep`) for each pod; `SnapshotSent`; from then on `Add` and `Del` as
//! pods come and go. Each request is acknowledged before the next is sent.

pub mod client;
pub mod members;
pub mod server;

use std::time::Duration;

pub use proto::zds::WorkloadInfo;

/// Largest message; both ends of the protocol have this limit.
pub(crate) const MAX_MESSAGE: usize = 1024;

/// How long one end waits for the other's next word (redirector's side; the proxy waits for requests for ever).
pub(crate) const IO_TIME: Duration = Duration::from_secs(5);
