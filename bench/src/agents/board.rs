//! What the agents have noted: bytes, who has been told everything, and when each heard of the last change.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Bytes of messages: without TLS, HTTP/2 and the token that goes with a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bytes {
    received: u64,
    sent: u64,
}

impl Bytes {
    pub(super) fn sum(self) -> f64 {
        (self.received + self.sent) as f64
    }

    pub(super) fn each(self, agents: u32) -> String {
        let each = |bytes: u64| bytes as f64 / f64::from(agents);
        format!("{:.0} B (sent {:.0} B)", each(self.received), each(self.sent))
    }
}

/// Shared by all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<(Mutex<Noted>, Condvar)>);

#[derive(Debug, Default)]
struct Noted {
    bytes: Bytes,
    told: u32,
    heard: Vec<Instant>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn received(&self, bytes: usize) {
        self.lock().bytes.received += bytes as u64;
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.lock().bytes.sent += bytes as u64;
    }

    /// An agent has everything, the first time on its connection.
    pub(super) fn told(&self) {
        self.lock().told += 1;
        self.0.1.notify_all();
    }

    /// An agent has heard of a change.
    pub(super) fn heard(&self) {
        self.lock().heard.push(Instant::now());
        self.0.1.notify_all();
    }

    pub(super) fn take_bytes(&self) -> Bytes {
        std::mem::take(&mut self.lock().bytes)
    }

    pub(super) fn forget_told(&self) {
        self.lock().told = 0;
    }

    /// From now on a change is waited for.
    pub(super) fn expect(&self, agents: u32) -> Instant {
        let mut noted = self.lock();
        noted.heard.clear();
        noted.heard.reserve(agents as usize);
        Instant::now()
    }

    pub(super) fn wait_told(&self, agents: u32) -> io::Result<()> {
        self.wait(|noted| noted.told >= agents).map(drop)
    }

    /// When each heard of what was [expected](Self::expect).
    pub(super) fn wait_heard(&self, agents: u32) -> io::Result<Vec<Instant>> {
        self.wait(|noted| noted.heard.len() >= agents as usize).map(|noted| noted.heard.clone())
    }

    fn wait(&self, enough: impl Fn(&Noted) -> bool) -> io::Result<MutexGuard<'_, Noted>> {
        let waiting = |noted: &mut Noted| !enough(noted);
        let waited = self.0.1.wait_timeout_while(self.lock(), PATIENCE, waiting);
        let (noted, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let (told, heard) = (noted.told, noted.heard.len());
            let text =
                format!("after {PATIENCE:?} {told} agents have everything, {heard} heard of the change");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(noted)
    }
}
