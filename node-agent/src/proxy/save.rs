//! When what is known is saved for a successor: soon after every change, but with a bound on what that costs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::type_url;
use tokio::time::{Instant, sleep};
use xds::client::ClientHandle;

use super::Agent;
use super::saved::SavedState;
use super::state::Revision;
use crate::pods::FeedHandle;

/// Changes of one moment go into one save.
const SOON: Duration = Duration::from_millis(20);
/// The longest that a change waits.
const LATEST: Duration = Duration::from_secs(1);
/// Saving takes at most this part of the time,
const SHARE: u32 = 10;
/// once it has used up this much.
const SPARE: Duration = Duration::from_millis(500);

/// Keeps what is known for a successor. Neither rules nor certificates wait because much else changes: no successor
/// may let in what was forbidden, or stand without a certificate that its predecessor had while there is no
/// authority to ask.
pub(crate) async fn keep(agent: Arc<Agent>, controller: ClientHandle, pods: FeedHandle, mut saved: Revision) {
    let mut changes = agent.state.changes();
    let mut certificates = agent.certificates.changes();
    let mut saved_certificates = *certificates.borrow();
    let mut pace = Pace::new(Instant::now());
    loop {
        tokio::select! {
            changed = changes.wait_for(|now| *now != saved) => if changed.is_err() { return },
            changed = certificates.wait_for(|now| *now != saved_certificates) => if changed.is_err() { return },
        }
        saved = *changes.borrow();
        saved_certificates = *certificates.borrow();
        let started = Instant::now();
        if let Err(error) = save(&agent, &controller, &pods).await {
            tracing::warn!(%error, "the state was not saved; a restart would have to ask the controller");
        }
        let took = started.elapsed();
        // They come one by one where many pods start: half of the time is enough for them.
        let renewed = async {
            sleep(took.clamp(SOON, LATEST)).await;
            certificates.wait_for(|now| *now != saved_certificates).await.is_ok()
        };
        tokio::select! {
            () = sleep(pace.pause(took, Instant::now())) => {}
            changed = changes.wait_for(|now| now.rules != saved.rules) => if changed.is_err() { return },
            changed = renewed => if !changed { return },
        }
    }
}

async fn save(agent: &Agent, controller: &ClientHandle, pods: &FeedHandle) -> Result<(), String> {
    let mut versions = HashMap::new();
    for type_url in [type_url::ADDRESS, type_url::AUTHORIZATION, type_url::MESH_SETTINGS] {
        versions.insert(type_url, controller.versions(type_url).await.map_err(|error| error.to_string())?);
    }
    let certificates = agent.certificates.export();
    let versions = |type_url| versions.get(type_url).cloned().unwrap_or_default();
    let bytes = prost::Message::encode_to_vec(&SavedState::of(&agent.state.read(), versions, certificates));
    pods.store(&bytes).await.map_err(|error| error.to_string())
}

/// How soon the next save may come: at once while few have been, a tenth of the time where changes do not end.
#[derive(Debug)]
struct Pace {
    /// What may still be used up.
    spare: Duration,
    /// As of when.
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { spare: SPARE, at: now }
    }

    /// The pause after a save that took this long and ended now.
    fn pause(&mut self, took: Duration, now: Instant) -> Duration {
        self.spare = SPARE.min(self.spare + now.saturating_duration_since(self.at) / SHARE);
        self.at = now;
        if let Some(spare) = self.spare.checked_sub(took) {
            self.spare = spare;
            return SOON;
        }
        let pause = ((took - self.spare) * SHARE).clamp(SOON, LATEST);
        self.spare = Duration::ZERO;
        // The pause pays for this one, not for the next.
        self.at = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_are_saved_at_once_and_many_take_a_tenth_of_the_time() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut busy = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..1000 {
            let took = 40 * MS;
            now += took;
            busy += took;
            let pause = pace.pause(took, now);
            pauses.push(pause);
            now += pause;
        }
        assert!(pauses.iter().take(12).all(|pause| *pause == SOON), "{:?}", &pauses[..12]);
        assert!(pauses.iter().all(|pause| *pause <= LATEST));
        let all = busy + pauses.iter().sum::<Duration>();
        assert!((8..=12).contains(&(all.as_millis() / busy.as_millis())), "{busy:?} of {all:?}");
        // After a quiet time it is as at first.
        now += 10 * LATEST;
        assert_eq!(pace.pause(40 * MS, now), SOON);
    }

    #[test]
    fn nothing_waits_for_longer_than_it_may() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for took in [0, 1, 499, 500, 1_000, 60_000] {
            let pause = pace.pause(took * MS, now);
            assert!((SOON..=LATEST).contains(&pause), "{took} ms: {pause:?}");
        }
    }
}
