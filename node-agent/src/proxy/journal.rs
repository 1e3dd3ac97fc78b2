//! What a proxy leaves to its successor, so that a restart serves at once and without a controller: everything that the
//! controller told, with its versions, and the certificates (`docs/ARCHITECTURE.md`, *What survives what*).
//!
//! It is a journal in memory files that the redirecting role holds too: whatever is taken over is written at its end at
//! once, as it came, and costs as much as it is large; later entries win. When most of it has been replaced it is
//! [written anew](Journal::compact) beside the running one. What cannot be written is kept and tried again, in a new
//! file: there is never a gap in what a successor reads.

pub(crate) mod compact;
mod format;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use xds::delta::subscriber::{Delivery, REFUSED, Rejection};

pub(crate) use self::compact::CompactError;
use self::compact::Files;
use self::format::{BATCH, HEADER};
pub(crate) use self::format::{Damaged, Entry, Kind};
use crate::private::saved::{MAX_FILES, MAX_STATE, Saved, SavedError};

/// More files than this are made one. Each proxy begins one, and so does each failure.
const MANY_FILES: usize = 3;
/// Below this size what has been replaced does not matter.
const SMALL: u64 = 256 << 10;
/// What could not be written and is tried again, at most, in bytes.
const PENDING: usize = 16 << 20;
/// What a buffer that is empty may keep for the next time.
const KEPT: usize = 64 << 10;

/// The journal of this process.
#[derive(Debug)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    /// There is something to [do](Journal::work).
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Nobody would read it, or it is too large: nothing is written.
    off: bool,
    files: Vec<Arc<Saved>>,
    /// The redirecting role does not know of these files yet.
    untold: bool,
    /// Where the last file ends, if it is to be written to.
    end: Option<u64>,
    size: Size,
    /// Batches that are not in a file yet.
    buffer: Vec<u8>,
    /// The last attempt at writing them failed.
    failed: bool,
}

/// How much there is, in all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Size {
    bytes: u64,
    /// Of it replaced by what came later, by estimate: what is replaced is taken to be as large as what replaces it.
    dead: u64,
    entries: u64,
}

/// What there is to do with a journal, by whoever may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Tell the redirecting role of the files.
    Tell,
    /// [Write it anew](Journal::compact).
    Compact,
    /// Try again, after a while, to write what could not be written.
    Retry,
}

impl Size {
    /// The size of an entry that is gone or replaced.
    fn mean(&self) -> u64 {
        self.bytes / self.entries.max(1)
    }

    /// Whether so much in so many files is to be written anew.
    fn is_wasteful(&self, files: usize) -> bool {
        let tight = self.bytes > MAX_STATE / 4 * 3;
        let part = if tight { 8 } else { 2 };
        files > MANY_FILES || (self.bytes > SMALL && self.dead > self.bytes / part)
    }
}

impl Journal {
    /// One that nobody would read: nothing is kept.
    pub(crate) fn off() -> Self {
        Self::of(Inner { off: true, ..Inner::default() })
    }

    /// One that is empty.
    pub(crate) fn new() -> Self {
        Self::of(Inner::default())
    }

    /// One that goes on from what a predecessor left, of which so many entries still count.
    pub(crate) fn after(files: Vec<Arc<Saved>>, entries: u64, live: u64) -> Result<Self, SavedError> {
        let lengths = files.iter().map(|file| file.length()).collect::<Result<Vec<_>, _>>()?;
        let bytes: u64 = lengths.into_iter().sum();
        let dead = bytes / entries.max(1) * entries.saturating_sub(live);
        Ok(Self::of(Inner { files, size: Size { bytes, dead, entries }, ..Inner::default() }))
    }

