//! What outlives a restart: what was last good and which waypoints have been ready, in the state folder and, of a cluster,
//! told to who writes it there.

use std::path::Path;
use std::sync::Arc;

use manifest::Batch;
use tokio::sync::watch;

use crate::cluster::Member;
use crate::cluster::memory::{self, LastGoods, Memory};
use crate::core::Core;
use crate::source::last_good::LastGood;
use crate::source::routings::Routings;
use crate::source::waypoints::ReadyWaypoints;

/// All of it.
pub(super) struct Kept {
    last_good: LastGood,
    waypoints: ReadyWaypoints,
    routings: Routings,
    memory: Memory,
}

impl Kept {
    /// What an earlier process left is in force again in `core`: what the folder has, or what the cluster has instead.
    pub(super) async fn open(state: &Path, member: Option<&Member>, core: &Core) -> Self {
        let mut last_good = LastGood::open(state);
        let waypoints = ReadyWaypoints::open(state);
        let routings = Routings::open(state);
        let mut ready = waypoints.stored();
        let mut good = routings.stored();
        if let Some(member) = member
            && let Some(kept) = memory::read(&member.client, &member.replica, &member.outage).await
        {
            // What stands in the folder may be older than what the cluster has.
            ready = kept.waypoints.iter().map(|gateway| (**gateway).clone()).collect();
            good = kept.routings.iter().map(|routing| (**routing).clone()).collect();
            last_good.remember(kept.policies);
        }
        core.remember(&ready);
        core.remember_routings(good);
        Self { last_good, waypoints, routings, memory: Memory::new(&ready) }
    }

    /// Who writes it to the cluster listens here.
    pub(super) fn listen(&self) -> watch::Receiver<Option<Arc<LastGoods>>> {
        self.memory.listen()
    }

    /// The batch with last good versions in the place of what cannot be read.
    pub(super) fn pass(&mut self, batch: Batch) -> Batch {
        self.last_good.pass(batch)
    }

    /// Keeps what has become of the batch that was passed last.
    pub(super) fn keep(&mut self, core: &Core) {
        self.last_good.flush();
        let ready = core.take_kept();
        self.waypoints.keep(&ready);
        let changed = core.take_routings();
        self.memory.note(core, &self.last_good, &ready, !changed.is_empty());
        if !changed.is_empty()
            && let Err(error) = self.routings.keep(&changed, || core.last_good())
        {
            tracing::error!(%error, "routings are in force but not kept for a restart");
        }
    }
}
