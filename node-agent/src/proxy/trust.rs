//! What the controller's word on certificates (`identity::trust`) means for tunnels that are there already: one at whose
//! ends a certificate is revoked is ended, one whose root is trusted no more takes no new connections, and those on it go on through another
//! ([`super::moves`]).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hbone::tunnel::{Driver, Gone, Handle};
use identity::revocation::Side;
use identity::tls::Credentials;
use identity::trust::{Trusted, Tunnel};
use rustls::pki_types::CertificateDer;

use super::Agent;
use super::worker::Worker;

/// How long before the end of the last root the log speaks of it, once a day.
const ROOT_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The tunnels of one thread, by the certificates at their ends.
pub(crate) type Tunnels = identity::trust::Tunnels<Watched>;

/// A tunnel, for who watches over it.
#[derive(Debug)]
pub(crate) struct Watched {
    tunnel: Handle,
    /// What it was shaken hands with here.
    own: Arc<Credentials>,
    /// The side that the other end is on.
    peer: Side,
}

impl Tunnel for Watched {
    fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.tunnel.peer_certificates()
    }

    fn peer_side(&self) -> Side {
        self.peer
    }

    fn own(&self) -> &Credentials {
        &self.own
    }

    fn end(&self, cause: &'static str) {
        tracing::warn!(identity = %self.own.identity(), cause, "a tunnel is ended");
        self.tunnel.end(cause);
    }

    fn leave(&self) {
        self.tunnel.drain();
        self.tunnel.detach_all();
    }
}

/// Runs a tunnel to its end, watched over meanwhile. `own` is what it was shaken hands with, `peer` the side that the
/// other end is on.
pub(crate) async fn drive(worker: Rc<Worker>, driver: Driver, own: Arc<Credentials>, peer: Side) -> Gone {
    let watched = Watched { tunnel: driver.handle(), own, peer };
    worker.tunnels.drive(trusted(&worker), watched, driver).await
}

/// Judges the thread's tunnels again whenever other certificates count.
pub(crate) async fn follow(worker: Rc<Worker>) {
    worker.tunnels.follow(trusted(&worker)).await;
}

fn trusted(worker: &Worker) -> Trusted<'_> {
    let Agent { certificates, tls, revoked_tunnels: ended, .. } = &*worker.agent;
    Trusted { certificates, tls, ended }
}

/// Says once a day in the log that the last root will end, for the month before.
pub(crate) async fn warn_of_the_end(agent: Arc<Agent>) {
    loop {
        let now = SystemTime::now();
        let left = agent.certificates.expiries().root.map(|end| end.duration_since(now).unwrap_or_default());
        let pause = match left.filter(|left| *left < ROOT_WARNING) {
            Some(left) => {
                tracing::warn!(
                    days = left.as_secs() / (24 * 3600),
                    "the last root that peers are verified against ends soon, and with it all tunnels; see: lateen ca status"
                );
                24 * HOUR
            }
            None => HOUR,
        };
        tokio::time::sleep(pause).await;
    }
}

/// When what is held ends, by kind; only what there is.
pub(crate) fn ends_by_kind(agent: &Agent) -> BTreeMap<&'static str, SystemTime> {
    let ends = agent.certificates.expiries();
    let kinds = [("root", ends.root), ("intermediate", ends.intermediate), ("workload", ends.workload)];
    kinds.into_iter().filter_map(|(kind, end)| Some((kind, end?))).collect()
}
