//! Taking a live connection off its tunnel: both ends stop, say what they sent, and keep what they have not delivered.
//!
//! An end that parts stops reading its application and says how much it has sent. The message travels behind that DATA,
//! so who reads it has received every byte of it. The other end answers in kind. From then on nothing is on the way in
//! either direction, and both connections, with their residues, are whole.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::Sleep;

use super::control::{Garbled, Message, PARTED_BYTES, Parted};
use super::inner::{Inner, Use};
use crate::connection::ConnectionId;
use crate::frame::{self, code};
use crate::protocol::{Fault, Key, Role};
use crate::splice::End;

/// A detach under way on one stream.
#[derive(Debug)]
pub(crate) struct Parting {
    /// The other end has said what it sent, and we have it.
    pub(crate) answered: bool,
    deadline: Pin<Box<Sleep>>,
}

impl Parting {
    pub(crate) fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().poll(cx).is_ready()
    }
}

impl Inner {
    /// Sends a message on the control stream, if there is one and its window allows; whether it did. It leaves behind
    /// all DATA laid so far and before any reset that follows.
    pub(crate) fn say(&mut self, message: &Message) -> bool {
        let Some(key) = self.control.key else { return false };
        let bytes = message.encode(self.limits.cause_text);
        if self.engine.budget(key) < bytes.len() {
            return false;
        }
        let id = self.engine.streams[key].id;
        self.engine.trailing.extend_from_slice(&frame::data_head(id, bytes.len(), false));
        self.engine.trailing.extend_from_slice(&bytes);
        self.engine.sent(key, bytes.len());
        self.mark();
        true
    }

    /// GOAWAY; a server's to a client of ours, or to one that has not shown yet whose it is, not before the client has
    /// opened the control stream: after it, it could not any more, and nothing could be taken off the tunnel.
    pub(crate) fn drain(&mut self) {
        let may_open = self.limits.hands_over && (self.control.capable || !self.control.asked);
        if self.role == Role::Server && may_open && !self.control.opened {
            self.control.drain_when_open = true;
        } else {
            self.drain_now();
        }
    }

    /// GOAWAY, whatever the client may still want to open.
    pub(crate) fn drain_now(&mut self) {
        self.control.drain_when_open = false;
        self.engine.begin_drain();
        self.mark();
    }

    fn parted(&self, key: Key) -> Option<Parted> {
        let stream = &self.engine.streams[key];
        let Use::Splice(connection) = &stream.ext.used else { return None };
        let progress = connection.progress();
        Some(Parted {
            stream: stream.id,
            id: connection.id(),
            sent: progress.sent,
            delivered: progress.delivered,
        })
    }

    fn park(&mut self, key: Key, answered: bool) {
        let deadline = Box::pin(tokio::time::sleep(self.limits.detach_timeout));
        let slot = &mut self.engine.streams[key].ext;
        slot.parting = Some(Box::new(Parting { answered, deadline }));
        slot.wake();
    }

    /// Begins to take a spliced connection off; whether that has been said. Nothing happens with a peer that does not
    /// know how: it goes on.
    pub(crate) fn part(&mut self, key: Key) -> bool {
        if self.engine.streams[key].ext.parting.is_some() {
            return true;
        }
        let Some(parted) = self.parted(key) else { return true };
        let said = self.say(&Message::Detach(parted));
        if said {
            self.park(key, false);
        }
        said
    }

    /// The same for every connection of the tunnel, and from now on for each that is spliced: what cannot be said yet,
    /// because there is no control stream or its window is shut, is said as soon as it can.
    pub(crate) fn part_all(&mut self) {
        self.leaving = true;
        let spliced = |used: &Use| matches!(used, Use::Splice(_));
        let streams = self.engine.streams.iter_mut();
        let keys: Vec<Key> =
            streams.filter(|(_, stream)| spliced(&stream.ext.used)).map(|(key, _)| key).collect();
        // Where one could not be said, none behind it could.
        self.unparted = !keys.into_iter().all(|key| self.part(key));
    }

    /// A connection has been spliced: if all are leaving, so is this one.
    pub(crate) fn part_too(&mut self, key: Key) {
        if self.leaving && self.engine.streams[key].ext.end.is_none() && !self.part(key) {
            self.unparted = true;
        }
    }

