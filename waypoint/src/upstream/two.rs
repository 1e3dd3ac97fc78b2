//! HTTP/2 towards endpoints, on h2 itself: who sends a request sends its body and reads its answer from the task it is in,
//! so that beside it only the connection's own has to be woken.

mod upload;

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use http::{Request, Response};
use hyper::body::{Body, Frame};
use model::traffic::Http2KeepAlive;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::upload::Upload;
use super::Io;
use crate::limits::TwoWindows;

/// Bytes of a request's body that wait in a stream for the connection.
const WAITING: usize = 128 << 10;
/// Streams that are begun before the endpoint has said how many it takes (it is asked to take no fewer: RFC 9113, section
/// 6.5.2).
const UNTOLD: usize = 100;

/// What an endpoint may send before it is taken on, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Of the body of one answer.
    pub(crate) stream: u32,
    /// Of the bodies of all.
    pub(crate) connection: u32,
    /// Of an answer's head.
    pub(crate) head: usize,
}

/// Sends requests over a connection.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    requests: SendRequest<Bytes>,
    carried: Rc<Carried>,
}

/// What the answers of a connection have carried.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Of large ones: beyond the first [`SMALL`] bytes of each.
    bytes: Cell<u64>,
    /// Answers that are not over.
    open: Cell<u32>,
}

/// An answer of no more is no faster with a larger window.
const SMALL: usize = 32 << 10;

/// What has to run while a connection is used.
pub(crate) type Connection<T = Io> = h2::client::Connection<T, Bytes>;

/// Begins to speak HTTP/2.
///
/// # Errors
/// The connection's.
pub(crate) async fn begin<T>(io: T, room: Room) -> Result<(Sender, Connection<T>), h2::Error>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (sender, connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(UNTOLD)
        .max_send_buffer_size(WAITING)
        .initial_window_size(room.stream)
        .initial_connection_window_size(room.connection)
        .max_header_list_size(u32::try_from(room.head).unwrap_or(u32::MAX))
        .handshake(io)
        .await?;
    Ok((Sender { requests: sender, carried: Rc::default() }, connection))
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Over {
    /// It failed, or its end said so.
    #[error(transparent)]
    Failed(#[from] h2::Error),
    /// Its end does not answer (`http2KeepAlive`).
    #[error("no answer to a PING")]
    Silent,
}

/// Runs a connection until it is over, and looks whether its end still answers. What it may send grows with what it sends.
///
/// # Errors
/// Why it is over, unless both ends wanted it.
pub(crate) async fn run<T>(
    mut connection: Connection<T>,
    keep_alive: Option<Http2KeepAlive>,
    mut growing: Option<Growing>,
) -> Result<(), Over>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let pings = keep_alive.as_ref().and_then(|_| connection.ping_pong());
    let connection = poll_fn(move |cx| {
        if let Some(growing) = &mut growing {
            growing.follow(&mut connection);
        }
        Pin::new(&mut connection).poll(cx)
    });
    let Some((keep_alive, pings)) = keep_alive.zip(pings) else {
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

/// The windows of a connection, which grow with what its answers carry.
#[derive(Debug)]
pub(crate) struct Growing {
    windows: TwoWindows,
    carried: Rc<Carried>,
    /// What each stream has as far as the endpoint was told.
    told: u32,
}

impl Growing {
    /// Those that the connection of `sender` has begun with.
    pub(crate) fn new(windows: TwoWindows, sender: &Sender) -> Self {
        Self { told: windows.stream, windows, carried: sender.carried.clone() }
    }

    fn follow<T>(&mut self, connection: &mut Connection<T>)
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        if self.windows.widen(self.carried.bytes.get(), self.carried.open.get()) {
            connection.set_target_window_size(self.windows.connection());
        }
        // Not while the endpoint has not confirmed the last; then later.
        if self.told < self.windows.stream && connection.set_initial_window_size(self.windows.stream).is_ok()
        {
            self.told = self.windows.stream;
        }
    }
}

impl Sender {
    /// Streams that the endpoint takes at once, as far as it has said.
    pub(super) fn streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Whether the connection takes no more requests: it is over, or its end has said that it will be.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        matches!(self.requests.poll_ready(&mut nobody), Poll::Ready(Err(_)))
    }

    /// Sends a request, and waits for the head of its answer. What is left of its body by then goes on for as long as the
    /// answer is kept.
    ///
    /// # Errors
    /// The stream's or the connection's, and the request where nothing of it was sent.
    pub(crate) async fn send<B>(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Received>, (h2::Error, Option<Request<B>>)>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        if let Err(error) = poll_fn(|cx| self.requests.poll_ready(cx)).await {
            return Err((error, Some(request)));
        }
        let (head, body) = request.into_parts();
        let whole = body.is_end_stream();
        let sent = self.requests.send_request(Request::from_parts(head, ()), whole);
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
        let upload = upload.map(|upload| AbortOnDropHandle::new(tokio::task::spawn_local(upload)));
        let counted = Counted::new(&self.carried);
        Ok(answer.map(|stream| Received { stream, read: false, counted, _upload: upload }))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Received {
    stream: RecvStream,
    /// All but its trailers has been read.
    read: bool,
    counted: Counted,
    /// What still sends the request's body. It ends with the answer: nobody waits for the rest of an exchange whose answer is
    /// whole, or not wanted, and the stream is reset, whatever of the request is still to come, or waits for room that the
    /// endpoint may never grant.
    _upload: Option<AbortOnDropHandle<()>>,
}

/// An answer among those of its connection.
#[derive(Debug)]
struct Counted {
    all: Rc<Carried>,
    /// What is left of its first [`SMALL`] bytes.
    small: usize,
}

impl Counted {
    fn new(all: &Rc<Carried>) -> Self {
        all.open.set(all.open.get() + 1);
        Self { all: all.clone(), small: SMALL }
    }

    fn add(&mut self, bytes: usize) {
        let large = bytes.saturating_sub(self.small);
        self.small -= bytes - large;
        self.all.bytes.set(self.all.bytes.get().saturating_add(large as u64));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.open.set(self.all.open.get().saturating_sub(1));
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
                    self.counted.add(data.len());
                    // Fails only where there is no such stream any more.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.read = true,
            }
        }
        // Once an answer is whole, what ends its stream is no error: it says that the rest of the request is not wanted.
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
