//! The threads that carry traffic: each has a runtime of its own, ends only with the process, and takes the process with it
//! if it ends before ([`ending`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use daemon::settings::Settings;
use daemon::settings::shared::name;
use daemon::shutdown::Cause;
use daemon::start::StartError;
use daemon::tasks::Tasks;
use tokio::runtime::{self, LocalOptions};

/// The threads, `worker-0`, `worker-1`, …
pub type Threads = Vec<JoinHandle<()>>;

/// How many there are to be.
///
/// # Errors
/// The setting cannot be used.
pub fn count(settings: &Settings) -> Result<usize, StartError> {
    let threads = settings.parse(name::WORKER_THREADS, "a number of threads, or 0 for one a CPU")?;
    Ok(match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    })
}

/// Starts one for each mailbox: `run` has it until it returns.
///
/// # Errors
/// One could not be made.
pub fn start<M: Send + 'static, R: Future<Output = ()>>(
    mailboxes: Vec<M>,
    run: impl Fn(usize, M) -> R + Clone + Send + 'static,
) -> Result<Threads, StartError> {
    let start = |(index, mailbox)| {
        let run = run.clone();
        Builder::new().name(format!("worker-{index}")).spawn(move || {
            match runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(run(index, mailbox)),
                Err(error) => {
                    tracing::error!(%error, "a worker's runtime could not be made; check the limit of open files");
                }
            }
        })
    };
    let started = mailboxes.into_iter().enumerate().map(start).collect::<Result<_, _>>();
    started.map_err(|error| StartError::System("a worker thread could not be started", error))
}

/// Waits until the process is told to end, and says by what.
///
/// # Errors
/// A task or a thread has ended without being told: its part would not be served, or the controller not heard.
pub async fn ending(
    signalled: impl Future<Output = io::Result<Cause>>,
    tasks: &Tasks,
    threads: &[JoinHandle<()>],
) -> Result<Cause, StartError> {
    tokio::select! {
        cause = signalled => cause.map_err(|error| StartError::System("signals cannot be handled", error)),
        defect = tasks.defect(threads) => Err(defect.into()),
    }
}

/// How many there are of something now, for all threads to see.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

/// One of them, until dropped.
#[derive(Debug)]
pub struct Counted(Count);

impl Count {
    /// One more.
    pub fn one(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// How many there are.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn each_mailbox_has_a_thread_by_its_index() {
        let (sender, told) = sync_channel(2);
        let run = move |index: usize, mailbox: &'static str| {
            let sender = sender.clone();
            async move {
                let name = std::thread::current().name().map(str::to_owned);
                sender.send((index, mailbox, name)).unwrap();
            }
        };
        let threads = start(vec!["a", "b"], run).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut all: Vec<_> = told.iter().collect();
        all.sort_unstable();
        let named = |index: usize| Some(format!("worker-{index}"));
        assert_eq!(all, [(0, "a", named(0)), (1, "b", named(1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_ends_ends_the_process() {
        let threads = vec![std::thread::spawn(|| {})];
        let error = ending(std::future::pending(), &Tasks::default(), &threads).await.unwrap_err();
        assert!(error.to_string().contains("worker-0"), "{error}");
        let cause = ending(std::future::ready(Ok(Cause::Request)), &Tasks::default(), &[]).await.unwrap();
        assert_eq!(cause, Cause::Request);
    }

    #[test]
    fn what_is_dropped_is_counted_no_more() {
        let count = Count::default();
        let (one, _other) = (count.one(), count.one());
        assert_eq!(count.get(), 2);
        drop(one);
        assert_eq!(count.get(), 1);
    }
}
