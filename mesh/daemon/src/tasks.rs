//! Tasks with an owner: each has a name, ends when the owner says so, and its panic is one task's end and a log line,
//! not silence. One that is to last as long as its owner is missed however it ends before.

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
    /// The last task that broke off: that panicked, or that ended and was to last.
    broken: watch::Sender<Option<&'static str>>,
}

impl Tasks {
    /// Runs a future until it ends or the owner stops its tasks. That it panics is a defect.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, false, future);
    }

    /// Runs a future until the owner stops its tasks. That it ends before, in whatever way, is a defect.
    pub fn spawn_lasting(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, true, future);
    }

    fn start(&self, name: &'static str, lasting: bool, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = self.tracker.spawn(async move {
            tokio::select! {
                // First: a task that ends because others have been stopped is none that broke off.
                biased;
                () = stop.cancelled() => false,
                () = future => lasting,
            }
        });
        let broken = self.broken.clone();
        // The watcher is tracked too, so that `stop` returns only after a defect has been reported.
        self.tracker.spawn(async move {
            let how = match task.await {
                Ok(false) => return,
                Ok(true) => "ended",
                Err(error) if error.is_panic() => "panicked",
                Err(_) => return,
            };
            tracing::error!(task = name, "task {how}; this is a defect, please report it");
            broken.send_replace(Some(name));
        });
    }

    /// Waits until a task has panicked, or one that was to last has ended, and returns its name. What goes on without one
    /// of its tasks is not what it seems to be: end the process, so that it is started anew.
    pub async fn broken(&self) -> &'static str {
        let mut broken = self.broken.subscribe();
        // The sender lives as long as this owner, so there is a name once this returns.
        broken.wait_for(Option::is_some).await.ok().and_then(|name| *name).unwrap_or_default()
    }

    /// Waits until a task has [broken off](Self::broken), or one of the threads `worker-0`, `worker-1`, … has ended.
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
            task = self.broken() => Defect(format!("the task {task:?}")),
            index = ended, if !workers.is_empty() => Defect(format!("the thread worker-{index}")),
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

    #[tokio::test(start_paused = true)]
    async fn tells_which_task_broke_off() {
        async fn breaks() {
            panic!("on purpose");
        }
        type Start = fn(&Tasks);
        let cases: [(&str, Start, bool); 5] = [
            ("one that ends", |tasks| tasks.spawn("it", async {}), false),
            ("one that panics", |tasks| tasks.spawn("it", breaks()), true),
            ("a lasting one", |tasks| tasks.spawn_lasting("it", std::future::pending()), false),
            ("a lasting one that ends", |tasks| tasks.spawn_lasting("it", async {}), true),
            ("a lasting one that panics", |tasks| tasks.spawn_lasting("it", breaks()), true),
        ];
        for (what, start, is_defect) in cases {
            let tasks = Tasks::default();
            tasks.spawn_lasting("stays", std::future::pending());
            start(&tasks);
            let defect = tokio::time::timeout(Duration::from_secs(60), tasks.defect(&[])).await;
            assert_eq!(defect.is_ok(), is_defect, "{what}");
            if let Ok(defect) = defect {
                assert!(defect.to_string().starts_with("the task \"it\" has ended"), "{defect}");
            }
            tasks.stop().await;
            assert_eq!(tasks.count(), 0);
        }
    }

    #[tokio::test]
    async fn what_ends_since_its_tasks_are_stopped_is_no_defect() {
        let tasks = Tasks::default();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn_lasting("one", async move {
            let _held = sender;
            std::future::pending().await
        });
        // It ends with the other, whichever is told first.
        tasks.spawn_lasting("two", async move { drop(receiver.await) });
        tokio::task::yield_now().await;
        tasks.stop().await;
        assert_eq!(*tasks.broken.borrow(), None);
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
