//! The client's handle: opens CONNECT streams.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;

use super::control::{CAPABILITY, CAPABILITY_VALUE, CONNECTION, RESUME, Resume, capable};
use super::inner::{Shared, Use, keep};
use super::{ConnectError, Gone, Stream};
use crate::account::Account;
use crate::connection::{Connection, ConnectionId};
use crate::frame::code;
use crate::headers::Headers;
use crate::limits::Limit;
use crate::protocol::{Key, ResponseHead};
use crate::splice::End;

/// Opens CONNECT streams. Clones share the tunnel; when all clones and streams are gone the tunnel closes in order.
#[derive(Debug)]
pub struct Client {
    shared: Shared,
}

/// A CONNECT that was answered with 200.
#[derive(Debug)]
pub struct Opened {
    /// The bytes, both ways.
    pub stream: Stream,
    /// The answer's headers (`baggage`, …).
    pub headers: Headers,
    /// The name both ends know it by, sent with the CONNECT.
    pub id: ConnectionId,
    /// Whether the far end is ours: detach, resume and causes work.
    pub capable: bool,
}

impl Client {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// Sends a CONNECT for `authority` (`ip:port`, `[v6]:port` or `host:port`) and waits for the answer; a fresh
    /// connection id goes with it.
    ///
    /// # Errors
    /// Everything but a 200: see [`ConnectError`].
    pub async fn connect(&self, authority: &str, headers: &Headers) -> Result<Opened, ConnectError> {
        self.ask(authority, headers, ConnectionId::random(), None).await
    }

    /// Sends a CONNECT that resumes a detached connection: its id and counts go with it, and the far side
    /// answers 200 only if they match its own. Splice the same connection on the stream returned.
    ///
    /// # Errors
    /// As [`Client::connect`]; `Refused` with 409 when the far side does not hold it or its counts differ.
    pub async fn resume(
        &self,
        authority: &str,
        headers: &Headers,
        connection: &Connection,
    ) -> Result<Opened, ConnectError> {
        let counts = Resume::value(&connection.progress());
        self.ask(authority, headers, connection.id(), Some(&counts)).await
    }

    async fn ask(
        &self,
        authority: &str,
        headers: &Headers,
        id: ConnectionId,
        resume: Option<&str>,
    ) -> Result<Opened, ConnectError> {
        let stream = self.open(authority, headers, id, resume)?;
        let limit = self.shared.borrow().limits.connect_timeout;
        let answer = poll_fn(|cx| poll_answer(&self.shared, stream.key, cx));
        let head = match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer?,
            Err(_) => {
                self.shared.borrow().limits.hits.hit(Limit::ConnectTime);
                return Err(ConnectError::Timeout);
            }
        };
        let ResponseHead { status, headers } = *head;
        if status != 200 {
            return Err(ConnectError::Refused { status, headers });
        }
        let capable = capable(&headers);
        Ok(Opened { stream, headers, id, capable })
    }

    fn open(
        &self,
        authority: &str,
        headers: &Headers,
        id: ConnectionId,
        resume: Option<&str>,
    ) -> Result<Stream, ConnectError> {
        let inner = &mut *self.shared.borrow_mut();
        if let Some(why) = &inner.gone {
            return Err(ConnectError::TunnelGone { why: why.clone(), unseen: true });
        }
        let id = id.to_string();
        let extra = [(CAPABILITY, CAPABILITY_VALUE), (CONNECTION, &id), (RESUME, resume.unwrap_or_default())];
        let count = match resume {
            _ if !inner.limits.hands_over => 0,
            Some(_) => 3,
            None => 2,
        };
        match inner.open(authority, headers, &extra[..count]) {
            Some(key) => Ok(Stream { shared: self.shared.clone(), key }),
            None if inner.engine.draining() => {
                Err(ConnectError::TunnelGone { why: Gone::Closed, unseen: true })
            }
            None => Err(ConnectError::AtCapacity),
        }
    }

    /// Streams that can be opened now: 0 when full, draining or gone.
    pub fn capacity(&self) -> usize {
        let inner = self.shared.borrow();
        if inner.gone.is_some() { 0 } else { inner.engine.capacity() }
    }

    /// Whether it takes new streams, now or once others have ended: neither gone nor draining.
    pub fn usable(&self) -> bool {
        let inner = self.shared.borrow();
        inner.gone.is_none() && !inner.engine.draining()
    }

    /// Puts the tunnel on a pod's account: its descriptor, what waits in it for streams that nobody reads yet, and its
    /// turns on this thread.
    pub fn charge(&self, account: &Arc<Account>) {
        self.shared.borrow_mut().charge_to(account);
    }

    /// Streams open now.
    pub fn streams(&self) -> usize {
        self.shared.borrow().users
    }

    /// Since when no stream has been open; `None` while one is.
    pub fn idle_since(&self) -> Option<tokio::time::Instant> {
        self.shared.borrow().idle_since
    }

    /// Whether the far end is ours (it showed the capability): detach, resume and causes work.
    pub fn capable(&self) -> bool {
        self.shared.borrow().control.capable
    }

    /// The peer's certificate chain, leaf first, DER; empty without TLS and after the tunnel has ended.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let inner = self.shared.borrow();
        inner.transport.as_ref().map(|transport| transport.peer_certificates().to_vec()).unwrap_or_default()
    }

    /// Takes every connection off the tunnel, as [`Live::detach`](crate::connection::Live::detach) does with one.
    pub fn detach_all(&self) {
        self.shared.borrow_mut().part_all();
    }

    /// No new streams; GOAWAY; the driver ends when the last stream has.
    pub fn drain(&self) {
        self.shared.borrow_mut().drain();
    }

    /// Ends the tunnel and every stream on it now.
    pub fn close(&self) {
        let inner = &mut *self.shared.borrow_mut();
        inner.aborted = Some(Gone::Aborted);
        inner.mark();
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().handles += 1;
        Self { shared: self.shared.clone() }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let inner = &mut *self.shared.borrow_mut();
        inner.handles -= 1;
        if inner.handles == 0 {
            inner.mark();
        }
    }
}

/// The answer to a CONNECT, once it is there.
fn poll_answer(
    shared: &Shared,
    key: Key,
    cx: &mut Context<'_>,
) -> Poll<Result<Box<ResponseHead>, ConnectError>> {
    let inner = &mut *shared.borrow_mut();
    let slot = &mut inner.engine.streams[key].ext;
    if let Use::Bytes { head, .. } = &mut slot.used
        && let Some(head) = head.take()
    {
        return Poll::Ready(Ok(head));
    }
    match slot.end.as_deref() {
        Some(End::Reset(code::REFUSED_STREAM)) => {
            let why = inner.gone.clone().unwrap_or(Gone::ByPeer(code::REFUSED_STREAM));
            return Poll::Ready(Err(ConnectError::TunnelGone { why, unseen: true }));
        }
        Some(End::Reset(code)) => return Poll::Ready(Err(ConnectError::Reset(*code))),
        _ => {}
    }
    if let Some(why) = &inner.gone {
        return Poll::Ready(Err(ConnectError::TunnelGone { why: why.clone(), unseen: false }));
    }
    keep(&mut slot.reader, cx.waker());
    Poll::Pending
}
