//! Who is to be checked: endpoints of the services that the rules of this waypoint's own hosts lead to, where a DestinationRule
//! asks for it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::address::{NamespacedHostname, OriginalDestination};
use model::mesh::Mesh;
use model::plan::is_waypoint;
use model::select::{Selected, usable};
use model::service::{LoadBalancingMode, Service};
use model::traffic::Destination;
use model::workload::Workload;
use tokio::time::{Instant, sleep_until};

use super::Wanted;
use crate::{Waypoint, target};

/// Looks are not closer together: what comes in between is looked at at once.
const CLOSEST: Duration = Duration::from_millis(20);

/// What the rules of a host say of the services that they lead to.
pub(crate) type Asking = (NamespacedHostname, Vec<(NamespacedHostname, Arc<Destination>)>);

/// Follows rules and mesh, for ever: what they ask for is checked from then on.
pub(crate) async fn follow(waypoint: Arc<Waypoint>) {
    let (mut mesh, mut rules) = (waypoint.state.changes(), waypoint.routings.changes());
    let (mut asking, mut edition) = (Vec::new(), None);
    loop {
        let looked = Instant::now();
        // Noted before it is looked at: what changes meanwhile is looked at again.
        mesh.mark_unchanged();
        let now = Some(*rules.borrow_and_update());
        if edition != now {
            asking = waypoint.routings.asking_for_checks();
            edition = now;
        }
        if !asking.is_empty() || !waypoint.checks.is_empty() {
            look(&waypoint, &asking);
        }
        // Their senders are the waypoint's own, and stay.
        let _ = tokio::select! {
            changed = mesh.changed(), if !asking.is_empty() => changed,
            changed = rules.changed() => changed,
        };
        sleep_until(looked + CLOSEST).await;
    }
}

fn look(waypoint: &Waypoint, asking: &[Asking]) {
    let wanted = {
        let mesh = waypoint.state.read();
        match waypoint.own.workload(&mesh) {
            Some(own) => wanted(&mesh, own, asking),
            // Where rules ask for none any more, there are none, whoever asks.
            None if asking.is_empty() => Vec::new(),
            // Nothing can be asked before it is known as whom.
            None => return,
        }
    };
    waypoint.checks.replace(wanted);
}

/// Who is to be checked. Where two hosts' rules say different things of one service, what its own host's say counts, else
/// those of the first by name.
pub(super) fn wanted(mesh: &Mesh, own: &Arc<Workload>, asking: &[Asking]) -> Vec<Wanted> {
    let mut found: BTreeMap<&NamespacedHostname, (bool, Wanted)> = BTreeMap::new();
    for (host, destinations) in asking {
        let is_served = mesh.service(host).is_some_and(|service| target::is_bound(mesh, own, service));
        for (key, rules) in destinations.iter().filter(|_| is_served) {
            let is_own = key == host;
            if found.get(key).is_some_and(|(known_own, _)| *known_own || !is_own) {
                continue;
            }
            let Some(service) = mesh.service(key).filter(|service| is_balanced_here(mesh, own, service))
            else {
                continue;
            };
            // What comes from this waypoint its services' pods believe, and no policy judges a check: nobody else's rules ask them.
            if key.namespace() != host.namespace() && target::is_bound(mesh, own, service) {
                continue;
            }
            let Some(check) = rules.health_check.clone() else { continue };
            let endpoints = endpoints(mesh, own, service, check.probe.port());
            let wanted = Wanted { service: service.clone(), rules: rules.cause.clone(), check, endpoints };
            found.insert(key, (is_own, wanted));
        }
    }
    found.into_values().map(|(_, wanted)| wanted).collect()
}

/// Whether it is this waypoint that chooses among the service's endpoints, as [`crate::route`] has it.
fn is_balanced_here(mesh: &Mesh, own: &Workload, service: &Service) -> bool {
    let elsewhere = service.waypoint.as_ref().is_some_and(|waypoint| !is_waypoint(mesh, own, waypoint))
        || service.rare.load_balancing.mode == LoadBalancingMode::Passthrough;
    !elsewhere || service.vips.is_empty()
}

/// The endpoints that can take requests on any of the service's ports, each where it is asked.
fn endpoints(mesh: &Mesh, own: &Workload, service: &Service, port: u16) -> Vec<Selected> {
    let vip = service.vips.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |vip| vip.ip);
    let one = |workload: &Arc<Workload>| {
        let foreign = **workload.namespace() != *service.key.namespace();
        // It believes what comes from here, and no policy judges a check: who names it in an EndpointSlice does not have it asked.
        if foreign && target::is_judged_here(own, workload) {
            return None;
        }
        let on =
            |port: u16| usable(service, own, workload, OriginalDestination::new(SocketAddr::new(vip, port)));
        let (_, ip) = service.ports.0.iter().find_map(|port| on(port.service))?;
        Some(Selected { workload: workload.clone(), port, ip })
    };
    mesh.endpoints(&service.key).map(|all| all.all().iter().filter_map(one).collect()).unwrap_or_default()
}
