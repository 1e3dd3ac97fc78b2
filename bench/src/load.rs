//! The load generators: one process, one thread, one epoll loop, so that the tool is not what is measured.
//!
//! Each speaks the small protocol of [`wire`] with `bench serve` and prints its findings as JSON, which
//! the table reads back into the same types.

mod bulk;
pub(crate) mod bystander;
mod conn;
pub(crate) mod histogram;
mod idle;
pub(crate) mod poll;
mod rr;
pub(crate) mod wire;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Subcommand;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kinds of load.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Kind {
    /// Requests and responses over connections that stay open.
    Rr {
        /// The server, or the proxy before it.
        #[arg(long, value_name = "ADDR")]
        connect: SocketAddr,
        /// How many connections, each with one request in flight at most.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// For how long.
        #[arg(long, value_parser = seconds, default_value = "4")]
        seconds: Duration,
        /// Bytes of a request, and of its response.
        #[arg(long, default_value_t = 1024)]
        size: usize,
        /// Open loop: so many requests a second over all connections, latency counted from when each was
        /// due. Without it a closed loop: the next request leaves when the response is here.
        #[arg(long, value_name = "PER_SECOND")]
        rate: Option<f64>,
    },
    /// A new connection for each request: connect, one request, close.
    Conn {
        /// The server, or the proxy before it.
        #[arg(long, value_name = "ADDR")]
        connect: SocketAddr,
        /// How many at a time.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// For how long.
        #[arg(long, value_parser = seconds, default_value = "4")]
        seconds: Duration,
        /// Bytes of a request, and of its response.
        #[arg(long, default_value_t = 64)]
        size: usize,
    },
    /// As many bytes as will go, one way.
    Bulk {
        /// The server, or the proxy before it.
        #[arg(long, value_name = "ADDR")]
        connect: SocketAddr,
        /// How many connections.
        #[arg(long, default_value_t = 1)]
        streams: usize,
        /// For how long.
        #[arg(long, value_parser = seconds, default_value = "4")]
        seconds: Duration,
        /// From the server to here instead.
        #[arg(long)]
        reverse: bool,
    },
    /// Requests at a steady pace over connections that stay open, beside a few fresh connections; it counts what
    /// breaks and goes on.
    Bystander {
        /// The server, or the proxy before it.
        #[arg(long, value_name = "ADDR")]
        connect: SocketAddr,
        /// How many connections stay open.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// For how long.
        #[arg(long, value_parser = seconds, default_value = "3")]
        seconds: Duration,
        /// Requests a second over all of them.
        #[arg(long, value_name = "PER_SECOND", default_value_t = 500.0)]
        rate: f64,
        /// Fresh connections a second, of one request each.
        #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0)]
        fresh: f64,
    },
    /// Opens connections, each heard by the server, prints a line, and holds them until its input ends.
    Idle {
        /// The server, or the proxy before it.
        #[arg(long, value_name = "ADDR")]
        connect: SocketAddr,
        /// How many connections.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
}

/// What a request load saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Requests {
    /// Requests answered, from the first to the last.
    pub requests: u64,
    /// Per second.
    pub per_second: f64,
    /// Microseconds, without the first tenth of the time; of connections: from connect to the whole response.
    pub p50_us: f64,
    /// The 90th percentile, microseconds.
    pub p90_us: f64,
    /// The 99th percentile, microseconds.
    pub p99_us: f64,
}

/// What a bulk load saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bulk {
    /// Bytes that arrived at the receiver.
    pub bytes: u64,
    /// 10⁹ bits a second, until the receiver had the last byte.
    pub gbit_per_second: f64,
}

/// What the idle load reports once all its connections are open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// Connections the server has greeted.
    pub opened: u64,
    /// How long opening them took.
    pub seconds: f64,
}

/// Why a load could not be driven.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// No connection.
    #[error("cannot connect to {to}: {source}; is the server (or the proxy before it) listening?")]
    Connect {
        /// Whither.
        to: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The other end closed before the end.
    #[error("the server, or a proxy on the way, closed a connection while {while_}")]
    Closed {
        /// What was under way.
        while_: &'static str,
    },
    /// Anything else of the kernel's.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server does not listen.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LoadError {
    /// For `map_err`: names what was being done.
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, source: source.into() }
    }
}

/// Drives the load and prints one line of JSON.
pub(crate) fn run(kind: &Kind) -> Result<(), LoadError> {
    raise_descriptor_limit();
    let line = match *kind {
        Kind::Rr { connect, connections, seconds, size, rate } => {
            serde_json::to_string(&rr::run(connect, connections, seconds, size, rate)?)
        }
        Kind::Conn { connect, connections, seconds, size } => {
            serde_json::to_string(&conn::run(connect, connections, seconds, size)?)
        }
        Kind::Bulk { connect, streams, seconds, reverse } => {
            serde_json::to_string(&bulk::run(connect, streams, seconds, reverse)?)
        }
        Kind::Bystander { connect: to, connections, seconds, rate, fresh } => {
            let wish = bystander::Wish { to, connections, seconds, rate, fresh };
            serde_json::to_string(&bystander::run(wish)?)
        }
        Kind::Idle { connect, connections } => return idle::run(connect, connections),
    };
    println!("{}", line.map_err(LoadError::io("writing the result"))?);
    Ok(())
}

/// Ten thousand idle connections through a proxy need twice as many descriptors in it; it inherits this.
const DESCRIPTORS: u64 = 1 << 16;

/// Raises the limit of descriptors of this process and its children as far as is allowed.
pub(crate) fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Root may raise the hard limit, others reach it. Too few descriptors later say so themselves.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.max(DESCRIPTORS), hard.max(DESCRIPTORS));
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(value).map_err(|error| error.to_string())
}
