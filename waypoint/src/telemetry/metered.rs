//! Counts the bytes of a connection as they go by: what lasts for hours is seen by who scrapes every few seconds.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use daemon::metrics::traffic::Series;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::broken::BreakOff;

/// What has gone over a client's side.
#[derive(Debug, Clone)]
pub(crate) struct Counts(Rc<Counted>);

#[derive(Debug)]
struct Counted {
    /// Bytes that came from the client, and that went to it.
    bytes: Cell<(u64, u64)>,
    /// When the last of them did.
    last: Cell<Instant>,
}

impl Default for Counts {
    fn default() -> Self {
        Self(Rc::new(Counted { bytes: Cell::default(), last: Cell::new(Instant::now()) }))
    }
}

impl Counts {
    /// Bytes that came from the client, and that went to it.
    pub(super) fn get(&self) -> (u64, u64) {
        self.0.bytes.get()
    }

    fn add(&self, received: u64, sent: u64) {
        let bytes = self.get();
        self.0.bytes.set((bytes.0 + received, bytes.1 + sent));
        self.0.last.set(Instant::now());
    }

    /// Waits until nothing has gone for so long.
    pub(crate) async fn until_idle(&self, most: Duration) {
        loop {
            let due = self.0.last.get() + most;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A client's side of a connection.
#[derive(Debug)]
pub(crate) struct Metered<T> {
    inner: T,
    series: Arc<Series>,
    counts: Counts,
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T, series: Arc<Series>, counts: Counts) -> Self {
        Self { inner, series, counts }
    }
}

impl<T: BreakOff> BreakOff for Metered<T> {
    fn break_off(&mut self) {
        self.inner.break_off();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = (buf.filled().len() - before) as u64;
        self.series.received.fetch_add(read, Ordering::Relaxed);
        self.counts.add(read, 0);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.series.sent.fetch_add(written as u64, Ordering::Relaxed);
        self.counts.add(0, written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_count_while_the_connection_lasts() {
        let series = Arc::<Series>::default();
        let counts = Counts::default();
        let (client, mut far) = tokio::io::duplex(64);
        let mut client = Metered::new(client, series.clone(), counts.clone());
        far.write_all(b"hello").await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();
        client.write_all(b"hi").await.unwrap();
        let seen = (series.received.load(Ordering::Relaxed), series.sent.load(Ordering::Relaxed));
        assert_eq!((seen, counts.get()), ((5, 2), (5, 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_who_has_neither_read_nor_written() {
        let counts = Counts::default();
        let begun = Instant::now();
        let most = Duration::from_secs(10);
        for (received, sent) in [(1, 0), (0, 1)] {
            let early = tokio::time::timeout(Duration::from_secs(9), counts.until_idle(most)).await;
            assert!(early.is_err());
            counts.add(received, sent);
        }
        counts.until_idle(most).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(28));
    }
}
