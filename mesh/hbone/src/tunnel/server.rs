//! The server's handle: takes CONNECT requests and answers them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use rustls::pki_types::CertificateDer;

use super::control::{CAPABILITY, CAPABILITY_VALUE, Resume, capable, connection_of};
use super::inner::{Shared, keep};
use super::{Gone, Stream};
use crate::account::Account;
use crate::connection::ConnectionId;
use crate::frame::code;
use crate::headers::Headers;
use crate::protocol::fields;

/// Takes CONNECT requests. Dropping it drains the tunnel: streams that are open go on.
#[derive(Debug)]
pub struct Server {
    shared: Shared,
}

impl Server {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The next request; `None` when the tunnel takes no more.
    pub async fn accept(&mut self) -> Option<Request> {
        poll_fn(|cx| {
            let inner = &mut *self.shared.borrow_mut();
            if let Some((key, head)) = inner.requests.pop_front() {
                let stream = Stream { shared: self.shared.clone(), key };
                return Poll::Ready(Some(Request {
                    authority: head.authority,
                    headers: head.headers,
                    stream,
                }));
            }
            if inner.gone.is_some() {
                return Poll::Ready(None);
            }
            keep(&mut inner.acceptor, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Puts the tunnel on a pod's account: its descriptor, what waits in it for streams that nobody reads yet, and its
    /// turns on this thread.
    pub fn charge(&self, account: &Arc<Account>) {
        self.shared.borrow_mut().charge_to(account);
    }

    /// Whether the client is ours (it showed the capability): detach, resume and causes work.
    pub fn capable(&self) -> bool {
        self.shared.borrow().control.capable
    }

    /// Streams open now.
    pub fn streams(&self) -> usize {
        self.shared.borrow().users
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

    /// GOAWAY: requests already sent are still taken, then none; the driver ends when the last stream has. To a client of
    /// ours not before its control stream is there, a moment after its first connection; nor to one of which that is not
    /// known before its first request.
    pub fn drain(&self) {
        self.shared.borrow_mut().drain();
    }

    /// The same at once. Connections that come on a tunnel whose client has not opened its control stream can never be taken
    /// off it: for who turns them away.
    pub fn drain_now(&self) {
        self.shared.borrow_mut().drain_now();
    }

    /// Ends the tunnel and every stream on it now.
    pub fn close(&self) {
        let inner = &mut *self.shared.borrow_mut();
        inner.aborted = Some(Gone::Aborted);
        inner.mark();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let inner = &mut *self.shared.borrow_mut();
        inner.handles -= 1;
        for (key, _) in std::mem::take(&mut inner.requests) {
            inner.turn_away(key);
        }
        inner.mark();
    }
}

/// One CONNECT to answer. Dropping it resets the stream.
#[derive(Debug)]
pub struct Request {
    authority: String,
    headers: Headers,
    stream: Stream,
}

impl Request {
    /// `:authority`, as sent: `ip:port`, `[v6]:port` or `host:port`; not checked beyond being text.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Its headers (`baggage`, `forwarded`, `traceparent`, …).
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The connection's id, if the client is ours; otherwise use a random one.
    pub fn connection(&self) -> Option<ConnectionId> {
        connection_of(&self.headers)
    }

    /// Whether the far end is ours: detach, resume and causes work.
    pub fn capable(&self) -> bool {
        capable(&self.headers)
    }

    /// Whether it resumes a detached connection: splice that one, or refuse with 409.
    pub fn resume(&self) -> Option<Resume> {
        Resume::read(&self.headers)
    }

    /// Whether whoever asked is not there any more: the stream or its tunnel has ended.
    pub fn is_gone(&self) -> bool {
        let inner = self.stream.shared.borrow();
        inner.gone.is_some() || inner.engine.streams[self.stream.key].ext.end.is_some()
    }

    /// Answers 200 with `headers`.
    pub fn accept(self, headers: &Headers) -> Stream {
        self.answer(200, headers, false);
        self.stream
    }

    /// Answers `status` with `headers` and ends the stream.
    pub fn refuse(self, status: u16, headers: &Headers) {
        self.answer(status, headers, true);
    }

    /// Does not take it on, and says that nothing was done: the client may ask on another tunnel.
    pub fn turn_away(self) {
        let inner = &mut *self.stream.shared.borrow_mut();
        inner.engine.reset(self.stream.key, code::REFUSED_STREAM);
        inner.mark();
    }

    fn answer(&self, status: u16, headers: &Headers, end: bool) {
        let shown = [(CAPABILITY, CAPABILITY_VALUE)];
        let inner = &mut *self.stream.shared.borrow_mut();
        let capable = inner.limits.hands_over && capable(&self.headers);
        let extra = if capable { &shown[..] } else { &[] };
        inner.engine.respond(self.stream.key, status, fields(headers, extra), end);
        inner.mark();
    }
}
