//! What happens to the authorities with time: files are read again, phases pass, lists are signed anew, proxies are told,
//! and whoever runs the mesh is warned long before something ends.

mod alarm;
mod awaited;
pub mod status;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};
use xds::server::Clients;

use self::alarm::Alarm;
pub use self::awaited::awaited;
use super::authorize::Caller;
use super::custody::Custody;
use super::keyring::Keyring;
use super::keyring::phase::{Situation, Step, Successor, step};
use super::metrics::CaMetrics;
use crate::core::Core;

/// How often it is looked whether there is something to do. A change of roots in a mesh of short lifetimes has few
/// seconds.
const TICK: Duration = Duration::from_millis(500);

/// How often the files of a plugged-in authority are read.
const REREAD_TICKS: u32 = 4;

/// Steps at a time; a change of roots has three.
const MOST_STEPS: usize = 16;

/// The one who looks after the authorities.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// The authorities.
    pub keyring: Arc<Keyring>,
    /// What proxies are told.
    pub core: Core,
    /// The proxies.
    pub clients: Arc<Clients<Caller>>,
    /// What is scraped.
    pub metrics: CaMetrics,
    /// Of a cluster: which replica may change them.
    pub custody: Option<Custody>,
}

impl Upkeep {
    /// Looks after them until dropped.
    pub async fn run(self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alarm = Alarm::default();
        let mut ticks = 0_u32;
        loop {
            tick.tick().await;
            let now = SystemTime::now();
            if ticks.is_multiple_of(REREAD_TICKS)
                && let Err(error) = self.keyring.reread(now)
            {
                tracing::error!(%error, "the plugged-in authority is not taken; the one in force stays");
            }
            ticks = ticks.wrapping_add(1);
            self.keyring.tidy(now);
            self.advance(now);
            let ends = self.keyring.ends();
            self.metrics.set(&ends, self.keyring.revoked_certificates());
            alarm.sound(&ends, now);
        }
    }

    /// Tells proxies what is trusted, and takes the steps that are due.
    pub fn advance(&self, now: SystemTime) {
        for _ in 0..MOST_STEPS {
            self.core.set_trust(self.keyring.trust());
            // Before configuration was read, nobody has been told anything.
            if self.core.settings_revision().is_none() || !self.may_step() {
                return;
            }
            let successor = self.keyring.successor_since().map(|since| {
                let elsewhere =
                    self.custody.as_ref().map_or(0, |custody| custody.awaited_elsewhere(since, now));
                Successor { since, awaited: self.awaited(since) + elsewhere }
            });
            let situation = self.situation(successor, now);
            let Some(next) = step(&situation) else { return };
            if let Err(error) = self.take(next, now) {
                tracing::error!(%error, ?next, "a step of a change of roots failed; it is tried again");
                return;
            }
        }
    }

    /// Whether this process is the one that changes authorities, and has written down what it did last.
    pub fn may_step(&self) -> bool {
        self.custody.as_ref().is_none_or(|custody| custody.may_step(&self.keyring))
    }

    /// How many of this process's proxies have not said that they know a successor that is distributed since then.
    pub fn awaited(&self, since: SystemTime) -> usize {
        let told = self.core.settings_revision().unwrap_or_default();
        awaited(&self.keyring, &self.clients.all(), told, since).len()
    }

    fn situation(&self, successor: Option<Successor>, now: SystemTime) -> Situation {
        let settings = self.keyring.settings();
        Situation {
            now,
            own_root: self.keyring.own_root(),
            grace_percent: settings.grace_percent,
            successor,
            patience: settings.patience,
            retired: self.keyring.retired_ends(),
        }
    }

    fn take(&self, step: Step, now: SystemTime) -> Result<(), super::root::RootError> {
        match step {
            Step::Begin => {
                tracing::warn!("the root's time is nearly over: a change of roots begins");
                self.keyring.begin(now).map(drop)
            }
            Step::Switch => self.keyring.switch(now),
            Step::SwitchAnyway => {
                let told = self.core.settings_revision().unwrap_or_default();
                let since = self.keyring.successor_since().unwrap_or(now);
                let awaited = awaited(&self.keyring, &self.clients.all(), told, since);
                tracing::warn!(
                    ?awaited,
                    "not everybody has said that he trusts the new root, and time is up; these will refuse what it signs \
                     until they have heard of it"
                );
                self.keyring.switch(now)
            }
            Step::Drop(place) => self.keyring.drop_retired(place, now),
        }
    }
}
