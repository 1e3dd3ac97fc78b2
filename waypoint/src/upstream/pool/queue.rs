//! What those wait for who find no connection, and how they learn that it may be there.

use std::cell::Cell;
use std::rc::Rc;

use model::traffic::pool::Ticket;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Who waits for a connection of an entry, and what they wait for.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Rc<Cell<usize>>,
    /// Something that they wait for may be there.
    pub(super) freed: Notify,
    /// Connections open, or being opened.
    pub(super) open: Rc<Cell<usize>>,
}

/// A connection that is open or being opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) queue: Rc<Queue>,
    _ticket: Option<Ticket>,
    _counted: Counted,
}

impl Opened {
    pub(super) fn new(queue: Rc<Queue>, ticket: Option<Ticket>) -> Self {
        let _counted = Counted::new(&queue.open, None);
        Self { queue, _ticket: ticket, _counted }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.queue.freed.notify_one();
    }
}

/// Says that a stream of HTTP/2 may be had.
#[derive(Debug)]
pub(super) struct Freed(pub(super) Rc<Queue>);

impl Drop for Freed {
    fn drop(&mut self) {
        if self.0.waiting.get() > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// Counts something while it lasts, and notes when it ended.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<usize>>, Option<Rc<Cell<Instant>>>);

impl Counted {
    pub(super) fn new(count: &Rc<Cell<usize>>, since: Option<&Rc<Cell<Instant>>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone(), since.cloned())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
        if let Some(since) = &self.1 {
            since.set(Instant::now());
        }
    }
}
