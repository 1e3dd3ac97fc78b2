//! The buffers in which a thread's tunnels receive and seal: one set a thread, used by one tunnel at a time.

use std::cell::Cell;
use std::ops::Range;

use crate::protocol::Event;

/// Bytes of one receive: eight full sealed records, so that what a peer sent in one piece is opened without a rest.
/// 64 to 128 KiB measured best; larger leaves the cache.
pub(crate) const RECEIVE: usize = 8 * (16_384 + 22);

/// One thread's working buffers. Nothing in them outlives a turn.
#[derive(Debug)]
pub struct Scratch {
    /// What came from the socket.
    pub(crate) raw: Box<[u8]>,
    /// Plaintext that does not lie in `raw`.
    pub(crate) plain: Vec<u8>,
    /// Where in `raw` plaintext lies, in order; read after `plain`.
    pub(crate) parts: Vec<Range<usize>>,
    /// What it meant.
    pub(crate) events: Vec<Event>,
    /// What goes to the socket.
    pub(crate) sealed: Vec<u8>,
}

thread_local! {
    static IDLE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static USED: Cell<bool> = const { Cell::new(false) };
}

impl Scratch {
    /// The thread's buffers; give them back with [`Scratch::put`].
    pub(crate) fn take() -> Box<Self> {
        USED.set(true);
        IDLE.take().unwrap_or_else(|| {
            Box::new(Self {
                raw: vec![0; RECEIVE].into_boxed_slice(),
                plain: Vec::new(),
                parts: Vec::new(),
                events: Vec::new(),
                sealed: Vec::new(),
            })
        })
    }

    /// Bytes of plaintext that the last receive brought.
    pub(crate) fn received(&self) -> usize {
        self.plain.len() + self.parts.iter().map(ExactSizeIterator::len).sum::<usize>()
    }

    pub(crate) fn put(self: Box<Self>) {
        IDLE.set(Some(self));
    }

    /// Gives the thread's buffers back if nobody has needed them since the last time.
    pub(super) fn settle() {
        if !USED.replace(false) {
            IDLE.take();
        }
    }
}
