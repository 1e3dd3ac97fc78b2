//! Tasks with an owner: each has a name, ends when the owner says so, and its panic is one task's end and a log line,
//! not silence.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one owner. Dropping it asks them all to end.
#[derive(Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// The last task that panicked.
    panicked: watch::Sender<Option<&'static str>>,
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
        let panicked = self.panicked.clone();
        // The watcher is tracked too, so that `stop` returns only after a panic has been reported.
        self.tracker.spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(task = name, "task panicked; this is a defect, please report it");
                panicked.send_replace(Some(name));
            }
        });
    }

    /// Waits until a task has panicked and returns its name. What goes on without one of its tasks is not what it seems
    /// to be: end the process, so that it is started anew.
    pub async fn panicked(&self) -> &'static str {
        let mut panicked = self.panicked.subscribe();
        // The sender lives as long as this owner, so there is a name once this returns.
        panicked.wait_for(Option::is_some).await.ok().and_then(|name| *name).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_which_task_panicked_and_not_which_ended() {
        let tasks = Tasks::default();
        tasks.spawn("ends", async {});
        tasks.spawn("stays", std::future::pending());
        let before = tokio::time::timeout(std::time::Duration::from_millis(20), tasks.panicked()).await;
        assert!(before.is_err(), "{before:?}");
        tasks.spawn("breaks", async { panic!("on purpose") });
        assert_eq!(tasks.panicked().await, "breaks");
        tasks.stop().await;
        assert_eq!(tasks.count(), 0);
    }
}
