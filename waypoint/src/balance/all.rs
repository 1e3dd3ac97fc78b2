//! All clusters that there is traffic to, and the task that lets ejected endpoints return.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::Cluster;
use super::shared::Shared;

/// What all threads know of the clusters that there is traffic to.
#[derive(Debug)]
pub(crate) struct AllClusters {
    of: RwLock<HashMap<Cluster, Arc<Shared>, foldhash::fast::RandomState>>,
    next: AtomicU64,
    began: Instant,
    /// Something is in force by which somebody may be ejected.
    pub(super) judged: Notify,
}

/// Clusters that are known before those that nobody uses are forgotten.
const MOST: usize = 4096;
/// How often it is looked what nobody uses any more.
const UPKEEP: Duration = Duration::from_secs(60);
/// Sweeps are not closer together: an interval of a nanosecond would take all the time there is.
const CLOSEST: Duration = Duration::from_millis(10);

impl Default for AllClusters {
    fn default() -> Self {
        Self {
            of: RwLock::default(),
            next: AtomicU64::default(),
            began: Instant::now(),
            judged: Notify::new(),
        }
    }
}

impl AllClusters {
    /// A cluster as all know it; one that is new begins now.
    pub(super) fn of(&self, cluster: &Cluster) -> Arc<Shared> {
        if let Some(known) = self.of.read().unwrap_or_else(PoisonError::into_inner).get(cluster) {
            return known.clone();
        }
        let mut all = self.of.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.retain(|_, shared| Arc::strong_count(shared) > 1);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let new = || Arc::new(Shared::new(cluster.clone(), id, self.began));
        if all.len() >= MOST {
            // Then each thread has its own.
            return new();
        }
        all.entry(cluster.clone()).or_insert_with(new).clone()
    }

    /// Lets endpoints return when their time is over, and forgets what nobody uses, for ever.
    pub(crate) async fn upkeep(&self) {
        let mut forgotten = Instant::now();
        loop {
            let next = self.sweep();
            if forgotten.elapsed() >= UPKEEP {
                forgotten = Instant::now();
                self.forget();
            }
            let now = self.began.elapsed();
            let pause = next.map_or(UPKEEP, |next| next.saturating_sub(now).min(UPKEEP));
            sleep(CLOSEST).await;
            // That the time is over is as good as being told: all are looked at.
            let _ = timeout(pause.saturating_sub(CLOSEST), self.judged.notified()).await;
        }
    }

    /// Sweeps what is due, and says when the next is.
    fn sweep(&self) -> Option<Duration> {
        let all: Vec<Arc<Shared>> =
            self.of.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.iter().filter_map(|shared| shared.sweep()).min()
    }

    /// Those by whose rules somebody may be ejected, or has been.
    pub(super) fn judged(&self) -> Vec<(Arc<Shared>, usize)> {
        let all: Vec<Arc<Shared>> =
            self.of.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.into_iter().filter_map(|shared| shared.ejected().map(|ejected| (shared, ejected))).collect()
    }

    fn forget(&self) {
        let mut all = self.of.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, shared| Arc::strong_count(shared) > 1 || !shared.is_forgettable());
    }
}