    fn of(inner: Inner) -> Self {
        let wake = Notify::new();
        // There may be something to do from the beginning.
        wake.notify_one();
        Self { inner: Mutex::new(inner), wake }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic between two batches leaves the journal as it was before the second.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what was taken over of a delivery. `stand_in` is the encoded policy that stands in for one that could
    /// not be read.
    pub(crate) fn record(
        &self,
        delivery: &Delivery,
        rejections: &[Rejection],
        mut stand_in: impl FnMut(&str) -> Option<Vec<u8>>,
    ) {
        let Some(kind) = Kind::of(&delivery.type_url) else { return };
        let mut inner = self.inner();
        if inner.off {
            return;
        }
        let refused: HashSet<&str> = rejections.iter().map(|rejection| &*rejection.name).collect();
        let mut batch = Batch::begin(&mut inner);
        for name in &delivery.removed {
            batch.put(kind, name, None, true);
        }
        for received in &delivery.resources {
            if !refused.contains(&*received.name) {
                batch.put(
                    kind,
                    &received.name,
                    Some((&received.version, &received.value)),
                    received.replaces,
                );
            } else if !received.replaces
                && let Some(value) = stand_in(&received.name)
            {
                // It has no version: a successor is sent it again.
                batch.put(kind, &received.name, Some((REFUSED, &value)), false);
            }
        }
        batch.end();
        self.wake_if_needed(&mut inner);
    }

    /// Writes down all certificates as they are now.
    pub(crate) fn record_certificates(&self, export: &[u8]) {
        self.record_one(Kind::Certificates, export);
    }

    /// Writes down that everything has been told once. A successor decides nothing by less: among what is missing may
    /// be what forbids.
    pub(crate) fn record_complete(&self, on_demand: bool) {
        self.record_one(if on_demand { Kind::CompleteOnDemand } else { Kind::Complete }, &[]);
    }

    fn record_one(&self, kind: Kind, value: &[u8]) {
        let mut inner = self.inner();
        if inner.off {
            return;
        }
        let mut batch = Batch::begin(&mut inner);
        batch.put(kind, "", Some(("", value)), true);
        batch.end();
        self.wake_if_needed(&mut inner);
    }

    /// Writes what could not be written before.
    pub(crate) fn retry(&self) {
        let mut inner = self.inner();
        inner.flush();
        self.wake_if_needed(&mut inner);
    }

    fn wake_if_needed(&self, inner: &mut Inner) {
        if inner.work().is_some() {
            self.wake.notify_one();
        }
    }

    /// Waits until there may be something to do.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What there is to do now, the most urgent first.
    pub(crate) fn work(&self) -> Option<Work> {
        self.inner().work()
    }

    /// The files that the redirecting role is to hold; it has been told of them once this was asked.
    pub(crate) fn files(&self) -> Vec<Arc<Saved>> {
        let mut inner = self.inner();
        inner.untold = false;
        inner.files.clone()
    }

    /// Writes the journal anew without what has been replaced, in a thread of its own; entries that come meanwhile
    /// follow.
    ///
    /// # Errors
    /// The old one stays.
    pub(crate) async fn compact(self: &Arc<Self>) -> Result<(), CompactError> {
        let journal = self.clone();
        let compacting = tokio::task::spawn_blocking(move || {
            let (files, size) = journal.inner().ends();
            let compacted = compact::compact(&files)?;
            journal.replace(&files, size, compacted)
        });
        match compacting.await {
            Ok(done) => done,
            // Only a defect ends the thread before it has an answer.
            Err(error) => Err(CompactError::Saved(std::io::Error::other(error).into())),
        }
    }

    /// Goes over to a new file that says what these files said up to these ends.
    fn replace(&self, old: &Files, size: Size, new: compact::Compacted) -> Result<(), CompactError> {
        let mut inner = self.inner();
        let (now, _) = inner.ends();
        let mut end = new.end;
        for (place, (file, upto)) in now.iter().enumerate() {
            let from = old.get(place).map_or(HEADER.len() as u64, |(_, end)| *end);
            let mut buffer = Vec::new();
            for batch in format::batches(file, from, *upto) {
                buffer.clear();
                format::put_batch(&mut buffer, &batch?);
                new.file.write_at(&buffer, end).map_err(SavedError::from)?;
                end += buffer.len() as u64;
            }
        }
        let since = |now: u64, then: u64| now.saturating_sub(then);
        inner.size = Size {
            bytes: end,
            dead: since(inner.size.dead, size.dead),
            entries: new.entries + since(inner.size.entries, size.entries),
        };
        inner.files = vec![Arc::new(new.file)];
        inner.end = Some(end);
        inner.untold = true;
        inner.flush();
        self.wake_if_needed(&mut inner);
        Ok(())
    }
}

impl Inner {
    fn work(&self) -> Option<Work> {
        if self.untold {
            return Some(Work::Tell);
        }
        if self.off {
            return None;
        }
        if self.size.is_wasteful(self.files.len()) {
            return Some(Work::Compact);
        }
        self.failed.then_some(Work::Retry)
    }

