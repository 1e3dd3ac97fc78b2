//! The end that answers, to every request the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{Event, Wire};
use super::{End, run};

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    /// To a request.
    pub body: Bytes,
    /// To a call of gRPC.
    pub message: Bytes,
}

/// Answers on a connection.
#[derive(Debug)]
pub(crate) struct Replier {
    wire: Wire,
    replies: Replies,
    /// Requests that are not whole, and whether they are calls.
    asked: HashMap<u32, bool>,
}

impl Replier {
    /// Answers until the connection is over.
    pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(io: T, replies: Replies) {
        let replier = Self { wire: Wire::new(false), replies, asked: HashMap::new() };
        run(io, Rc::new(RefCell::new(replier))).await;
    }

    fn reply(&mut self, stream: u32, call: bool) {
        let kind = if call { "application/grpc" } else { "text/plain" };
        self.wire.fields(stream, None, &[(":status", "200"), ("content-type", kind)], false);
        let data = if call { &self.replies.message } else { &self.replies.body };
        self.wire.body(stream, data.clone(), call);
    }
}

impl End for Replier {
    fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn come(&mut self, event: Event) {
        match event {
            Event::Fields { stream, fields, last: false } => {
                self.asked.insert(stream, fields.te);
            }
            Event::Fields { stream, fields, last: true } => self.reply(stream, fields.te),
            Event::Data { stream, last: true, .. } => {
                if let Some(call) = self.asked.remove(&stream) {
                    self.reply(stream, call);
                }
            }
            Event::Data { .. } => {}
            Event::Reset { stream } => {
                self.asked.remove(&stream);
            }
        }
    }

    fn over(&mut self, _: String) {}
}
