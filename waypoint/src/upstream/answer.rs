//! An endpoint's answer, and how a connection fails to give one, whichever version it came by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::two::Received;

/// The body of an endpoint's answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Over HTTP/1.1.
    One(Incoming),
    /// Over HTTP/2.
    Two(Received),
}

/// A connection, or a stream of it, ended or broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// One of HTTP/1.1.
    #[error(transparent)]
    One(#[from] hyper::Error),
    /// One of HTTP/2.
    #[error(transparent)]
    Two(#[from] h2::Error),
}

impl Broken {
    /// Whether the endpoint has surely not worked on the request: it said so of the stream, or of all that came after the
    /// last that it works on (RFC 9113, section 8.7).
    pub(crate) fn is_refused(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Two(error) => {
                error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::One(body) => Pin::new(body).poll_frame(cx).map_err(Broken::One),
            Self::Two(body) => Pin::new(body).poll_frame(cx).map_err(Broken::Two),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::One(body) => body.is_end_stream(),
            Self::Two(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::One(body) => body.size_hint(),
            // What its head says of its length goes on as it is.
            Self::Two(_) => SizeHint::default(),
        }
    }
}
