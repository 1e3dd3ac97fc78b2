//! Tasks with an owner: each has a name, ends when the owner says so, and its panic is one task's end and a log line,
//! not silence.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between two looks at threads that never end.
const LOOK: Duration = Duration::from_secs(1);

/// A part of a process that never ends has ended.
#[derive(Debug, Error)]
#[error("{0} has ended, which is a defect: please report it; the process ends, to be started anew")]
pub struct Defect(pub String);

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

    /// Waits until a task has panicked, or one of the threads `worker-0`, `worker-1`, … has ended.
    pub async fn defect(&self, workers: &[JoinHandle<()>]) -> Defect {
        let ended = async {
            loop {
                if let Some(index) = workers.iter().position(JoinHandle::is_finished) {
                    return index;
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            task = self.panicked() => Defect(format!("the task {task:?}")),
            index = ended => Defect(format!("the thread worker-{index}")),
        }
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
        let before = tokio::time::timeout(Duration::from_millis(20), tasks.panicked()).await;
        assert!(before.is_err(), "{before:?}");
        tasks.spawn("breaks", async { panic!("on purpose") });
        assert_eq!(tasks.panicked().await, "breaks");
        assert!(tasks.defect(&[]).await.to_string().starts_with("the task \"breaks\" has ended"));
        tasks.stop().await;
        assert_eq!(tasks.count(), 0);
    }

    #[tokio::test]
    async fn tells_which_thread_has_ended() {
        let (_open, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let lasting = std::thread::spawn(move || gate.recv().unwrap_or_default());
        let ended = std::thread::spawn(|| {});
        let defect = Tasks::default().defect(&[lasting, ended]).await;
        assert!(defect.to_string().starts_with("the thread worker-1 has ended"), "{defect}");
    }
}
