//! HTTP through tunnels: the load and the server of `bench waypoint` and `bench change`. Both speak HBONE themselves, so
//! that nothing but the waypoint stands between them.

pub(crate) mod client;
pub(crate) mod credentials;
pub(crate) mod exchange;
mod pace;
pub(crate) mod server;
mod two;

use std::io;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is spoken inside the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP/1.1, one request after the other on each connection.
    H1,
    /// HTTP/2.
    H2,
    /// Calls of gRPC: HTTP/2 with a message each way, and trailers.
    Grpc,
}

impl Protocol {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Grpc => "grpc",
        }
    }
}

/// What the load saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Requests answered as they should be.
    pub requests: u64,
    /// Of these a second.
    pub per_second: f64,
    /// Microseconds, without the first tenth of the time; in an open loop from when a request was due.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// Requests that were answered otherwise, or not.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
}

/// A runtime of one thread, whose tasks stay on it: tunnels do.
pub(crate) fn runtime() -> io::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
}
