//! Keeps what the redirecting role holds for a successor: its files, and the certificates in them. Resources are written
//! down as they come ([`Recorded`](super::restore::Recorded)).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Agent;
use super::journal::{Journal, Work};
use crate::pods::FeedHandle;

/// All certificates are written at once: no sooner than this after the last time, as they come one by one where many
/// pods start,
const SOON: Duration = Duration::from_millis(20);
/// nor sooner than so many times as long as that took.
const SHARE: u32 = 4;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps what is known for a successor.
pub(crate) async fn keep(agent: Arc<Agent>, journal: Arc<Journal>, mut pods: FeedHandle) {
    let mut certificates = agent.trust.certificates.changes();
    // What was restored need not be written again.
    let mut written = *certificates.borrow();
    let mut next = Instant::now();
    loop {
        let renewed = async {
            sleep_until(next).await;
            certificates.wait_for(|now| *now != written).await.map(|now| *now)
        };
        tokio::select! {
            renewed = renewed => {
                let Ok(renewed) = renewed else { return };
                written = renewed;
                let started = Instant::now();
                journal.record_certificates(&agent.trust.certificates.export());
                next = Instant::now() + SOON.max(started.elapsed() * SHARE);
            }
            () = pods.reconnected() => tell(&journal, &pods).await,
            () = journal.woken() => work(&journal, &pods).await,
        }
    }
}

/// Does what there is to do. After a failure it returns, so that what else there is gets its turn before the next attempt.
async fn work(journal: &Arc<Journal>, pods: &FeedHandle) {
    while let Some(work) = journal.work() {
        match work {
            Work::Tell => tell(journal, pods).await,
            Work::Compact => {
                if let Err(error) = journal.compact().await {
                    tracing::warn!(%error, "the saved state was not written anew; trying again");
                    sleep(AGAIN).await;
                    return journal.retry();
                }
            }
            Work::Retry => {
                sleep(AGAIN).await;
                return journal.retry();
            }
        }
    }
}

async fn tell(journal: &Journal, pods: &FeedHandle) {
    if let Err(error) = pods.store(&journal.files()).await {
        // It is told again as soon as there is a connection.
        tracing::debug!(%error, "the redirector was not told of the saved state");
    }
}
