//! The open records of a tunnel: where streams read their sockets into, between the heads of DATA frames.
//!
//! A full record holds one DATA frame with its head, and up to eight records leave in one send. Small frames share a
//! record. A tunnel has a buffer only while something in it waits to be sealed.

use std::cell::{Cell, RefCell};
use std::io::IoSliceMut;

use crate::frame::{HEAD, data_head};

/// Plaintext of one TLS record.
pub(crate) const RECORD: usize = 16_384;
/// Room for a record's head before its plaintext, and for its type and tag behind it: it is sealed where it lies.
pub(crate) const PREFIX: usize = 5;
pub(crate) const SUFFIX: usize = 17;
/// The whole of a full record.
pub(crate) const SLOT: usize = PREFIX + RECORD + SUFFIX;
/// Records of one send.
pub(crate) const BATCH: usize = 8;
/// Less room than this at a record's end is not worth a frame of its own.
const LEAST: usize = 256;
/// Empty buffers that a thread keeps for the next tunnel that has something to say.
const SPARES: usize = 4;

/// Up to [`BATCH`] records of plaintext, filled from the front.
#[derive(Debug)]
pub(crate) struct Records {
    bytes: Box<[u8]>,
    /// Where each record begins; the last one is open.
    starts: [usize; BATCH],
    count: usize,
    /// Where the open record's plaintext ends.
    end: usize,
}

thread_local! {
    static SPARE: RefCell<Vec<Records>> = const { RefCell::new(Vec::new()) };
    static USED: Cell<bool> = const { Cell::new(false) };
}

/// The thread's empty record buffers.
pub(crate) struct Spare;

impl Spare {
    pub(crate) fn take() -> Records {
        USED.set(true);
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(Records::new)
    }

    pub(crate) fn put(mut records: Records) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES {
                records.clear();
                spare.push(records);
            }
        });
    }

    /// Gives the thread's buffers back if nobody has needed one since the last time.
    pub(super) fn settle() {
        if !USED.replace(false) {
            SPARE.take();
        }
    }
}

impl Records {
    fn new() -> Self {
        Self { bytes: vec![0; BATCH * SLOT].into_boxed_slice(), starts: [0; BATCH], count: 1, end: PREFIX }
    }

    fn clear(&mut self) {
        self.count = 1;
        self.end = PREFIX;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end == PREFIX
    }

    /// Where the next frame of at most `wanted` bytes would stand: (start of its payload, length, opens a record),
    /// given where the open record begins and its plaintext ends.
    fn place(end: usize, record: usize, count: usize, wanted: usize) -> Option<(usize, usize, bool)> {
        let left = RECORD - (end - record - PREFIX);
        let fresh = left < HEAD + wanted.min(LEAST);
        if fresh && count == BATCH {
            return None;
        }
        let (start, room) = if fresh { (end + SUFFIX + PREFIX, RECORD) } else { (end, left) };
        let len = (room - HEAD).min(wanted);
        (len > 0).then_some((start + HEAD, len, fresh))
    }

    /// Gaps of together at most `wanted` bytes for payload, at most one a record; returns how many there are.
    pub(crate) fn gaps<'g>(&'g mut self, wanted: usize, gaps: &mut [IoSliceMut<'g>; BATCH]) -> usize {
        let mut places = [(0, 0); BATCH];
        let (mut end, mut record, mut count) = (self.end, self.starts[self.count - 1], self.count);
        let (mut found, mut left) = (0, wanted);
        while left > 0
            && found < BATCH
            && let Some((start, len, fresh)) = Self::place(end, record, count, left)
        {
            if fresh {
                (record, count) = (end + SUFFIX, count + 1);
            }
            places[found] = (start, len);
            (end, left, found) = (start + len, left - len, found + 1);
        }
        let mut rest = &mut self.bytes[..];
        let mut at = 0;
        for (gap, (start, len)) in gaps.iter_mut().zip(&places[..found]) {
            let (_, after) = rest.split_at_mut(start - at);
            let (taken, after) = after.split_at_mut(*len);
            *gap = IoSliceMut::new(taken);
            (rest, at) = (after, start + len);
        }
        found
    }

