//! The end of a process: a signal or a request to quit starts it, everything that drains can see it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Starts the end of the process and lets everything see that it has begun. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Begins the end.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it begins.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Waits for SIGTERM or SIGINT, or for somebody to begin the end, and returns what it was.
    ///
    /// # Errors
    /// The signal handlers cannot be set.
    pub async fn signalled(&self) -> std::io::Result<&'static str> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cause = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = self.begun() => "a request to quit",
        };
        self.begin();
        Ok(cause)
    }
}