    /// Tells the other end why its connection is about to be reset.
    pub(crate) fn explain(&mut self, key: Key, cause: &str) {
        if let Some(Parted { stream, id, .. }) = self.parted(key) {
            self.say(&Message::Closed { stream, id, cause: cause.to_owned() });
        }
    }

    /// Bytes of the control stream.
    pub(super) fn control_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut messages = Vec::new();
        self.control.receive(bytes, &mut messages).map_err(|Garbled| {
            Fault::new(code::PROTOCOL_ERROR, "the control stream carries something that is no message")
        })?;
        for message in messages {
            self.hear(message);
        }
        Ok(())
    }

    fn hear(&mut self, message: Message) {
        let (stream, id) = match &message {
            Message::Detach(parted) | Message::Detached(parted) => (parted.stream, parted.id),
            Message::Closed { stream, id, .. } | Message::Over { stream, id } => (*stream, *id),
        };
        let Some(key) = self.engine.streams.find(stream) else {
            // It has ended here meanwhile. Whoever wants to take it off must not wait for counts that nobody has.
            if matches!(message, Message::Detach(_)) {
                self.tell_over(stream, id);
            }
            return;
        };
        let slot = &mut self.engine.streams[key].ext;
        if let (Message::Detach(parted), Use::Bytes { .. }) = (&message, &slot.used) {
            return self.remember(key, *parted);
        }
        // A message about somebody else's connection says nothing.
        let Use::Splice(connection) = &mut slot.used else { return };
        if connection.id() != id || slot.end.is_some() {
            return;
        }
        match message {
            Message::Closed { cause, .. } => {
                slot.end = Some(Box::new(End::CutByPeer(cause)));
                slot.wake();
            }
            Message::Over { .. } => {
                // All of it has arrived here, its end too: it goes on as if nobody had asked.
                slot.parting = None;
                slot.wake();
            }
            Message::Detach(parted) | Message::Detached(parted) => self.agree(key, &parted),
        }
    }

    /// The peer has stopped and said what it sent. If all of that is here, the connection leaves the tunnel.
    fn agree(&mut self, key: Key, parted: &Parted) {
        let slot = &mut self.engine.streams[key].ext;
        let Use::Splice(connection) = &mut slot.used else { return };
        if parted.sent != connection.progress().received {
            slot.end = Some(Box::new(End::Undetachable));
            slot.wake();
            return;
        }
        if let Some(parting) = &mut slot.parting {
            parting.answered = true;
            slot.wake();
        } else if !self.answer(key) {
            self.remember(key, *parted);
        }
    }

    /// Keeps a detach that cannot be answered now; one a stream.
    fn remember(&mut self, key: Key, parted: Parted) {
        self.unanswered.retain(|(asked, _)| *asked != key);
        self.unanswered.push((key, parted));
    }

    /// Comes back to what could not be said before.
    pub(crate) fn say_late(&mut self) {
        if self.unparted && self.control.key.is_some_and(|key| self.engine.budget(key) >= PARTED_BYTES) {
            self.part_all();
        }
        for (stream, id) in std::mem::take(&mut self.untold) {
            self.tell_over(stream, id);
        }
        for (key, parted) in std::mem::take(&mut self.unanswered) {
            match self.parted(key) {
                Some(own) if own.id == parted.id => self.agree(key, &parted),
                Some(_) => {}
                None => self.unanswered.push((key, parted)),
            }
        }
    }

    /// Tells that a connection has ended here, now or later. A peer that asks for more than there can be is told no more.
    fn tell_over(&mut self, stream: u32, id: ConnectionId) {
        let most = self.limits.server_streams.max(self.limits.client_streams) as usize;
        if !self.say(&Message::Over { stream, id }) && self.untold.len() < most {
            self.untold.push((stream, id));
        }
    }

    /// Whether something waits to be said.
    pub(crate) fn has_something_to_say(&self) -> bool {
        !(self.unanswered.is_empty() && self.untold.is_empty() && !self.unparted)
    }

    fn answer(&mut self, key: Key) -> bool {
        let Some(parted) = self.parted(key) else { return true };
        let said = self.say(&Message::Detached(parted));
        if said {
            self.park(key, true);
        }
        said
    }
}