    /// `bytes` of the gaps just given for `wanted` were filled: writes the heads of their frames.
    pub(crate) fn commit(&mut self, stream: u32, wanted: usize, bytes: usize) {
        let (mut left, mut wanted) = (bytes, wanted);
        while left > 0
            && let Some((start, len, fresh)) =
                Self::place(self.end, self.starts[self.count - 1], self.count, wanted)
        {
            if fresh {
                self.starts[self.count] = self.end + SUFFIX;
                self.count += 1;
            }
            let used = len.min(left);
            self.bytes[start - HEAD..start].copy_from_slice(&data_head(stream, used, false));
            self.end = start + used;
            (left, wanted) = (left - used, wanted - len);
        }
    }

    /// Copies `payload` in as far as there is room; returns how much.
    pub(crate) fn write(&mut self, stream: u32, payload: &[u8]) -> usize {
        let mut gaps = std::array::from_fn::<_, BATCH, _>(|_| IoSliceMut::new(&mut []));
        let found = self.gaps(payload.len(), &mut gaps);
        let mut rest = payload;
        for gap in &mut gaps[..found] {
            let (now, after) = rest.split_at(gap.len());
            gap.copy_from_slice(now);
            rest = after;
        }
        let written = payload.len() - rest.len();
        self.commit(stream, payload.len(), written);
        written
    }

    fn ends(&self) -> [usize; BATCH] {
        let mut ends = [self.end; BATCH];
        for (end, next) in ends.iter_mut().zip(&self.starts[1..self.count]) {
            *end = next - SUFFIX;
        }
        ends
    }

    /// The plaintext of each record, in order.
    pub(crate) fn filled(&self) -> impl Iterator<Item = &[u8]> {
        let pairs = self.starts.into_iter().zip(self.ends()).take(self.count);
        pairs.map(|(start, end)| &self.bytes[start + PREFIX..end]).filter(|plain| !plain.is_empty())
    }

    /// Has each record sealed where it lies (it is given with the room around its plaintext) and returns all of them.
    pub(crate) fn seal<E>(&mut self, mut seal: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<&[u8], E> {
        if self.is_empty() {
            return Ok(&[]);
        }
        for (start, end) in self.starts.into_iter().zip(self.ends()).take(self.count) {
            seal(&mut self.bytes[start..end + SUFFIX])?;
        }
        Ok(&self.bytes[..self.end + SUFFIX])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Head;

    fn frames(records: &Records) -> Vec<Vec<u32>> {
        let of = |mut record: &[u8]| {
            let mut lens = Vec::new();
            while let Some(head) = record.first_chunk::<HEAD>() {
                let len = Head::parse(head).len;
                lens.push(len);
                record = &record[HEAD + len as usize..];
            }
            assert!(record.is_empty(), "a frame crosses a record's end");
            lens
        };
        records.filled().map(of).collect()
    }

    #[test]
    fn a_full_frame_fills_a_record() {
        let mut records = Records::new();
        let full = RECORD - HEAD;
        assert_eq!(records.write(1, &vec![1; full * BATCH + 1]), full * BATCH);
        assert_eq!(frames(&records), vec![vec![full as u32]; BATCH]);
        assert_eq!(records.write(1, b"x"), 0);
    }

    #[test]
    fn small_frames_share_and_none_crosses() {
        let mut records = Records::new();
        for _ in 0..100 {
            assert_eq!(records.write(3, &[5; 1000]), 1000);
        }
        let lens = frames(&records);
        assert_eq!(lens.iter().flatten().sum::<u32>(), 100_000);
        assert!(
            lens.iter().all(|record| record.iter().map(|len| *len as usize + HEAD).sum::<usize>() <= RECORD)
        );
    }

    #[test]
    fn a_short_read_leaves_no_hole() {
        let mut records = Records::new();
        let mut gaps = std::array::from_fn::<_, BATCH, _>(|_| IoSliceMut::new(&mut []));
        assert_eq!(records.gaps(50_000, &mut gaps), 4);
        records.commit(1, 50_000, 20_000);
        assert_eq!(frames(&records), [vec![16_375], vec![3_625]]);
        assert_eq!(records.write(5, &[1; 10]), 10);
        assert_eq!(frames(&records), [vec![16_375], vec![3_625, 10]]);
    }
}
