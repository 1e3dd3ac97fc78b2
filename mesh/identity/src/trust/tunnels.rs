//! Tunnels that are there already, judged again whenever other certificates count. What a tunnel is, and how one is left,
//! its owner knows.

use std::cell::{Cell, RefCell};

use rustls_pki_types::CertificateDer;
use slab::Slab;

use super::{Ended, Fate, judge};
use crate::revocation::Side;
use crate::rotation::Certificates;
use crate::tls::{Credentials, Tls};

/// A tunnel, as far as its certificates matter.
pub trait Tunnel {
    /// The certificates that the other end has shown, leaf first.
    fn peer_certificates(&self) -> Vec<CertificateDer<'static>>;

    /// The side that the other end is on.
    fn peer_side(&self) -> Side;

    /// What it was shaken hands with here.
    fn own(&self) -> &Credentials;

    /// Ends it now, for this cause.
    fn end(&self, cause: &'static str);

    /// Takes no new connections on it, and leads those on it away. Called once.
    fn leave(&self);
}

/// Whose certificates count, and who counts the tunnels that are ended.
#[derive(Debug, Clone, Copy)]
pub struct Trusted<'a> {
    /// Its roots vouch.
    pub certificates: &'a Certificates,
    /// Its list names who is revoked.
    pub tls: &'a Tls,
    /// Tunnels that were ended.
    pub ended: &'a Ended,
}

/// The tunnels of one thread.
#[derive(Debug)]
pub struct Tunnels<T>(RefCell<Slab<Watched<T>>>);

#[derive(Debug)]
struct Watched<T> {
    tunnel: T,
    left: Cell<bool>,
}

impl<T> Default for Tunnels<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Tunnel> Tunnels<T> {
    /// Runs a tunnel to its end, watched over meanwhile.
    pub async fn drive<D: Future>(&self, trusted: Trusted<'_>, tunnel: T, driver: D) -> D::Output {
        let watched = Watched { tunnel, left: Cell::new(false) };
        // Something may have changed since the handshake, and nobody comes again for it.
        watched.judge(trusted);
        let key = self.0.borrow_mut().insert(watched);
        let ended = driver.await;
        self.0.borrow_mut().try_remove(key);
        ended
    }

    /// Judges the tunnels again whenever other certificates count.
    pub async fn follow(&self, trusted: Trusted<'_>) {
        let mut revoked = trusted.tls.revocations().changes();
        let mut roots = trusted.certificates.roots();
        loop {
            let changed = tokio::select! {
                changed = revoked.changed() => changed,
                changed = roots.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            self.0.borrow().iter().for_each(|(_, watched)| watched.judge(trusted));
        }
    }
}

impl<T: Tunnel> Watched<T> {
    fn judge(&self, trusted: Trusted<'_>) {
        let revoked = trusted.tls.revocations().current();
        let roots = trusted.certificates.roots().borrow().clone();
        let own = self.tunnel.own().bundle().chain();
        match judge(&revoked, roots.as_ref(), &self.tunnel.peer_certificates(), own) {
            Some(Fate::End(cause)) => {
                trusted.ended.count(self.tunnel.peer_side());
                self.tunnel.end(cause);
            }
            Some(Fate::Drain) if !self.left.replace(true) => self.tunnel.leave(),
            _ => {}
        }
    }
}
