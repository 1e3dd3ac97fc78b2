//! Tasks with an owner: each has a name, ends when the owner says so, and its panic is one task's end and a log line,
//! not silence.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one owner. Dropping it asks them all to end.
#[derive(Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs a future until it ends or the owner stops its tasks.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
        // The watcher is tracked too, so that `stop` returns only after a panic has been reported.
        self.tracker.spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(task = name, "task panicked; this is a defect, please report it");
            }
        });
    }

    /// Ends all tasks and waits until they have.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many tasks run.
    pub fn count(&self) -> usize {
        self.tracker.len() / 2
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
