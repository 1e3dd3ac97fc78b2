//! One buffer that all threads append whole lines to and one thread writes out. Lines that come close together go out
//! together: neither do their writers wake the thread for each, nor does it make a system call for each.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The buffer's bound, in bytes. What does not fit is dropped and counted: who writes carries connections meanwhile, and
/// a reader of the log that is slow must not stop them.
const CAPACITY: usize = 1 << 20;
/// From here on what is left is shared by those who write.
const SHARED: usize = CAPACITY / 2;
/// Bytes that are written out without waiting for more.
const ENOUGH: usize = 1 << 16;
/// What a buffer may go on taking of memory when its lines have been written, in bytes: less than a burst needed.
const KEPT: usize = 2 * ENOUGH;
/// How long the end of a process waits for the reader of its log.
const FLUSH: Duration = Duration::from_secs(2);
/// How long a line waits for others at most.
const GATHER: Duration = Duration::from_millis(10);

/// Where lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// Bytes beyond [`SHARED`], by who they are about.
    shares: HashMap<u64, usize>,
    /// Lines dropped since lines were taken last.
    dropped: u64,
    /// The thread has taken lines and not yet written them.
    writing: bool,
    /// Somebody waits until all is written.
    flushing: bool,
}

/// Whom lines are about: of each there is something in a log that is too slow.
#[derive(Debug, Clone, Copy, Hash)]
pub struct About<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Whether there is room for a line, where `length` bytes wait and `own` of those beyond the half are about the same. As
/// many as are left: one alone takes half of the rest, and there is always some for the next.
fn has_room(length: usize, own: Option<usize>) -> bool {
    length < SHARED || length < CAPACITY && own.unwrap_or_default() < CAPACITY - length
}

impl Sink {
    /// Starts the thread that writes to `output`. `tell` writes a line that says how many were dropped.
    pub fn start(
        mut output: impl Write + Send + 'static,
        tell: impl Fn(&mut Vec<u8>, u64) + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let sink = Self(shared.clone());
        let started = std::thread::Builder::new().name(String::from("log")).spawn(move || {
            let mut lines = Vec::new();
            loop {
                let dropped = shared.take(&mut lines);
                if dropped > 0 {
                    tell(&mut lines, dropped);
                }
                // With the output gone there is nobody left to tell.
                let _ = output.write_all(&lines).and_then(|()| output.flush());
                lines.clear();
                lines.shrink_to(KEPT);
                shared.done();
            }
        });
        if let Err(error) = started {
            eprintln!("the log's thread could not be started, nothing will be logged: {error}");
        }
        sink
    }

