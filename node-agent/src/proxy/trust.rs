//! What the controller's word on certificates (`identity::trust`) means for tunnels that are there already: one at whose
//! ends a certificate is revoked is ended, one whose root is trusted no more takes no new connections, and those on it go on through another
//! ([`super::moves`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hbone::transport::HandshakeError;
use hbone::tunnel::{Driver, Gone, Handle};
use identity::bundle::RootBundle;
use identity::revocation::{RevokedSet, Side};
use identity::tls::Credentials;
use identity::verify::leads_to;
use rustls::pki_types::CertificateDer;
use slab::Slab;

use super::Agent;
use super::worker::Worker;

/// Why a tunnel is ended, as the access log has it.
pub(crate) const PEER_REVOKED: &str = "the peer's certificate is revoked";
/// The same where the certificate is that of the pod here.
pub(crate) const OWN_REVOKED: &str = "the pod's own certificate is revoked";

/// How long before the end of the last root the log speaks of it, once a day.
const ROOT_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// What a failed handshake means: a refusal of this side in its own words.
pub(crate) fn explain(error: &HandshakeError) -> String {
    match error {
        HandshakeError::Tls(error) => format!("TLS handshake: {}", identity::verify::explain(error)),
        other => other.to_string(),
    }
}

/// What becomes of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ends now.
    End(&'static str),
    /// It takes no new connections, and those on it leave.
    Drain,
}

/// The tunnels of one thread, by the certificates at their ends.
#[derive(Debug, Default)]
pub(crate) struct Tunnels(RefCell<Slab<Watched>>);

#[derive(Debug)]
struct Watched {
    tunnel: Handle,
    /// What it was shaken hands with here.
    own: Arc<Credentials>,
    /// The side that the other end is on.
    peer: Side,
    drained: Cell<bool>,
}

/// Runs a tunnel to its end, watched over meanwhile. `own` is what it was shaken hands with, `peer` the side that the
/// other end is on.
pub(crate) async fn drive(worker: Rc<Worker>, driver: Driver, own: Arc<Credentials>, peer: Side) -> Gone {
    let watched = Watched { tunnel: driver.handle(), own, peer, drained: Cell::new(false) };
    // Something may have changed since the handshake, and nobody comes again for it.
    watched.judge(&worker.agent);
    let key = worker.tunnels.0.borrow_mut().insert(watched);
    let gone = driver.await;
    worker.tunnels.0.borrow_mut().try_remove(key);
    gone
}

/// Judges the thread's tunnels again whenever other certificates count.
pub(crate) async fn follow(worker: Rc<Worker>) {
    let mut revoked = worker.agent.tls.revocations().changes();
    let mut roots = worker.agent.certificates.roots();
    loop {
        let changed = tokio::select! {
            changed = revoked.changed() => changed,
            changed = roots.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        worker.tunnels.0.borrow().iter().for_each(|(_, watched)| watched.judge(&worker.agent));
    }
}

impl Watched {
    fn judge(&self, agent: &Agent) {
        let revoked = agent.tls.revocations().current();
        let roots = agent.certificates.roots().borrow().clone();
        match judge(&revoked, roots.as_ref(), &self.tunnel.peer_certificates(), self.own.bundle().chain()) {
            Some(Fate::End(cause)) => {
                agent.revoked_tunnels.count(self.peer);
                tracing::warn!(identity = %self.own.identity(), cause, "a tunnel is ended");
                self.tunnel.end(cause);
            }
            Some(Fate::Drain) if !self.drained.replace(true) => {
                self.tunnel.drain();
                self.tunnel.detach_all();
            }
            _ => {}
        }
    }
}

/// What becomes of a tunnel between these two certificates; the pure decision.
fn judge(
    revoked: &RevokedSet,
    roots: Option<&RootBundle>,
    peer: &[CertificateDer<'_>],
    own: &[CertificateDer<'_>],
) -> Option<Fate> {
    if revoked.check(peer).is_err() {
        return Some(Fate::End(PEER_REVOKED));
    }
    if revoked.check(own).is_err() {
        return Some(Fate::End(OWN_REVOKED));
    }
    let roots = roots?.certificates();
    let trusted = leads_to(peer, roots) && leads_to(own, roots);
    (!trusted).then_some(Fate::Drain)
}

/// Tunnels that were ended because of a revoked certificate: as their server, as their client.
#[derive(Debug, Default)]
pub(crate) struct Ended([AtomicU64; 2]);

impl Ended {
    /// Counts one; its peer was of that side.
    pub(crate) fn count(&self, peer: Side) {
        self.0[peer as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, peer: Side) -> u64 {
        self.0[peer as usize].load(Ordering::Relaxed)
    }
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
