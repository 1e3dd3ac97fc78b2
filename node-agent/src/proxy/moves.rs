//! A live connection that has been taken off its tunnel (`docs/decisions/0011-hand-over.md`): where it goes on.
//!
//! ```text
//! detached ─┬► another thread is to carry it: as detached there, and back       (balance)
//!           │  to the one that had it if there is no tunnel for it
//!           ├► a newer proxy is there: handed over to it                        (handover)
//!           ├► we opened its tunnel: resumed on another one                     (resume)
//!           ├► our peer opened its tunnel: parked until the peer resumes it     (parking)
//!           └► no tunnel, two plain sockets: joined again
//! ```
//!
//! Both ends have everything that was sent by then, so that nothing is lost and nothing comes twice, however long it
//! takes; the applications' sockets stay open all the time.

use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use daemon::metrics::traffic::Reporter;
use hbone::connection::Connection;
use proxy::tunnel::TunnelError;
use tokio::time::{Instant, sleep, timeout_at};

use super::carry::Carried;
use super::connections::{OVER, Registered};
use super::dial::{self, DialError};
use super::finish;
use super::handover::Arriving;
use super::limits::Limit;
use super::pod::{Phase, Pod};
use super::record::{Failure, Record, flags};
use super::worker::{Handle, Job, Worker};

/// How long a connection may be without a tunnel before it is given up (D8).
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long another thread may take to get a tunnel for it. There may be none to be had any more while the one that it left
/// still lives; its server's end waits for it there for as long again as is left of [`PATIENCE`].
const SPREAD: Duration = Duration::from_secs(2);
/// First and longest pause between attempts to resume a connection.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LAST: Duration = Duration::from_millis(500);

/// A connection without a tunnel, and without a thread.
#[derive(Debug)]
pub(crate) struct Detached {
    /// Whose it is.
    pub(crate) pod: Arc<Pod>,
    /// What is said of it.
    pub(crate) record: Record,
    /// The application's side.
    pub(crate) connection: Connection,
    /// The other side, where that is a plain socket.
    pub(crate) far: Option<TcpStream>,
    /// Whether another thread of this process was to carry it on.
    pub(crate) given: Given,
    /// The predecessor that it came from waits until it has gone on.
    #[expect(dead_code, reason = "that it is dropped says it")]
    pub(crate) arriving: Option<Arriving>,
}

/// Whether a connection was given to another thread, and what came of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Given {
    /// It was not.
    #[default]
    No,
    /// By the thread of this number, to which it goes back if there is no tunnel for it.
    By(usize),
    /// It has come back, and is not given again.
    Back,
}

/// Where a detached connection goes on if nobody takes it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Join,
    Resume,
    Park,
}

/// The client's end asks for a new tunnel, the server's end waits for that.
fn next(plain: bool, reporter: Reporter) -> Next {
    match (plain, reporter) {
        (true, _) => Next::Join,
        (false, Reporter::Source) => Next::Resume,
        (false, Reporter::Destination | Reporter::Waypoint) => Next::Park,
    }
}

impl Detached {
    /// Gives it up: the application learns by a reset, the log and the metrics by `why`.
    pub(crate) fn give_up(self, why: impl std::fmt::Display) {
        let failure = Failure::new(flags::CONNECT, why);
        self.record.end(Some(self.connection.live()), Some(&failure));
        self.connection.abort();
        if let Some(far) = &self.far {
            finish::reset(&socket2::SockRef::from(far));
        }
    }
}

/// Takes a detached connection out of its thread's table and to where it goes on; returns it if that is here.
pub(crate) async fn go_on(
    registered: Registered,
    connection: Connection,
    far: Option<tokio::net::TcpStream>,
) -> Option<Carried> {
    let (worker, thread) = (registered.worker()?, registered.thread());
    let (pod, record) = registered.leave()?;
    let far = far.map(tokio::net::TcpStream::into_std).transpose();
    let mut detached = match (connection.into_plain(), far) {
        (Ok(connection), Ok(far)) => {
            Detached { pod, record, connection, far, given: Given::No, arriving: None }
        }
        (Err(error), _) | (_, Err(error)) => {
            record.end(None, Some(&Failure::new(flags::CONNECT, error)));
            return None;
        }
    };
    if thread != worker.index
        && let Some(other) = worker.agent.workers.get(thread)
    {
        detached.given = Given::By(worker.index);
        detached = send(other, detached)?;
        detached.given = Given::No;
    }
    arrive(worker, detached).await
}

