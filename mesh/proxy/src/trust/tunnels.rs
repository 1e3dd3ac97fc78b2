//! Tunnels that are there already, judged again whenever other certificates count: one at whose ends a certificate is revoked
//! is ended, one whose root is trusted no more is left. How that is done its owner says.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use hbone::tunnel::{Driver, Gone, Handle};
use identity::revocation::Side;
use identity::tls::Credentials;
use identity::trust::{Fate, judge};
use identity::verify::peer_identity;
use slab::Slab;

use super::Trust;

/// Takes no new connections on a tunnel, and leads those on it away. Called once.
pub type Leave = Box<dyn Fn(&Handle)>;

/// The tunnels of one thread.
#[derive(Debug)]
pub struct Tunnels {
    trust: Trust,
    watched: RefCell<Slab<Watched>>,
}

struct Watched {
    tunnel: Handle,
    /// What it was shaken hands with here.
    own: Arc<Credentials>,
    /// The side that the other end is on.
    peer: Side,
    leave: Leave,
    left: Cell<bool>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("tunnel", &self.tunnel)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Tunnels {
    /// None yet.
    pub fn new(trust: &Trust) -> Self {
        Self { trust: trust.clone(), watched: RefCell::default() }
    }

    /// Runs a tunnel to its end, watched over meanwhile. `own` is what it was shaken hands with, `peer` the side that the
    /// other end is on.
    pub async fn drive(&self, driver: Driver, own: Arc<Credentials>, peer: Side, leave: Leave) -> Gone {
        let watched = Watched { tunnel: driver.handle(), own, peer, leave, left: Cell::new(false) };
        // Something may have changed since the handshake, and nobody comes again for it.
        watched.judge(&self.trust);
        let key = self.watched.borrow_mut().insert(watched);
        let gone = driver.await;
        self.watched.borrow_mut().try_remove(key);
        gone
    }

    /// Judges the tunnels again whenever other certificates count.
    pub async fn follow(&self) {
        let mut revoked = self.trust.tls.revocations().changes();
        let mut roots = self.trust.certificates.roots();
        loop {
            let changed = tokio::select! {
                changed = revoked.changed() => changed,
                changed = roots.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            self.watched.borrow().iter().for_each(|(_, watched)| watched.judge(&self.trust));
        }
    }
}

impl Watched {
    fn judge(&self, trust: &Trust) {
        let revoked = trust.tls.revocations().current();
        let roots = trust.certificates.roots().borrow().clone();
        let peer = self.tunnel.peer_certificates();
        match judge(&revoked, roots.as_ref(), &peer, self.own.bundle().chain()) {
            Some(Fate::End(cause)) => {
                let peer = peer_identity(&peer).map(|peer| peer.to_string()).unwrap_or_default();
                tracing::warn!(identity = %self.own.identity(), peer, cause, "a tunnel is ended");
                trust.ended.count(self.peer);
                self.tunnel.end(cause);
            }
            Some(Fate::Drain) if !self.left.replace(true) => (self.leave)(&self.tunnel),
            _ => {}
        }
    }
}