    /// The files with what is in them now.
    fn ends(&self) -> (Files, Size) {
        let end = |(place, file): (usize, &Arc<Saved>)| {
            let is_last = place + 1 == self.files.len();
            // What follows in one that is not written to is a batch that was cut off.
            let end = self.end.filter(|_| is_last).or_else(|| file.length().ok()).unwrap_or_default();
            (file.clone(), end)
        };
        (self.files.iter().enumerate().map(end).collect(), self.size)
    }

    /// Writes the buffer to the last file, or to a new one if that cannot be.
    fn flush(&mut self) {
        if self.off {
            self.buffer = Vec::new();
        }
        if self.buffer.is_empty() {
            return;
        }
        let written = self.write().or_else(|_| self.write());
        self.failed = written.is_err();
        match written {
            Ok(()) => {
                self.buffer.clear();
                self.buffer.shrink_to(KEPT);
            }
            // Else there is room once it has been written anew.
            Err(SavedError::TooLarge(_)) if !self.size.is_wasteful(self.files.len()) => {
                self.give_up("it would be larger than is kept");
            }
            Err(_) if self.buffer.len() > PENDING => self.give_up("it could not be written for too long"),
            Err(error) => tracing::warn!(%error, "the state was not saved; trying again"),
        }
    }

    /// Writes the buffer; if that fails, the next attempt begins a new file, as a part may be in this one. So it does
    /// where the file was handed over and sealed.
    fn write(&mut self) -> Result<(), SavedError> {
        let length = self.buffer.len() as u64;
        if self.size.bytes + length > MAX_STATE {
            return Err(SavedError::TooLarge(self.size.bytes + length));
        }
        let end = match self.end.take() {
            Some(end) => end,
            None => self.begin_file()?,
        };
        let Some(file) = self.files.last() else { return Ok(()) };
        file.write_at(&self.buffer, end)?;
        self.end = Some(end + length);
        self.size.bytes += length;
        Ok(())
    }

    fn begin_file(&mut self) -> Result<u64, SavedError> {
        if self.files.len() >= MAX_FILES {
            return Err(SavedError::TooMany(self.files.len() + 1));
        }
        let file = Saved::new()?;
        file.write_at(HEADER, 0)?;
        self.files.push(Arc::new(file));
        self.untold = true;
        Ok(HEADER.len() as u64)
    }

    /// Leaves nothing to a successor, which then asks the controller: a part might let in what is forbidden by now.
    fn give_up(&mut self, why: &str) {
        tracing::error!(
            why,
            "the state is not saved any more; a restart will have to ask the controller for all"
        );
        *self = Self { off: true, untold: true, ..Self::default() };
    }
}

/// Writes batches of entries: what belongs together goes into one, up to a size.
struct Batch<'a> {
    inner: &'a mut Inner,
    start: usize,
}

impl<'a> Batch<'a> {
    fn begin(inner: &'a mut Inner) -> Self {
        let start = format::begin(&mut inner.buffer);
        Self { inner, start }
    }

    fn put(&mut self, kind: Kind, name: &str, content: Option<(&str, &[u8])>, replaces: bool) {
        let Inner { buffer, size, .. } = &mut *self.inner;
        let gone = content.is_none();
        let mean = size.mean();
        let bytes = format::put(buffer, kind, name, content);
        size.entries += 1;
        size.dead += match (gone, replaces) {
            (true, _) => bytes + mean,
            (false, true) => bytes,
            (false, false) => 0,
        };
        if buffer.len() - self.start >= BATCH {
            format::end(buffer, self.start);
            self.inner.flush();
            self.start = format::begin(&mut self.inner.buffer);
        }
    }

    fn end(self) {
        if self.inner.buffer.len() == self.start + 4 {
            self.inner.buffer.truncate(self.start);
        } else {
            format::end(&mut self.inner.buffer, self.start);
        }
        self.inner.flush();
    }
}

/// Shows every entry of what a predecessor left, in order.
///
/// # Errors
/// It is not to be used at all.
pub(crate) fn read(files: &[Arc<Saved>], each: impl FnMut(Entry<'_>)) -> Result<(), Damaged> {
    let end = |file: &Arc<Saved>| Ok((file.clone(), file.length().map_err(unreadable)?));
    compact::read(&files.iter().map(end).collect::<Result<Files, Damaged>>()?, each)
}

/// What cannot be read is of no use.
pub(crate) fn unreadable(error: SavedError) -> Damaged {
    Damaged::Unreadable(std::io::Error::other(error))
}
