//! Which replica of the controller writes to the API server: the one that holds the Lease. All of them serve proxies.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::outage::Outage;

/// The Lease of what all revisions have in common, in the controller's own namespace; a revision's own has its name behind.
pub(super) const NAME: &str = "lateen-leader";
/// How long a Lease holds that nobody renews.
const HOLDS: Duration = Duration::from_secs(15);
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(2);
/// A leader that has not renewed for so long does not write any more: well before somebody else does.
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

/// Runs for as long as somebody listens: `leads` is true while this replica, `us`, holds the Lease `name`.
pub(super) async fn run(
    leases: Api<Lease>,
    name: String,
    us: String,
    outage: Outage,
    leads: watch::Sender<bool>,
) {
    let mut seen = Seen::default();
    let mut renewed: Option<Instant> = None;
    while !leads.is_closed() {
        let begun = Instant::now();
        match look(&leases, &name, &us, &mut seen).await {
            Ok(true) => renewed = Some(begun),
            Ok(false) => renewed = None,
            Err(error) => outage.note("Lease", &error),
        }
        let lead = renewed.is_some_and(|renewed| renewed.elapsed() < DOUBT);
        if leads.send_if_modified(|leads| std::mem::replace(leads, lead) != lead) {
            tracing::info!(
                us,
                lease = name,
                lead,
                "{}",
                if lead { "leads from now on: it writes to the API server" } else { "another replica leads" }
            );
        }
        sleep(LOOK).await;
    }
}

/// Whether the Lease is ours after a look at it.
async fn look(leases: &Api<Lease>, name: &str, us: &str, seen: &mut Seen) -> Result<bool, kube::Error> {
    let Some(mut lease) = leases.get_opt(name).await? else {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        lease.spec = Some(held(us, None));
        return won(leases.create(&PostParams::default(), &lease).await);
    };
    let version = lease.metadata.resource_version.clone().unwrap_or_default();
    if seen.version != version || seen.since.is_none() {
        *seen = Seen { version, since: Some(Instant::now()) };
    }
    let unchanged = seen.since.map_or(Duration::ZERO, |since| since.elapsed());
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
    use super::*;

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
