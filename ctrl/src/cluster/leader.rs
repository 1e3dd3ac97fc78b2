//! Which replica of the controller writes to the API server: the one that holds the Lease. All of them serve proxies.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::answered;
use crate::source::kube::outage::Outage;

/// The Lease of what all revisions have in common, in the controller's own namespace; a revision's own has its name behind.
pub(super) const NAME: &str = "lateen-leader";
/// How long a Lease holds that nobody renews.
const HOLDS: Duration = Duration::from_secs(15);
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(2);
/// A leader that has not renewed for so long begins to write nothing more: by the longest that an answer is waited for
/// before somebody else does.
const DOUBT: Duration = Duration::from_secs(10);

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is ours: renew it.
    Renew,
    /// Nobody's, or not renewed in time: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// What to do about a Lease that has been as it is for `unchanged`, by our own clock: those of other machines may be wrong.
fn step(lease: &LeaseSpec, us: &str, unchanged: Duration) -> Step {
    let holds = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    match lease.holder_identity.as_deref() {
        Some(holder) if holder == us => Step::Renew,
        None | Some("") => Step::Take,
        Some(_) if unchanged >= holds.map_or(HOLDS, Duration::from_secs) => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// The Lease as it was seen last, and since when.
#[derive(Debug, Default)]
struct Seen {
    version: String,
    since: Option<Instant>,
}

impl Seen {
    /// For how long it has been in this version.
    fn unchanged(&mut self, version: String) -> Duration {
        if self.version != version || self.since.is_none() {
            *self = Self { version, since: Some(Instant::now()) };
        }
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Runs for as long as somebody listens: `leads` is true while this replica, `us`, holds the Lease `name`.
pub(super) async fn run(
    leases: Api<Lease>,
    name: String,
    us: String,
    outage: Outage,
    leads: watch::Sender<bool>,
) {
    let seen = Mutex::default();
    let (renewed, renewals) = watch::channel(None);
    tokio::select! {
        () = renew(|| look(&leases, &name, &us, &seen), &outage, renewed) => {}
        () = tell(renewals, &leads, &name, &us) => {}
    }
}

/// Looks at the Lease again and again; `renewed` is when the look began by which it was ours last, if it still is.
async fn renew<L>(look: impl Fn() -> L, outage: &Outage, renewed: watch::Sender<Option<Instant>>)
where
    L: Future<Output = Result<bool, kube::Error>>,
{
    loop {
        let begun = Instant::now();
        match answered(look()).await {
            Ok(ours) => drop(renewed.send_replace(ours.then_some(begun))),
            Err(error) => outage.note("Lease", &error),
        }
        sleep(LOOK).await;
    }
}

/// Tells whether this replica leads: until there is doubt, whatever becomes of a look meanwhile.
async fn tell(
    mut renewed: watch::Receiver<Option<Instant>>,
    leads: &watch::Sender<bool>,
    lease: &str,
    us: &str,
) {
    loop {
        let doubt = renewed.borrow_and_update().map(|renewed| renewed + DOUBT);
        let doubt = doubt.filter(|doubt| *doubt > Instant::now());
        let lead = doubt.is_some();
        if leads.send_if_modified(|leads| std::mem::replace(leads, lead) != lead) {
            tracing::info!(
                us,
                lease,
                lead,
                "{}",
                if lead { "leads from now on: it writes to the API server" } else { "leads no more" }
            );
        }
        tokio::select! {
            changed = renewed.changed() => if changed.is_err() { return },
            () = leads.closed() => return,
            () = sleep_until(doubt.unwrap_or_else(Instant::now)), if lead => {}
        }
    }
}

/// Whether the Lease is ours after a look at it.
async fn look(leases: &Api<Lease>, name: &str, us: &str, seen: &Mutex<Seen>) -> Result<bool, kube::Error> {
    let Some(mut lease) = leases.get_opt(name).await? else {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        lease.spec = Some(held(us, None));
        return won(leases.create(&PostParams::default(), &lease).await);
    };
    let version = lease.metadata.resource_version.clone().unwrap_or_default();
    let unchanged = seen.lock().unwrap_or_else(PoisonError::into_inner).unchanged(version);
    let spec = lease.spec.take().unwrap_or_default();
    lease.spec = Some(match step(&spec, us, unchanged) {
        Step::Wait => return Ok(false),
        Step::Renew => held(us, Some(&spec)),
        Step::Take => LeaseSpec {
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0).saturating_add(1)),
            ..held(us, None)
        },
    });
    // The version goes along, so that of two who take it one is refused.
    won(leases.replace(name, &PostParams::default(), &lease).await)
}

fn held(us: &str, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(us.to_owned()),
        lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
        acquire_time: before.and_then(|before| before.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: before.and_then(|before| before.lease_transitions),
        ..LeaseSpec::default()
    }
}

/// Somebody was faster: then it is theirs.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::*;
    use crate::cluster::answer::LONGEST;

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_answer_leads_no_more_when_another_may() {
        assert!(DOUBT + LONGEST <= HOLDS, "what was begun before would be written after");
        let begun = Instant::now();
        let outage = Outage::default();
        let looks = Cell::new(0);
        // The first two are answered, each after a second; no other ever is, but the sixth.
        let look = || {
            looks.set(looks.get() + 1);
            let answered = matches!(looks.get(), 1 | 2 | 6);
            async move {
                match answered {
                    true => sleep(Duration::from_secs(1)).await,
                    false => pending().await,
                }
                Ok(true)
            }
        };
        let (lead, mut leads) = watch::channel(false);
        let (renewed, renewals) = watch::channel(None);
        let watched = async {
            let mut seen = Vec::new();
            for wanted in [true, false, true] {
                leads.wait_for(|leads| *leads == wanted).await.expect("it runs");
                seen.push((wanted, begun.elapsed().as_secs()));
            }
            seen
        };
        let seen = tokio::select! {
            () = renew(look, &outage, renewed) => Vec::new(),
            () = tell(renewals, &lead, NAME, "us") => Vec::new(),
            seen = watched => seen,
        };
        // The second look began after 3 s; the next three, after 6, 13 and 20 s, are given up.
        assert_eq!(seen, [(true, 1), (false, 3 + DOUBT.as_secs()), (true, 28)]);
    }

    #[test]
    fn a_lease_is_taken_when_its_holder_is_gone() {
        let spec = |holder: Option<&str>, seconds: Option<i32>| LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        for (lease, unchanged, wanted) in [
            (spec(None, None), 0, Step::Take),
            (spec(Some(""), None), 0, Step::Take),
            (spec(Some("us"), Some(15)), 100, Step::Renew),
            (spec(Some("them"), Some(15)), 14, Step::Wait),
            (spec(Some("them"), Some(15)), 15, Step::Take),
            (spec(Some("them"), Some(60)), 15, Step::Wait),
            (spec(Some("them"), None), 14, Step::Wait),
            (spec(Some("them"), None), 15, Step::Take),
        ] {
            let step = step(&lease, "us", Duration::from_secs(unchanged));
            assert_eq!(step, wanted, "{lease:?} after {unchanged} s");
        }
    }
}