    /// Appends what `fill` writes; it must be whole lines. They are dropped if there is no room for them, or if those
    /// that are about the same have their share of it.
    pub fn write(&self, about: Option<About<'_>>, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let before = state.buffer.len();
        let share = about.filter(|_| before >= SHARED).map(|about| self.0.hasher.hash_one(about));
        let own = share.map(|share| state.shares.get(&share).copied().unwrap_or_default());
        if !has_room(before, own) {
            state.dropped += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        fill(&mut state.buffer);
        let length = state.buffer.len() - before;
        if let Some(share) = share {
            *state.shares.entry(share).or_default() += length;
        }
        let is_enough = before < ENOUGH && state.buffer.len() >= ENOUGH;
        if (before == 0 || is_enough) && !state.writing {
            self.0.filled.notify_one();
        }
    }

    /// How many lines were dropped for want of room.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was appended has been written, for two seconds at most: where nobody reads, the end of a process
    /// must not wait for that.
    pub fn flush(&self) {
        let begun = Instant::now();
        let mut state = self.0.lock();
        while state.writing || !state.buffer.is_empty() {
            let Some(left) = FLUSH.checked_sub(begun.elapsed()) else { return };
            state.flushing = true;
            self.0.filled.notify_one();
            state = self.0.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Only whole lines are appended, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines, and a moment for more of them, and takes them all, leaving the emptied vector to be filled
    /// again. Returns how many did not fit behind them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        while state.buffer.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let first = Instant::now();
        while state.buffer.len() < ENOUGH && !state.flushing {
            let Some(left) = GATHER.checked_sub(first.elapsed()).filter(|left| !left.is_zero()) else {
                break;
            };
            let waited = self.filled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.flushing = false;
        std::mem::swap(&mut state.buffer, lines);
        state.shares.clear();
        state.writing = true;
        std::mem::take(&mut state.dropped)
    }

    fn done(&self) {
        self.lock().writing = false;
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn tell(out: &mut Vec<u8>, dropped: u64) {
        out.extend_from_slice(format!("lost {dropped}\n").as_bytes());
    }

    #[test]
    fn a_lone_line_goes_out_by_itself() {
        let output = Output::default();
        let sink = Sink::start(output.clone(), tell);
        sink.write(None, |out| out.extend_from_slice(b"one\n"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while *output.0.lock().unwrap() != b"one\n" {
            assert!(Instant::now() < deadline, "nobody writes the line");
            std::thread::yield_now();
        }
    }

    /// An output that takes nothing until it is told to.
    struct Stuck(std::sync::mpsc::Receiver<()>, Output);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A sink over an output that takes nothing until the sender is dropped, with one line on its way to it.
    fn stuck() -> (Sink, std::sync::mpsc::SyncSender<()>, Output) {
        let (go_on, stuck) = std::sync::mpsc::sync_channel(1);
        let output = Output::default();
        let sink = Sink::start(Stuck(stuck, output.clone()), tell);
        sink.write(None, |out| out.extend_from_slice(b"first\n"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !sink.0.lock().writing {
            assert!(Instant::now() < deadline, "nobody takes the line");
            std::thread::yield_now();
        }
        (sink, go_on, output)
    }

    #[test]
    fn a_full_buffer_stops_nobody_and_says_what_it_lost() {
        let (sink, go_on, output) = stuck();
        let line = [vec![b'x'; CAPACITY / 4 - 1], vec![b'\n']].concat();
        // On this thread: nothing takes what is written, and it goes on nevertheless.
        (0..7).for_each(|_| sink.write(None, |out| out.extend_from_slice(&line)));
        assert_eq!((sink.dropped(), sink.0.lock().buffer.len()), (3, CAPACITY));
        drop(go_on);
        sink.flush();
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.len(), 6 + CAPACITY + "lost 3\n".len());
        assert!(text.ends_with("\nlost 3\n"), "where they would have stood");
        sink.write(None, |out| out.extend_from_slice(b"later\n"));
        sink.flush();
        assert!(output.0.lock().unwrap().ends_with(b"lost 3\nlater\n"), "said once");
        // What the burst needed is given back: two batches go through both buffers.
        for _ in 0..2 {
            sink.write(None, |out| out.extend_from_slice(b"one\n"));
            sink.flush();
            assert!(sink.0.lock().buffer.capacity() <= KEPT);
        }
    }

    #[test]
    fn who_floods_a_slow_log_leaves_room_for_others() {
        let (sink, go_on, output) = stuck();
        let write = |name: &str| {
            let about = About { namespace: "shop", name };
            let dropped = sink.dropped();
            sink.write(Some(about), |out| {
                out.extend_from_slice(&[&vec![b'-'; 998][..], name.as_bytes(), b"\n"].concat())
            });
            sink.dropped() == dropped
        };
        let flood = (0..10_000).filter(|_| write("a")).count();
        assert!((780..=790).contains(&flood), "half, and half of the rest: {flood} of 1048");
        let next = std::iter::from_fn(|| write("b").then_some(())).count();
        assert!((125..=135).contains(&next), "{next}");
        assert!(!write("a") && write("c"));
        drop(go_on);
        sink.flush();
        assert!(output.0.lock().unwrap().ends_with(format!("c\nlost {}\n", sink.dropped()).as_bytes()));
        assert!(write("a"), "there is room again");
    }

    #[test]
    fn room_is_shared_beyond_the_half_only() {
        for (length, own, room) in [
            (0, Some(0), true),
            (SHARED - 1, Some(SHARED), true),
            (SHARED, Some(SHARED - 1), true),
            (SHARED, Some(SHARED), false),
            (CAPACITY - 1, Some(0), true),
            (CAPACITY - 1, Some(1), false),
            (CAPACITY - 1, None, true),
            (CAPACITY, None, false),
            (CAPACITY, Some(0), false),
        ] {
            assert_eq!(has_room(length, own), room, "{length} {own:?}");
        }
    }

    #[test]
    fn writes_every_line_of_every_thread() {
        let output = Output::default();
        let sink = Sink::start(output.clone(), tell);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..5000 {
                        // Of all of them together no more than fits.
                        if number % 500 == 0 {
                            sink.flush();
                        }
                        sink.write(None, |out| out.extend_from_slice(&[b'x'; 299]));
                    }
                });
            }
        });
        sink.flush();
        assert_eq!((output.0.lock().unwrap().len(), sink.dropped()), (4 * 5000 * 299, 0));
    }
}
