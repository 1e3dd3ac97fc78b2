//! One tunnel on one thread: CONNECT streams over a [`Transport`], as client and as server.
//!
//! `client` and `server` give a handle and a [`Driver`]; the driver is a future that reads, delivers, batches
//! and sends, and must run on the thread that made it (`tokio::task::spawn_local`). Dropping it ends the tunnel.

use std::cell::RefCell;
use std::rc::Rc;

use crate::headers::Headers;
use crate::limits::Limits;
use crate::protocol::Role;
use crate::transport::Transport;

mod client;
mod control;
mod deliver;
mod driver;
mod handle;
pub(crate) mod inner;
mod parting;
mod server;
mod stream;

pub use client::{Client, Opened};
pub use control::Resume;
pub use driver::Driver;
pub use handle::Handle;
pub use server::{Request, Server};
pub use stream::{Stream, Watch};

use inner::{Inner, Shared};

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// In order: drained, or nobody needed it any more.
    #[error("the tunnel was closed in order")]
    Closed,
    /// The peer closed it or sent a last GOAWAY; an HTTP/2 error code other than 0 says what it blamed.
    #[error("the peer ended the tunnel (HTTP/2 code {0})")]
    ByPeer(u32),
    /// The peer broke the protocol; the text says how.
    #[error("the tunnel was ended: {0}")]
    Protocol(&'static str),
    /// The peer did more of something than it may ([`crate::limits`]); the text says of what.
    #[error("the tunnel was ended: {0}")]
    Excess(&'static str),
    /// No answer to a keepalive PING.
    #[error("the peer was silent for the whole keepalive timeout; is its node gone?")]
    Silent,
    /// The socket or TLS failed.
    #[error("the tunnel's connection failed: {0}")]
    Io(String),
    /// [`Handle::end`]: whoever watches over it ended it, for this cause.
    #[error("{0}")]
    Ended(&'static str),
    /// [`Client::close`] or [`Server::close`], or the driver was dropped.
    #[error("the tunnel was closed at once")]
    Aborted,
}

/// Why a CONNECT failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The far side answered with another status than 200.
    #[error("the far side refused the connection with status {status}")]
    Refused {
        /// The status: 401 refused by policy, 503 application not reachable, 400 malformed.
        status: u16,
        /// Its headers; a Lateen peer names the cause there.
        headers: Headers,
    },
    /// The far side reset the stream before it answered, with this HTTP/2 code.
    #[error("the far side reset the request (HTTP/2 code {0})")]
    Reset(u32),
    /// The tunnel ended or is draining. `unseen`: the peer surely has not acted on it; ask on another tunnel.
    #[error("{why}")]
    TunnelGone {
        /// Why it ended.
        why: Gone,
        /// Whether another tunnel may be tried without any risk of doing it twice.
        unseen: bool,
    },
    /// As many streams are open as the peer and we allow.
    #[error("the tunnel has no free stream; open another")]
    AtCapacity,
    /// No answer within `connect_timeout`.
    #[error(
        "the far side did not answer the CONNECT in time; is the application, or its agent, overloaded? See its agent's log"
    )]
    Timeout,
}

/// A client's tunnel on `transport`, and the future that drives it. To be called, and driven, on the thread whose
/// runtime the transport's socket is registered with.
pub fn client(transport: impl Transport, limits: Limits) -> (Client, Driver) {
    let shared = share(Role::Client, transport, limits);
    (Client::new(shared.clone()), Driver::new(shared))
}

/// A server's tunnel on `transport`, and the future that drives it.
pub fn server(transport: impl Transport, limits: Limits) -> (Server, Driver) {
    let shared = share(Role::Server, transport, limits);
    (Server::new(shared.clone()), Driver::new(shared))
}

fn share(role: Role, transport: impl Transport, limits: Limits) -> Shared {
    Rc::new(RefCell::new(Inner::new(role, Box::new(transport), limits)))
}
