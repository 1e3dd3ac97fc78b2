//! Joining a [`Connection`] and a CONNECT stream until both directions have ended.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::connection::Connection;
use crate::tunnel::{Gone, Stream};

/// How a spliced connection ended, with the connection itself: log it, drop it, park it or resume it.
#[derive(Debug)]
pub struct Finished {
    /// The connection, with its counts and, when detached, its residue.
    pub connection: Connection,
    /// Why the splice ended.
    pub end: End,
}

/// Why a splice ended.
#[derive(Debug)]
pub enum End {
    /// Both directions ended, all bytes delivered.
    Complete,
    /// The peer reset the stream with this HTTP/2 error code (an application's socket broke there, or a fault).
    Reset(u32),
    /// Our application's socket failed; the peer was sent a reset.
    Application(io::Error),
    /// The tunnel ended under it.
    Tunnel(Gone),
    /// We cut it ([`Live::cut`](crate::connection::Live::cut)), for this cause.
    Cut(String),
    /// The far side cut it and said why.
    CutByPeer(String),
    /// Both ends hold all that was sent: the connection can be resumed.
    Detached,
    /// A detach was asked for, but the peer has no such capability or did not answer in time.
    Undetachable,
    /// The pod's account is full: the text says of what.
    Account(crate::account::Full),
}

/// The future of [`Stream::splice`]. Small (one pointer and a key); dropping it resets the stream.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Splice {
    pub(crate) stream: Option<Stream>,
}

impl Future for Splice {
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Finished> {
        let _ = &self.stream;
        Poll::Pending
    }
}
