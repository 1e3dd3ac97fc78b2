//! A connection whose opening is done. There are many of these at a time and most of them are idle, so that all that
//! was needed to get here is gone: callers box the opening and keep only this.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use hbone::connection::Connection;
use hbone::passthrough::{self, Parted};
use hbone::splice::{End, Splice};
use hbone::tunnel::Stream;

use super::connections::Registered;
use super::finish::{self, outcome};
use super::moves;
use super::record::Record;

/// A connection that carries bytes.
pub(crate) struct Carried {
    way: Way,
    record: Rc<Record>,
    registered: Registered,
}

enum Way {
    Tunnel(Splice),
    Plain(Pin<Box<dyn Future<Output = Parted>>>),
}

impl Carried {
    /// A connection joined with a tunnel's stream.
    pub(crate) fn by_tunnel(
        stream: Stream,
        connection: Connection,
        record: Rc<Record>,
        registered: Registered,
    ) -> Self {
        record.established();
        if !stream.capable() {
            registered.is_foreign();
        }
        Self { way: Way::Tunnel(stream.splice(connection)), record, registered }
    }

    /// A connection joined with another socket.
    pub(crate) fn in_plain(
        connection: Connection,
        far: tokio::net::TcpStream,
        record: Rc<Record>,
        registered: Registered,
    ) -> Self {
        record.established();
        Self { way: Way::Plain(Box::pin(passthrough::splice(connection, far))), record, registered }
    }

    /// Carries it to its end, and tells of it; also over other tunnels than it began with, as long as this thread has it.
    #[expect(clippy::wrong_self_convention, reason = "an end is come to, nothing is converted")]
    pub(crate) async fn to_its_end(self) {
        let mut carried = self;
        loop {
            let Self { way, record, registered } = carried;
            let (finished, far) = match way {
                Way::Tunnel(splice) => (splice.await, None),
                Way::Plain(splice) => {
                    let Parted { finished, far } = splice.await;
                    (finished, Some(far))
                }
            };
            if !matches!(finished.end, End::Detached) {
                drop(registered);
                finish::end(record, Some(finished.connection.live()), outcome(&finished.end).as_ref());
                return finished.close();
            }
            match Box::pin(moves::go_on(registered, record, finished.connection, far)).await {
                Some(goes_on) => carried = goes_on,
                None => return,
            }
        }
    }
}
