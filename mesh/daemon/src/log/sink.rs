//! One buffer that all threads append whole lines to and one thread writes out. Lines that come close together go out
//! together: neither do their writers wake the thread for each, nor does it make a system call for each.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The buffer's bound, in bytes. A writer that finds it full waits for the output: a log line is not lost, and
/// what cannot be written out slows its writers down instead of growing.
const CAPACITY: usize = 1 << 20;
/// Bytes that are written out without waiting for more.
const ENOUGH: usize = 1 << 16;
/// What a buffer may go on taking of memory when its lines have been written, in bytes: less than a burst needed.
const KEPT: usize = 2 * ENOUGH;
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
    waits: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// The thread has taken lines and not yet written them.
    writing: bool,
    /// Somebody waits until all is written.
    flushing: bool,
}

impl Sink {
    /// Starts the thread that writes to `output`.
    pub fn start(mut output: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let sink = Self(shared.clone());
        let started = std::thread::Builder::new().name(String::from("log")).spawn(move || {
            let mut lines = Vec::new();
            loop {
                shared.take(&mut lines);
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

    /// Appends what `fill` writes; it must be whole lines.
    pub fn write(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        if state.buffer.len() >= CAPACITY {
            self.0.waits.fetch_add(1, Ordering::Relaxed);
        }
        while state.buffer.len() >= CAPACITY {
            state = self.0.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let before = state.buffer.len();
        fill(&mut state.buffer);
        let is_enough = before < ENOUGH && state.buffer.len() >= ENOUGH;
        if (before == 0 || is_enough) && !state.writing {
            self.0.filled.notify_one();
        }
    }

    /// How often a writer waited for room.
    pub fn waits(&self) -> u64 {
        self.0.waits.load(Ordering::Relaxed)
    }

    /// Waits until all that was appended has been written.
    pub fn flush(&self) {
        let mut state = self.0.lock();
        while state.writing || !state.buffer.is_empty() {
            state.flushing = true;
            self.0.filled.notify_one();
            state = self.0.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Only whole lines are appended, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines, and a moment for more of them, and takes them all, leaving the emptied vector to be filled
    /// again.
    fn take(&self, lines: &mut Vec<u8>) {
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
        state.writing = true;
        // Those who waited for room have it now.
        self.emptied.notify_all();
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

    #[test]
    fn a_lone_line_goes_out_by_itself() {
        let output = Output::default();
        let sink = Sink::start(output.clone());
        sink.write(|out| out.extend_from_slice(b"one\n"));
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

    #[test]
    fn a_full_buffer_makes_its_writers_wait_and_loses_nothing() {
        let (go_on, stuck) = std::sync::mpsc::sync_channel(1);
        let output = Output::default();
        let sink = Sink::start(Stuck(stuck, output.clone()));
        let line = vec![b'x'; CAPACITY / 4];
        let deadline = Instant::now() + Duration::from_secs(30);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..16).for_each(|_| sink.write(|out| out.extend_from_slice(&line))));
            while sink.waits() == 0 {
                assert!(Instant::now() < deadline, "nobody waits");
                std::thread::yield_now();
            }
            assert!(sink.0.lock().buffer.len() <= CAPACITY);
            drop(go_on);
        });
        sink.flush();
        assert_eq!(output.0.lock().unwrap().len(), 4 * CAPACITY);
        // What the burst needed is given back: the next two batches go through both buffers.
        for _ in 0..2 {
            sink.write(|out| out.extend_from_slice(b"one\n"));
            sink.flush();
            assert!(sink.0.lock().buffer.capacity() <= KEPT);
        }
    }

    #[test]
    fn writes_every_line_of_every_thread() {
        let output = Output::default();
        let sink = Sink::start(output.clone());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5000).for_each(|_| sink.write(|out| out.extend_from_slice(&[b'x'; 299]))));
            }
        });
        sink.flush();
        assert_eq!(output.0.lock().unwrap().len(), 4 * 5000 * 299);
    }
}
