//! The future that runs a tunnel: receive, deliver, flush, once a turn.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use super::Gone;
use super::handle::Handle;
use super::inner::{Inner, Shared, keep};
use crate::fairness::Ticket;
use crate::frame::code;
use crate::limits::Limit;
use crate::protocol::{Fault, Role};
use crate::transport::{Outgoing, Scratch, Spare};

/// Runs a tunnel; resolves when it has ended. Spawn it with `tokio::task::spawn_local` on the thread that made it.
/// Dropping it ends the tunnel and every stream on it at once.
#[must_use = "a tunnel stands still unless its driver is polled"]
pub struct Driver {
    shared: Shared,
    began: Instant,
    timer: Pin<Box<Sleep>>,
    /// Something came since the timer was set.
    heard: bool,
    /// A PING waits for its answer.
    asked: bool,
    /// Its place in its pod's line for a turn.
    ticket: Ticket,
    /// Nothing but the closing handshake is left, for this reason.
    closing: Option<Gone>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("closing", &self.closing).finish_non_exhaustive()
    }
}

impl Driver {
    pub(super) fn new(shared: Shared) -> Self {
        let interval = shared.borrow().limits.keepalive_interval;
        Self {
            shared,
            began: Instant::now(),
            timer: Box::pin(tokio::time::sleep(interval)),
            heard: false,
            asked: false,
            ticket: 0,
            closing: None,
        }
    }

    /// A handle by which the tunnel can be ended from outside.
    pub fn handle(&self) -> Handle {
        Handle::new(Rc::downgrade(&self.shared))
    }

