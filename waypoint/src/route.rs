//! Where a request or connection goes: without a route of its own, to an endpoint of the service that was asked for, or
//! to the pod that was. `model::plan` decides, from this waypoint's place in the mesh, so that a host behind another
//! waypoint is reached through that one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::Identity;
use model::address::{NextHop, OriginalDestination};
use model::plan::{Plan, Refusal, plan};
use model::service::Service;
use model::workload::Workload;
use thiserror::Error;

use crate::listen::Inbound;
use crate::telemetry::Flags;
use crate::worker::Worker;

/// Where a request or connection goes.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Where to connect.
    pub(crate) hop: Hop,
    /// The application's address and port, or what the next waypoint is asked for.
    pub(crate) address: SocketAddr,
    /// The workload at the end, if the mesh knows it; that of the next waypoint where it goes through one.
    pub(crate) workload: Option<Arc<Workload>>,
    /// The service that was asked for.
    pub(crate) service: Option<Arc<Service>>,
    /// Whether it goes through another waypoint, which judges for itself.
    pub(crate) waypoint: bool,
}

/// How an endpoint is reached.
#[derive(Debug, Clone)]
pub(crate) enum Hop {
    /// Through a tunnel to this address, which has to prove one of these identities.
    Tunnel {
        /// Where the tunnel ends.
        next_hop: NextHop,
        /// Who may be there.
        expect: Arc<[Identity]>,
    },
    /// In plain.
    Plain(NextHop),
}

/// Why there is nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NoRoute {
    /// As for any other client.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The mesh has not told of it.
    #[error("the controller has not told of {0} within 5 s")]
    Unknown(SocketAddr),
}

impl NoRoute {
    /// The flags in telemetry.
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Refused(_) => Flags::UH,
            Self::Unknown(_) => Flags::NR,
        }
    }
}

/// How long an address of the mesh's own is waited for (`design.md` D5).
const PATIENCE: Duration = Duration::from_secs(5);

/// Picks where a request or connection goes.
///
/// # Errors
/// No endpoint can take it.
pub(crate) async fn endpoint(worker: &Worker, inbound: &Inbound) -> Result<Endpoint, NoRoute> {
    let destination = inbound.target.destination;
    let decide = |mesh: &model::mesh::Mesh| match plan(
        mesh,
        &inbound.own,
        OriginalDestination::new(destination),
        &mut draw,
    ) {
        Plan::Wait(_) => None,
        decided => Some(decided),
    };
    // Nearly always it is known at once, and nothing is waited for.
    let decided = decide(&worker.waypoint.state.read());
    let decided = match decided {
        Some(decided) => Some(decided),
        None => worker.waypoint.state.wait_at_most(PATIENCE, decide).await,
    };
    decided.ok_or(NoRoute::Unknown(destination)).and_then(to_endpoint)
}

fn to_endpoint(plan: Plan) -> Result<Endpoint, NoRoute> {
    match plan {
        Plan::Tunnel(tunnel) => Ok(Endpoint {
            hop: Hop::Tunnel { next_hop: tunnel.next_hop, expect: tunnel.expect.into() },
            address: tunnel.authority,
            workload: Some(tunnel.workload),
            service: tunnel.service,
            waypoint: tunnel.waypoint,
        }),
        Plan::Plain(plain) => Ok(Endpoint {
            hop: Hop::Plain(plain.next_hop),
            address: plain.next_hop.addr(),
            workload: plain.workload,
            service: plain.service,
            waypoint: false,
        }),
        Plan::Refuse(refusal) => Err(NoRoute::Refused(refusal)),
        // Left out before.
        Plan::Wait(address) => Err(NoRoute::Unknown(SocketAddr::new(address.ip, 0))),
    }
}

/// A number below `bound`. It only has to be spread well.
pub(crate) fn draw(bound: u32) -> u32 {
    use std::cell::Cell;
    thread_local!(static STATE: Cell<u64> = Cell::new(seed()));
    // SplitMix64.
    let next = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let drawn = ((mixed ^ (mixed >> 31)) >> 32) * u64::from(bound.max(1));
    u32::try_from(drawn >> 32).unwrap_or(0)
}

fn seed() -> u64 {
    // Without randomness at start the threads only draw alike.
    getrandom::u64().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn draws_are_below_the_bound_and_spread() {
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[draw(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(draw(1), 0);
    }
}
