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
pub mod revision;
mod watch;

use daemon::tasks::Tasks;
use kube::Client;
use tokio::sync::{mpsc, watch as channel};

use self::gather::{Gather, Told};
pub(crate) use self::kinds::resource_of;
use self::listing::Listing;
use self::revision::{Revision, sieve};
use self::watch::Watch;
use super::Batch;
use crate::cluster::outage::Outage;

/// What watches have told and nobody has taken: beyond, they wait, and so does the server.
const WAITING: usize = 256;
/// Objects of a batch after which it is passed on though there is more.
const BATCH: usize = 4096;
/// A cluster being watched, until dropped.
#[derive(Debug)]
pub struct Cluster {
    told: mpsc::Receiver<Told>,
    gather: Gather,
    revision: Revision,
    _tasks: Tasks,
}

impl Cluster {
    /// Begins to watch all kinds, for one revision.
    pub(crate) fn watch(client: &Client, revision: Revision, outage: &Outage) -> Self {
        let tasks = Tasks::default();
        let (sender, told) = mpsc::channel(WAITING);
        let (serve, served) = channel::channel(None);
        let watched = kinds::watched();
        let custom = watched.iter().filter(|kind| kind.custom).copied().collect();
        tasks.spawn("definitions", definitions::run(client.clone(), custom, outage.clone(), serve));
        let gather = Gather::new(watched.len());
        for (number, kind) in watched.into_iter().enumerate() {
            let (listing, served, outage, to) =
                (Listing::new(kind), served.clone(), outage.clone(), sender.clone());
            tasks.spawn(kind.kind, Watch { number, listing, served, outage, to }.run(client.clone()));
        }
        Self { told, gather, revision, _tasks: tasks }
    }

    /// The next batch: all there is the first time, once every kind has been listed. `None`: the watches have ended.
    pub async fn next(&mut self) -> Option<Batch> {
        loop {
            self.gather.take(self.told.recv().await?);
            while self.gather.waiting() < BATCH
                && let Ok(more) = self.told.try_recv()
            {
                self.gather.take(more);
            }
            if let Some(batch) = self.gather.batch() {
                return Some(sieve(&self.revision, batch));
            }
        }
    }
}
