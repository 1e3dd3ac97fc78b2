//! The end that asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::exchange::{Answer, Wanted};
use super::wire::{Event, Wire};
use super::{End, run};

/// Asks over a connection that it may share.
#[derive(Debug, Clone)]
pub(crate) struct Asker(Rc<RefCell<Asks>>);

#[derive(Debug)]
struct Asks {
    wire: Wire,
    next: u32,
    asked: HashMap<u32, Asked>,
    /// Why nothing more can be asked.
    over: Option<String>,
}

/// A request under way.
#[derive(Debug, Default)]
struct Asked {
    status: u16,
    version: Option<u64>,
    length: usize,
    grpc_status: Option<u64>,
    /// Nothing more comes.
    whole: bool,
    waker: Option<Waker>,
}

impl Asker {
    /// Begins to speak; to be called where tasks stay on their thread.
    pub(crate) fn over<T: AsyncRead + AsyncWrite + Unpin + 'static>(io: T) -> Self {
        let asks = Asks { wire: Wire::new(true), next: 1, asked: HashMap::new(), over: None };
        let asks = Rc::new(RefCell::new(asks));
        tokio::task::spawn_local(run(io, asks.clone()));
        Self(asks)
    }

    /// Asks, with a message where it is a call of gRPC, and waits for all of the answer.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) async fn ask(&self, wanted: &Wanted, message: Option<&Bytes>) -> Result<Answer, String> {
        let stream = self.0.borrow_mut().begin(wanted, message)?;
        poll_fn(|cx| {
            let asks = &mut *self.0.borrow_mut();
            if let Some(asked) = asks.asked.get_mut(&stream)
                && !asked.whole
                && asks.over.is_none()
            {
                asked.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let asked = asks.asked.remove(&stream).filter(|asked| asked.whole);
            Poll::Ready(match asked {
                Some(asked) => Ok(asked.answer(message.is_some())),
                None => Err(asks.over.clone().unwrap_or_default()),
            })
        })
        .await
    }
}

impl Asks {
    fn begin(&mut self, wanted: &Wanted, message: Option<&Bytes>) -> Result<u32, String> {
        if let Some(why) = &self.over {
            return Err(why.clone());
        }
        let stream = self.next;
        self.next += 2;
        let Wanted { host, path } = wanted;
        let all = [
            (":method", if message.is_some() { "POST" } else { "GET" }),
            (":scheme", "http"),
            (":authority", host),
            ("user-agent", "bench"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let fields = if message.is_some() { &all[..] } else { &all[..4] };
        self.wire.fields(stream, Some(path), fields, message.is_none());
        if let Some(message) = message {
            if !self.wire.has_room(message.len()) {
                return Err(String::from("the other end has no room for a message"));
            }
            self.wire.body(stream, message.clone(), false);
        }
        self.asked.insert(stream, Asked::default());
        Ok(stream)
    }
}

impl Asked {
    fn answer(self, grpc: bool) -> Answer {
        // A call that failed, as if the head had said so.
        let status = if grpc && self.grpc_status != Some(0) { 500 } else { self.status };
        Answer { status, version: self.version, length: self.length }
    }
}

impl End for Asks {
    fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn come(&mut self, event: Event) {
        let (Event::Fields { stream, .. } | Event::Data { stream, .. } | Event::Reset { stream }) = event;
        let Some(asked) = self.asked.get_mut(&stream) else { return };
        let last = match event {
            Event::Fields { fields, last, .. } => {
                asked.status = fields.status.map_or(asked.status, |status| status as u16);
                asked.version = fields.version.or(asked.version);
                asked.grpc_status = fields.grpc_status.or(asked.grpc_status);
                last
            }
            Event::Data { length, last, .. } => {
                asked.length += length;
                last
            }
            Event::Reset { .. } => {
                // As what is no answer counts.
                asked.status = 0;
                true
            }
        };
        if last {
            asked.whole = true;
            if let Some(waker) = asked.waker.take() {
                waker.wake();
            }
        }
    }

    fn over(&mut self, why: String) {
        self.over = Some(why);
        self.asked.values_mut().filter_map(|asked| asked.waker.take()).for_each(Waker::wake);
    }
}