    fn turn(&mut self, inner: &mut Inner, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Gone> {
        keep(&mut inner.driver, cx.waker());
        inner.dirty = false;
        if let Some(why) = &inner.aborted {
            return Poll::Ready(why.clone());
        }
        if self.closing.is_none()
            && inner.share.as_ref().is_none_or(|share| share.admit(&mut self.ticket, cx.waker()))
            && let Err(why) = self.receive(inner, cx, scratch)
        {
            self.close(inner, why);
        }
        if inner.has_something_to_say() {
            inner.say_late();
        }
        if let Err(err) = flush(inner, cx, scratch) {
            return Poll::Ready(Gone::Io(err.to_string()));
        }
        if self.closing.is_none() {
            self.keep_alive(inner, cx);
            self.end_if_done(inner);
            if inner.dirty {
                // What these had to say leaves in a flush of its own; they speak seldom.
                inner.dirty = false;
                if let Err(err) = flush(inner, cx, scratch) {
                    return Poll::Ready(Gone::Io(err.to_string()));
                }
            }
        }
        match &self.closing {
            Some(_) => self.finish(inner, cx, scratch),
            None => Poll::Pending,
        }
    }

    /// Reads a bounded number of times, so that a bulk stream does not keep the thread from others.
    fn receive(
        &mut self,
        inner: &mut Inner,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        for _ in 0..inner.limits.reads_per_turn {
            let Some(transport) = &mut inner.transport else { return Err(Gone::Aborted) };
            let received = match transport.poll_receive(cx, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(received)) => received,
                Poll::Ready(Err(err)) => return Err(Gone::Io(err.to_string())),
            };
            self.heard = true;
            if let Some(share) = &inner.share {
                share.spend(scratch.received() as u64);
            }
            inner.process(self.began.elapsed(), scratch).map_err(|fault| {
                inner.engine.fail(fault);
                if fault.limit.is_some() { Gone::Excess(fault.text) } else { Gone::Protocol(fault.text) }
            })?;
            if inner.engine.control.len() + inner.engine.trailing.len() > inner.limits.queued_control {
                let text = "the peer makes us answer and does not read the answers";
                inner.engine.fail(Fault::above(Limit::QueuedControl, code::ENHANCE_YOUR_CALM, text));
                return Err(Gone::Excess(text));
            }
            if received.ended {
                let in_order = inner.engine.draining() && inner.engine.all_over() && inner.blamed.is_none();
                let code = inner.blamed.unwrap_or(code::NO_ERROR);
                return Err(if in_order { Gone::Closed } else { Gone::ByPeer(code) });
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Asks a silent peer for a sign of life, and gives up one that gives none.
    fn keep_alive(&mut self, inner: &mut Inner, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            let mut wait = inner.limits.keepalive_interval;
            if self.heard {
                (self.heard, self.asked) = (false, false);
            } else if self.asked {
                inner.limits.hits.hit(Limit::KeepaliveTime);
                self.close(inner, Gone::Silent);
                return;
            } else {
                self.asked = true;
                inner.engine.keepalive();
                inner.mark();
                wait = inner.limits.keepalive_timeout;
            }
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }

    /// A tunnel that nobody can use any more drains; a drained one closes.
    fn end_if_done(&mut self, inner: &mut Inner) {
        if inner.handles == 0 && (inner.users == 0 || inner.role == Role::Server) && !inner.engine.draining()
        {
            inner.engine.begin_drain();
            inner.mark();
        }
        if inner.users == 0
            && inner.engine.draining()
            && let Some(key) = inner.control.key.take()
        {
            inner.end(key);
            inner.release(key);
        }
        if inner.engine.drained() {
            let why = inner.blamed.map_or(Gone::Closed, Gone::ByPeer);
            self.close(inner, why);
            inner.mark();
        }
    }

    /// From here on only what is queued leaves, then the closing handshake, within `close_timeout`.
    fn close(&mut self, inner: &mut Inner, why: Gone) {
        inner.tell(why.clone());
        self.closing = Some(why);
        self.timer.as_mut().reset(Instant::now() + inner.limits.close_timeout);
    }

    fn finish(&mut self, inner: &mut Inner, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Gone> {
        let why = self.closing.clone().unwrap_or(Gone::Closed);
        if matches!(why, Gone::Io(_) | Gone::Silent) || self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(why);
        }
        let Some(transport) = &mut inner.transport else { return Poll::Ready(why) };
        match transport.poll_close(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(why),
            Poll::Ready(Ok(())) => {}
        }
        // What the peer still sends is dropped until it closes too: a socket closed over unread bytes would reset the
        // connection, and our GOAWAY with it.
        loop {
            match transport.poll_receive(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(received)) if !received.ended => {}
                Poll::Ready(_) => return Poll::Ready(why),
            }
        }
    }
}

/// Seals and sends what waits: control frames, then the records, then what must not overtake them.
fn flush(inner: &mut Inner, cx: &mut Context<'_>, scratch: &mut Scratch) -> std::io::Result<()> {
    let Some(transport) = &mut inner.transport else { return Ok(()) };
    // While the kernel takes nothing more, streams fill at most the open records and then wait.
    if transport.poll_flush(cx)?.is_pending() {
        return Ok(());
    }
    if let Some(records) = inner.records.take_if(|records| records.is_empty()) {
        Spare::put(records);
    }
    if inner.records.is_some() || !inner.engine.control.is_empty() || !inner.engine.trailing.is_empty() {
        let out = Outgoing {
            control: &inner.engine.control,
            records: inner.records.as_mut(),
            trailing: &inner.engine.trailing,
        };
        transport.send(cx, out, scratch)?;
        for queue in [&mut inner.engine.control, &mut inner.engine.trailing] {
            queue.clear();
            queue.shrink_to(256);
        }
        if let Some(records) = inner.records.take() {
            Spare::put(records);
        }
    }
    for key in inner.waiting.drain(..) {
        let slot = &mut inner.engine.streams[key].ext;
        slot.queued = false;
        slot.wake();
    }
    Ok(())
}

impl Future for Driver {
    type Output = Gone;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gone> {
        let shared = self.shared.clone();
        let mut inner = shared.borrow_mut();
        let mut scratch = Scratch::take();
        let result = self.turn(&mut inner, cx, &mut scratch);
        scratch.put();
        if let Poll::Ready(why) = &result {
            inner.bury(why.clone());
        }
        result
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.borrow_mut().bury(Gone::Aborted);
    }
}
