//! The end of a process: a signal or a request to quit starts it, everything that drains can see it.

use std::{fmt, io};

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

    /// Waits for SIGTERM or SIGINT, or for somebody to begin the end, and returns what it was. Signals count from the call on,
    /// also before the first look at what it returns.
    ///
    /// # Errors
    /// The signal handlers cannot be set.
    pub fn signalled(&self) -> impl Future<Output = io::Result<Cause>> + use<> {
        let signals = signal(SignalKind::terminate())
            .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
        let end = self.clone();
        async move {
            let (mut terminate, mut interrupt) = signals?;
            let cause = tokio::select! {
                _ = terminate.recv() => Cause::Terminate,
                _ = interrupt.recv() => Cause::Interrupt,
                () = end.begun() => Cause::Request,
            };
            end.begin();
            Ok(cause)
        }
    }
}

/// What began the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM.
    Terminate,
    /// SIGINT, as by Ctrl-C.
    Interrupt,
    /// Something in the process itself.
    Request,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Request => "a request to quit",
        })
    }
}