/// Sends it to another thread; returns it if that has far too much to do now.
fn send(thread: &Handle, detached: Detached) -> Option<Detached> {
    match thread.try_send(Job::Arrive(Box::new(detached))) {
        Err(Job::Arrive(unsent)) => Some(*unsent),
        _ => None,
    }
}

/// Carries on with a connection that has no tunnel, as one of this thread; or passes it on.
pub(crate) async fn arrive(worker: Rc<Worker>, detached: Detached) -> Option<Carried> {
    let detached = match worker.agent.onward() {
        Some(onward) => match onward.send(detached).await {
            Ok(()) => return None,
            // It has ended before it was ready: as if there were none.
            Err(unsent) => unsent.0,
        },
        None => detached,
    };
    match next(detached.far.is_some(), detached.record.ends().reporter) {
        Next::Join => join(&worker, detached),
        Next::Resume => resume(worker, detached).await,
        Next::Park => {
            worker.agent.parking.park(detached);
            None
        }
    }
}

/// Joins the two sockets of a plain connection again.
fn join(worker: &Rc<Worker>, mut detached: Detached) -> Option<Carried> {
    let far = detached.far.take()?;
    match tokio::net::TcpStream::from_std(far) {
        Ok(far) => {
            let Detached { pod, record, connection, .. } = detached;
            let registered = worker.connections.register(pod, record, connection.live().clone());
            // The rules may have changed while it was in no table.
            registered.judge(&worker.agent.state);
            Some(Carried::in_plain(connection, far, registered))
        }
        Err(error) => {
            detached.give_up(error);
            None
        }
    }
}

/// Goes on through another tunnel to the same peer; or, where another thread has given it, back to that one if this has no
/// tunnel soon.
async fn resume(worker: Rc<Worker>, mut detached: Detached) -> Option<Carried> {
    let begun = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let deadline = match detached.given {
            Given::By(_) => begun + SPREAD,
            Given::No | Given::Back => begun + PATIENCE,
        };
        let asked = dial::resume(&worker, &detached.pod, &detached.record, &detached.connection);
        let asked = tokio::select! {
            asked = timeout_at(deadline, asked) => asked.unwrap_or(Err(DialError::Timeout)),
            () = worker.agent.over.begun() => {
                detached.give_up(OVER);
                return None;
            }
        };
        match asked {
            Ok(stream) => {
                let Detached { pod, record, connection, given, .. } = detached;
                let registered = worker.connections.register(pod, record, connection.live().clone());
                if given == Given::Back {
                    registered.stays();
                }
                return Some(Carried::by_tunnel(stream, connection, registered));
            }
            Err(error) => {
                let gone = detached.pod.phase() == Phase::Gone;
                // Whatever is said here: what the old tunnel leads to may say something else.
                if let Given::By(home) = detached.given
                    && let Some(home) = worker.agent.workers.get(home)
                    && !gone
                {
                    tracing::debug!(%error, connection = %detached.connection.id(), "not resumed on another thread");
                    detached.given = Given::Back;
                    detached = send(home, detached)?;
                    continue;
                }
                let over = is_final(&error) || gone;
                let late = Instant::now() + pause >= deadline;
                if over || late {
                    if late {
                        worker.agent.hits.hit(Limit::Resuming);
                    }
                    detached.give_up(format_args!("taken off its tunnel and not resumed: {error}"));
                    return None;
                }
                tracing::debug!(%error, connection = %detached.connection.id(), "not resumed yet");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
        if worker.agent.onward().is_some() {
            // A newer proxy has come meanwhile.
            return Box::pin(arrive(worker, detached)).await;
        }
    }
}

/// Whether asking again is of no use: the peer has said no.
fn is_final(error: &DialError) -> bool {
    use DialError::{NotResumed, Tunnel};
    matches!(error, Tunnel(TunnelError::Refused { status: 401 | 409, .. }) | NotResumed)
}

#[cfg(test)]
mod tests;
