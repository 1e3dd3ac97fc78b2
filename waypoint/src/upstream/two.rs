//! HTTP/2 towards endpoints, on h2 itself: who sends a request sends its body and reads its answer from the task it is in,
//! so that beside it only the connection's own has to be woken.

mod upload;

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Request, Response};
use hyper::body::{Body, Frame};
use model::traffic::Http2KeepAlive;
use tokio::time::{sleep, timeout};

use self::upload::Upload;
use super::Io;
use crate::limits::TwoWindows;

/// Streams that are begun before the endpoint has said how many it takes (it is asked to take no fewer: RFC 9113, section
/// 6.5.2).
const UNTOLD: usize = 100;

/// Sends requests over a connection.
#[derive(Debug, Clone)]
pub(super) struct Sender(SendRequest<Bytes>);

/// What has to run while a connection is used.
pub(super) type Connection<T = Io> = h2::client::Connection<T, Bytes>;

/// Begins to speak HTTP/2, with no larger windows, and no larger heads of answers, than these.
///
/// # Errors
/// The connection's.
pub(super) async fn begin<T>(
    io: T,
    windows: &TwoWindows,
    head: usize,
) -> Result<(Sender, Connection<T>), h2::Error>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (sender, connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(UNTOLD)
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .handshake(io)
        .await?;
    Ok((Sender(sender), connection))
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Over {
    /// It failed, or its end said so.
    #[error(transparent)]
    Failed(#[from] h2::Error),
    /// Its end does not answer (`http2KeepAlive`).
    #[error("no answer to a PING")]
    Silent,
}

/// Runs a connection until it is over, and looks whether its end still answers.
///
/// # Errors
/// Why it is over, unless both ends wanted it.
pub(super) async fn run<T>(
    mut connection: Connection<T>,
    keep_alive: Option<Http2KeepAlive>,
) -> Result<(), Over>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Some((keep_alive, pings)) = keep_alive.zip(connection.ping_pong()) else {
        return Ok(connection.await?);
    };
    let mut silent = pin!(silent(pings, keep_alive));
    let mut connection = pin!(connection);
    tokio::select! {
        over = &mut connection => Ok(over?),
        () = &mut silent => Err(Over::Silent),
    }
}

/// Asks again and again, until there is no answer in time.
async fn silent(mut pings: PingPong, keep_alive: Http2KeepAlive) {
    loop {
        sleep(keep_alive.interval).await;
        match timeout(keep_alive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is over, and says why.
            Ok(Err(_)) => pending().await,
            Err(_) => return,
        }
    }
}

impl Sender {
    /// Whether the connection takes no more requests: it is over, or its end has said that it will be.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        matches!(self.0.poll_ready(&mut nobody), Poll::Ready(Err(_)))
    }

    /// Sends a request, and waits for the head of its answer. What is left of its body by then goes on by itself.
    ///
    /// # Errors
    /// The stream's or the connection's, and the request where nothing of it was sent.
    pub(super) async fn send<B>(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Received>, (h2::Error, Option<Request<B>>)>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        if let Err(error) = poll_fn(|cx| self.0.poll_ready(cx)).await {
            return Err((error, Some(request)));
        }
        let (head, body) = request.into_parts();
        let whole = body.is_end_stream();
        let sent = self.0.send_request(Request::from_parts(head, ()), whole);
        let (mut answer, stream) = sent.map_err(|error| (error, None))?;
        let mut upload = (!whole).then(|| Upload::new(body, stream));
        let answer = poll_fn(|cx| {
            if let Some(body) = &mut upload
                && Pin::new(body).poll(cx).is_ready()
            {
                upload = None;
            }
            Pin::new(&mut answer).poll(cx)
        });
        let answer = answer.await.map_err(|error| (error, None))?;
        if let Some(upload) = upload {
            tokio::task::spawn_local(upload);
        }
        Ok(answer.map(Received::new))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Received {
    stream: RecvStream,
    /// All but its trailers has been read.
    read: bool,
}

impl Received {
    fn new(stream: RecvStream) -> Self {
        Self { stream, read: false }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.read {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only where there is no such stream any more.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(unless_whole(error)),
                None => self.read = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(unless_whole(error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// The end of an answer whose stream is reset: with `NO_ERROR` that says that the rest of the request is not wanted, and
/// comes after an answer that is whole (RFC 9113, section 8.1).
fn unless_whole<T>(error: h2::Error) -> Option<Result<T, h2::Error>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
}

#[cfg(test)]
mod tests;
