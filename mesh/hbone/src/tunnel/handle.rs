//! A tunnel as whoever watches over all of them holds it: it keeps nothing alive.

use std::cell::RefCell;
use std::rc::Weak;

use rustls::pki_types::CertificateDer;

use super::Gone;
use super::inner::Inner;

/// A tunnel of either side that can be ended from outside. Does nothing once the tunnel has ended.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Weak<RefCell<Inner>>,
}

impl Handle {
    pub(super) fn new(shared: Weak<RefCell<Inner>>) -> Self {
        Self { shared }
    }

    /// The peer's certificate chain, leaf first, DER; empty without TLS and after the tunnel has ended.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let inner = shared.borrow();
        inner.transport.as_ref().map(|transport| transport.peer_certificates().to_vec()).unwrap_or_default()
    }

    /// Whether the tunnel takes new streams: it has neither ended nor been told to go by either end.
    pub fn usable(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| {
            let inner = shared.borrow();
            inner.gone.is_none() && !inner.engine.draining()
        })
    }

    /// GOAWAY: no new streams; the driver ends when the last one has.
    pub fn drain(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.borrow_mut().drain();
        }
    }

    /// Takes every connection off the tunnel, as [`Live::detach`](crate::connection::Live::detach) does with one.
    pub fn detach_all(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.borrow_mut().part_all();
        }
    }

    /// Ends the tunnel and every stream on it now, for this cause, which those who hold its streams are told.
    pub fn end(&self, cause: &'static str) {
        if let Some(shared) = self.shared.upgrade() {
            let inner = &mut *shared.borrow_mut();
            inner.aborted = Some(Gone::Ended(cause));
            inner.mark();
        }
    }
}
