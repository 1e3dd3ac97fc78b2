//! A connection as its thread's runtime has it: one task from the moment it is accepted until it has ended.
//!
//! There are many of these at a time and most of them are idle, so that a task is what a connection in a tunnel needs
//! and no more: the stream, and its entry in the thread's table. What is rare or short (opening it, two plain sockets,
//! its way from one tunnel to another) has an allocation of its own, which goes when it is over.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hbone::connection::Connection;
use hbone::passthrough::{self, Parted};
use hbone::splice::{End, Finished, Splice};
use hbone::tunnel::Stream;

use super::connections::Registered;
use super::finish::outcome;
use super::moves;

/// Something else than carrying by a tunnel; returns how the connection goes on, if it does.
type Otherwise = Pin<Box<dyn Future<Output = Option<Carried>>>>;

/// A connection's task.
#[must_use = "a connection that nobody drives is closed"]
pub(crate) enum Carried {
    /// It is joined with a tunnel's stream.
    ByTunnel { splice: Splice, registered: Registered },
    /// It is being opened, or moved, or has no tunnel; none once it is over.
    Otherwise(Option<Otherwise>),
}

impl Carried {
    /// A connection that is on its way.
    pub(crate) fn opening(opening: impl Future<Output = Option<Self>> + 'static) -> Self {
        Self::Otherwise(Some(Box::pin(opening)))
    }

    /// A connection joined with a tunnel's stream.
    pub(crate) fn by_tunnel(stream: Stream, connection: Connection, registered: Registered) -> Self {
        registered.record().established();
        if !stream.capable() {
            registered.is_foreign();
        }
        Self::ByTunnel { splice: stream.splice(connection), registered }
    }

    /// A connection joined with another socket.
    pub(crate) fn in_plain(
        connection: Connection,
        far: tokio::net::TcpStream,
        registered: Registered,
    ) -> Self {
        registered.record().established();
        Self::opening(plain(connection, far, registered))
    }
}

/// Carries between two sockets, to the end or until the connection is to go on elsewhere.
async fn plain(
    connection: Connection,
    far: tokio::net::TcpStream,
    registered: Registered,
) -> Option<Carried> {
    let Parted { finished, far } = Box::pin(passthrough::splice(connection, far)).await;
    match after(finished, registered, Some(far)) {
        Carried::Otherwise(None) => None,
        goes_on => Some(goes_on),
    }
}

/// What comes after a splice: the end, which is told, or the way to where the connection goes on.
fn after(finished: Finished, registered: Registered, far: Option<tokio::net::TcpStream>) -> Carried {
    if matches!(finished.end, End::Detached) {
        return Carried::opening(moves::go_on(registered, finished.connection, far));
    }
    if let Some((_, record)) = registered.leave() {
        record.end(Some(finished.connection.live()), outcome(&finished.end).as_ref());
    }
    finished.close();
    Carried::Otherwise(None)
}

/// Carries it to its end, and tells of it; also over other tunnels than it began with, as long as this thread has it.
impl Future for Carried {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match &mut *self {
                Self::ByTunnel { splice, .. } => {
                    let finished = ready!(Pin::new(splice).poll(cx));
                    match mem::replace(&mut *self, Self::Otherwise(None)) {
                        Self::ByTunnel { registered, .. } => after(finished, registered, None),
                        over @ Self::Otherwise(_) => over,
                    }
                }
                Self::Otherwise(Some(otherwise)) => {
                    ready!(otherwise.as_mut().poll(cx)).unwrap_or(Self::Otherwise(None))
                }
                Self::Otherwise(None) => return Poll::Ready(()),
            };
            *self = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside what the runtime needs for a task, which is as much again as this leaves in two cache lines.
    #[test]
    fn a_task_stays_small() {
        assert!(size_of::<Carried>() <= 24, "{}", size_of::<Carried>());
    }
}
