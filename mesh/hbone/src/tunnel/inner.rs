//! What the handles, the streams and the driver of one tunnel share: one cell on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::Gone;
use super::control::{Control, Parted};
use crate::account::{Account, Charge};
use crate::connection::{Connection, ConnectionId};
use crate::fairness::{Share, Ticket};
use crate::frame::code;
use crate::headers::Headers;
use crate::limits::Limits;
use crate::protocol::{Engine, Key, RequestHead, ResponseHead, Role};
use crate::splice::End;
use crate::transport::{Records, Spare, Transport};

/// The cell. Nobody holds a borrow over an await or a call out of this crate.
pub(crate) type Shared = Rc<RefCell<Inner>>;

/// One tunnel's state.
pub(crate) struct Inner {
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) engine: Engine<Slot>,
    /// `None` once the driver has ended.
    pub(crate) transport: Option<Box<dyn Transport>>,
    /// DATA that leaves with the next flush; there only while something is in it.
    pub(crate) records: Option<Records>,
    pub(crate) driver: Option<Waker>,
    /// The driver was woken and has not run since.
    pub(crate) dirty: bool,
    pub(crate) gone: Option<Gone>,
    /// Told to end at once.
    pub(crate) aborted: Option<Gone>,
    /// The code of a GOAWAY in which the peer blamed us.
    pub(crate) blamed: Option<u32>,
    /// Streams that wait for room in the records, in order.
    pub(crate) waiting: VecDeque<Key>,
    pub(crate) requests: VecDeque<(Key, Box<RequestHead>)>,
    pub(crate) acceptor: Option<Waker>,
    /// Handles that may still open or accept streams.
    pub(crate) handles: usize,
    /// Streams that are not the control stream.
    pub(crate) users: usize,
    pub(crate) idle_since: Option<Instant>,
    pub(crate) control: Control,
    /// Detaches that the peer began and that could not be answered yet: on streams whose connections are not spliced (a
    /// CONNECT has been answered, and who asked has not run since), or while the window was shut.
    pub(crate) unanswered: Vec<(Key, Parted)>,
    /// Every connection is to be taken off, also those that are still being opened.
    pub(crate) leaving: bool,
    /// Of some of them that could not be said yet.
    pub(crate) unparted: bool,
    /// Streams and ids of connections that the peer wanted to take off and that had ended here, until it can be told.
    pub(crate) untold: Vec<(u32, ConnectionId)>,
    /// On whose account the tunnel stands, and what came for streams that nobody reads yet.
    pub(crate) charge: Option<Charge>,
    /// Its pod's share of the thread.
    pub(crate) share: Option<Rc<Share>>,
}

/// What a stream is used for.
#[derive(Debug, Default)]
pub(crate) enum Use {
    /// Nothing yet, or nothing any more: what arrives is dropped.
    #[default]
    None,
    /// A CONNECT that waits for its answer.
    Opening,
    /// A byte stream: received bytes wait here to be read. A CONNECT's answer stands in `head` until it is taken.
    Bytes { pending: Vec<u8>, at: usize, head: Option<Box<ResponseHead>> },
    /// A spliced connection: received bytes go straight to its socket.
    Splice(Box<Connection>),
    /// The control stream between two Lateen ends.
    Control,
}

/// What the tunnel keeps with each stream.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) used: Use,
    /// Who reads, or splices.
    pub(crate) reader: Option<Waker>,
    /// Who writes; a splice has one task for both.
    pub(crate) writer: Option<Waker>,
    /// Its last read filled all it was given: the next one gets more.
    pub(crate) bulk: bool,
    /// Stands in `Inner::waiting`.
    pub(crate) queued: bool,
    /// Its place in its pod's line for a turn.
    pub(crate) ticket: Ticket,
    /// Why the stream is over, once it is.
    pub(crate) end: Option<End>,
    /// A detach under way.
    pub(crate) parting: Option<Box<super::parting::Parting>>,
}

impl Slot {
    pub(crate) fn wake(&mut self) {
        for waker in [&self.reader, &self.writer].into_iter().flatten() {
            waker.wake_by_ref();
        }
    }
}

