//! How a waypoint ends, so that nobody notices: it says that it goes, serves until everybody has heard of it, tells
//! clients to go elsewhere, and closes what is left.
//!
//! 1. *Announced*: readiness is gone, which the controller and a kubelet see. Everything is served as before, until the
//!    controller itself says that nothing new is sent here.
//! 2. *Leaving*: tunnels get a GOAWAY, HTTP/2 connections too, and an answer on HTTP/1.1 says that it is the last. Late
//!    comers are served, and told a moment later.
//! 3. *Last call*: what waits for its next request is closed, and nothing more is taken.

use std::sync::Arc;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use model::workload::{Health, Workload};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{Waypoint, worker};

/// Between what the controller says here and the moment when every agent has heard the same.
const SPREAD: Duration = Duration::from_millis(500);
/// A tunnel that comes while this waypoint leaves is told so after this: until then it has been used for what it was
/// opened for.
const LATE: Duration = Duration::from_secs(1);
/// Of the time that there is for the end, the last part is for what waits for its next request.
const LAST: Duration = Duration::from_secs(1);
/// How long endpoints may take to see that nothing more comes.
const HANGING_UP: Duration = Duration::from_millis(500);
/// How long connections of a tunnel that leaves by itself may wait for their next request.
const IDLE: Duration = Duration::from_secs(10);

/// How far the end has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    leaving: Shutdown,
    last_call: Shutdown,
}

impl Ending {
    /// Clients are told to go elsewhere from now on.
    pub(crate) fn leave(&self) {
        self.leaving.begin();
    }

    /// What waits is closed from now on.
    pub(crate) fn call_last(&self) {
        self.leaving.begin();
        self.last_call.begin();
    }

    /// Waits until nothing more is to be taken.
    pub(crate) async fn last_call(&self) {
        self.last_call.begun().await;
    }
}

/// Whether what came by one tunnel is to go elsewhere: because the whole waypoint ends, or the tunnel alone.
#[derive(Debug)]
pub(crate) struct Leaving {
    all: Ending,
    own: Shutdown,
    /// The tunnel came when the waypoint was leaving already, and is told then.
    told_at: Option<Instant>,
}

impl Leaving {
    /// Of a tunnel that comes now.
    pub(crate) fn new(ending: &Ending) -> Self {
        let told_at = ending.leaving.has_begun().then(|| Instant::now() + LATE);
        Self { all: ending.clone(), own: Shutdown::default(), told_at }
    }

    /// This tunnel's connections are to go elsewhere, whatever the waypoint does.
    pub(crate) fn begin(&self) {
        self.own.begin();
    }

    /// Whether answers are to say that they are the last.
    pub(crate) fn has_begun(&self) -> bool {
        let told = || self.told_at.is_none_or(|at| at <= Instant::now());
        self.own.has_begun() || (self.all.leaving.has_begun() && told())
    }

    /// Waits until they are.
    pub(crate) async fn begun(&self) {
        let all = async {
            self.all.leaving.begun().await;
            if let Some(at) = self.told_at {
                sleep_until(at).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = self.own.begun() => {}
        }
    }

    /// Waits until what has no request under way is closed.
    pub(crate) async fn over(&self) {
        let own = async {
            self.own.begun().await;
            sleep(IDLE).await;
        };
        tokio::select! {
            () = self.all.last_call() => {}
            () = own => {}
        }
    }
}

/// How long the first stage may take at most, of all that there is: a controller that does not answer is not waited for.
fn announcing(all: Duration) -> Duration {
    all / 3
}

/// Whether the controller sends nothing new to this waypoint: it says so, or knows it no more.
fn is_known_to_leave(own: Option<&Arc<Workload>>) -> bool {
    own.is_none_or(|own| own.status == Health::Unhealthy)
}

/// Ends in order, within `most`; returns whether all clients had gone by then.
pub(crate) async fn end(waypoint: &Waypoint, most: Duration) -> bool {
    let begun = Instant::now();
    let _ = timeout(announcing(most), known_to_leave(waypoint)).await;
    tracing::info!(after = ?begun.elapsed(), "clients are told to go elsewhere");
    waypoint.ending.leave();
    let drained =
        timeout(most.saturating_sub(begun.elapsed() + LAST), worker::drained(waypoint)).await.is_ok();
    waypoint.ending.call_last();
    let drained = drained || timeout(LAST.min(most), worker::drained(waypoint)).await.is_ok();
    let _ = timeout(HANGING_UP, worker::hung_up(waypoint)).await;
    drained
}

async fn known_to_leave(waypoint: &Waypoint) {
    let mut changes = waypoint.state.changes();
    while !is_known_to_leave(waypoint.own.workload(&waypoint.state.read())) {
        if changes.changed().await.is_err() {
            return;
        }
    }
    sleep(SPREAD).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fixtures::{edit, pod};

    #[test]
    fn who_is_not_sent_anything_may_leave() {
        let ip = "10.0.0.1".parse().unwrap();
        let healthy = Arc::new(pod("waypoint", ip));
        let mut unhealthy = edit(pod("waypoint", ip), |_| {});
        unhealthy.status = Health::Unhealthy;
        for (own, leaves) in [(None, true), (Some(healthy), false), (Some(Arc::new(unhealthy)), true)] {
            assert_eq!(is_known_to_leave(own.as_ref()), leaves, "{own:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_late_is_told_a_moment_later_than_the_others() {
        let ending = Ending::default();
        let early = Leaving::new(&ending);
        assert!(!early.has_begun());
        ending.leave();
        early.begun().await;
        let (late, now) = (Leaving::new(&ending), Instant::now());
        assert!(early.has_begun() && !late.has_begun());
        late.begun().await;
        assert!(late.has_begun());
        assert_eq!(now.elapsed(), LATE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_tunnel_leaves_alone() {
        let ending = Ending::default();
        let (one, other) = (Leaving::new(&ending), Leaving::new(&ending));
        one.begin();
        one.begun().await;
        assert!(one.has_begun() && !other.has_begun());
        let now = Instant::now();
        one.over().await;
        assert_eq!(now.elapsed(), IDLE);
        ending.call_last();
        other.over().await;
        assert!(other.has_begun());
    }
}
