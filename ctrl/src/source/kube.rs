//! A cluster's objects, from its API server: one watch a kind, all of them gathered into batches. While the server is
//! away, what was in force stays in force, and the watches go on where they broke off.
//!
//! ```text
//!  definitions ─(version)─► watch ─► listing (what differs?) ─► read ─┐
//!                           watch ─► …                               ├─► gather ─► batch
//! ```

mod definitions;
mod gather;
mod kinds;
mod listing;
pub(crate) mod outage;
pub mod revision;
mod watch;

use daemon::tasks::Tasks;
use kube::Client;
use manifest::Batch;
use tokio::sync::{mpsc, watch as channel};

use self::gather::{Gather, News};
pub(crate) use self::kinds::resource_of;
use self::listing::Listing;
use self::outage::Outage;
use self::revision::{Revision, sieve};
use self::watch::Watch;

/// What watches have told and nobody has taken: beyond, they wait, and so does the server.
const WAITING: usize = 256;
/// Objects of a batch after which it is passed on though there is more.
const BATCH: usize = 4096;
/// A cluster being watched, until dropped.
#[derive(Debug)]
pub struct Cluster {
    news: mpsc::Receiver<News>,
    gather: Gather,
    revision: Revision,
    tasks: Tasks,
}

impl Cluster {
    /// Begins to watch all kinds, for one revision.
    pub(crate) fn watch(client: &Client, revision: Revision, outage: &Outage) -> Self {
        let tasks = Tasks::default();
        let (sender, news) = mpsc::channel(WAITING);
        let (serve, served) = channel::channel(None);
        let watched = kinds::watched();
        let custom = watched.iter().filter(|kind| kind.custom).copied().collect();
        tasks.spawn_lasting("definitions", definitions::run(client.clone(), custom, outage.clone(), serve));
        let gather = Gather::new(watched.len());
        for (number, kind) in watched.into_iter().enumerate() {
            let (listing, served, outage, to) =
                (Listing::new(kind), served.clone(), outage.clone(), sender.clone());
            tasks.spawn_lasting(kind.kind, Watch { number, listing, served, outage, to }.run(client.clone()));
        }
        Self { news, gather, revision, tasks }
    }

    /// The next batch: all there is the first time, once every kind has been listed. `None`: a watch has ended.
    pub async fn next(&mut self) -> Option<Batch> {
        loop {
            let news = tokio::select! {
                news = self.news.recv() => news?,
                // The others would go on, and objects of its kind stay for ever as they were.
                _ = self.tasks.broken() => return None,
            };
            self.gather.take(news);
            while self.gather.waiting() < BATCH
                && let Ok(more) = self.news.try_recv()
            {
                self.gather.take(more);
            }
            if let Some(batch) = self.gather.batch() {
                return Some(sieve(&self.revision, batch));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn ends_when_the_watch_of_one_kind_has_ended() {
        for (what, breaks) in [("returned", false), ("panicked", true)] {
            let tasks = Tasks::default();
            let (sender, news) = mpsc::channel(1);
            let others = sender.clone();
            tasks.spawn_lasting("Service", async move {
                let _others = others;
                pending().await
            });
            tasks.spawn_lasting("Pod", async move {
                assert!(!breaks, "breaks on purpose");
                drop(sender);
            });
            let mut cluster =
                Cluster { news, gather: Gather::new(2), revision: Revision::new("", []), tasks };
            assert!(cluster.next().await.is_none(), "{what}");
        }
    }
}