/// Keeps `slot`'s waker current without cloning one that is.
pub(crate) fn keep(slot: &mut Option<Waker>, waker: &Waker) {
    if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

impl Inner {
    pub(crate) fn new(role: Role, transport: Box<dyn Transport>, limits: Limits) -> Self {
        Self {
            role,
            engine: Engine::new(role, limits.clone()),
            limits,
            transport: Some(transport),
            records: None,
            driver: None,
            dirty: true,
            gone: None,
            aborted: None,
            blamed: None,
            waiting: VecDeque::new(),
            requests: VecDeque::new(),
            acceptor: None,
            handles: 1,
            users: 0,
            idle_since: Some(Instant::now()),
            control: Control::default(),
            unanswered: Vec::new(),
            untold: Vec::new(),
            leaving: false,
            unparted: false,
            charge: None,
            share: None,
        }
    }

    /// Something waits to be sent: the driver runs behind all tasks that are ready now, so that what they add leaves in
    /// the same send.
    pub(crate) fn mark(&mut self) {
        if !self.dirty {
            self.dirty = true;
            if let Some(driver) = &self.driver {
                driver.wake_by_ref();
            }
        }
    }

    /// The tunnel's costs are this account's from now on.
    pub(crate) fn charge_to(&mut self, account: &Arc<Account>) {
        self.charge = Some(account.tunnel());
        self.share = Some(Share::of(account));
    }

    /// Bytes of a stream that is not spliced yet went to who reads or splices it.
    pub(crate) fn early_taken(&mut self, bytes: usize) {
        if let Some(charge) = &mut self.charge {
            charge.release(bytes);
        }
    }

    /// The open records; a buffer is fetched if there is none.
    pub(crate) fn records(&mut self) -> &mut Records {
        self.records.get_or_insert_with(Spare::take)
    }

    /// Puts a stream in line for room in the records.
    pub(crate) fn queue(&mut self, key: Key) {
        let slot = &mut self.engine.streams[key].ext;
        if !slot.queued {
            slot.queued = true;
            self.waiting.push_back(key);
        }
    }

    /// Lays as much of `payload` as windows and records allow; returns how much.
    pub(crate) fn write(&mut self, key: Key, payload: &[u8]) -> usize {
        let budget = self.engine.budget(key).min(payload.len());
        if budget == 0 {
            return 0;
        }
        let id = self.engine.streams[key].id;
        let written = self.records().write(id, &payload[..budget]);
        if written < budget {
            self.queue(key);
        }
        if written > 0 {
            self.engine.sent(key, written);
            self.mark();
        }
        written
    }

    /// Ends our direction of a stream; leaves behind the DATA already laid.
    pub(crate) fn end(&mut self, key: Key) {
        let stream = &mut self.engine.streams[key];
        if stream.is_over() || stream.local_ended {
            return;
        }
        stream.local_ended = true;
        let head = crate::frame::data_head(stream.id, 0, true);
        self.engine.trailing.extend_from_slice(&head);
        self.mark();
    }

    pub(crate) fn reset(&mut self, key: Key, code: u32) {
        self.engine.reset(key, code);
        self.mark();
    }

    /// Forgets a stream; what it did not consume is granted to the connection again.
    pub(crate) fn release(&mut self, key: Key) -> Slot {
        let mut slot = self.engine.release(key);
        self.unanswered.retain(|(asked, _)| *asked != key);
        if slot.queued {
            self.waiting.retain(|waiting| *waiting != key);
            slot.queued = false;
        }
        match &slot.used {
            Use::Bytes { pending, at, .. } => {
                self.engine.consumed_unowned(pending.len() - at);
                self.early_taken(pending.len() - at);
            }
            Use::Splice(connection) => self.engine.consumed_unowned(connection.undelivered_of_this_tunnel()),
            Use::None | Use::Opening | Use::Control => {}
        }
        if !matches!(slot.used, Use::Control) {
            self.users -= 1;
            if self.users == 0 {
                self.idle_since = Some(Instant::now());
            }
        }
        self.mark();
        slot
    }

    /// The tunnel has ended: its parts go, and everyone is told.
    pub(crate) fn bury(&mut self, why: Gone) {
        self.transport = None;
        self.records = None;
        (self.charge, self.share) = (None, None);
        self.tell(why);
    }

    /// Nothing more will come or go: everyone is told.
    pub(crate) fn tell(&mut self, why: Gone) {
        self.gone.get_or_insert(why);
        for (key, _) in std::mem::take(&mut self.requests) {
            self.release(key);
        }
        for (_, stream) in self.engine.streams.iter_mut() {
            stream.ext.wake();
        }
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.wake();
        }
    }

    /// Opens a CONNECT; `None` without capacity.
    pub(crate) fn open(&mut self, authority: &str, headers: &Headers, extra: &[(&str, &str)]) -> Option<Key> {
        let slot = Slot { used: Use::Opening, ..Slot::default() };
        let key = self.engine.open(authority, crate::protocol::fields(headers, extra), slot)?;
        self.users += 1;
        self.idle_since = None;
        self.mark();
        Some(key)
    }

    /// A stream that a request opened and nobody took: refused, so that the client may ask elsewhere.
    pub(crate) fn turn_away(&mut self, key: Key) {
        self.engine.reset(key, code::REFUSED_STREAM);
        self.release(key);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("role", &self.role)
            .field("streams", &self.users)
            .finish_non_exhaustive()
    }
}
