//! What becomes of a tunnel whose certificates count no more (`proxy::trust`): it takes no new connections, and those on it go
//! on through another ([`super::moves`]).

use std::rc::Rc;
use std::sync::Arc;

use hbone::tunnel::{Driver, Gone, Handle};
use identity::revocation::Side;
use identity::tls::Credentials;

use super::worker::Worker;

/// Runs a tunnel to its end, watched over meanwhile. `own` is what it was shaken hands with, `peer` the side that the
/// other end is on.
pub(crate) async fn drive(worker: Rc<Worker>, driver: Driver, own: Arc<Credentials>, peer: Side) -> Gone {
    let leave = |tunnel: &Handle| {
        tunnel.drain();
        tunnel.detach_all();
    };
    worker.tunnels.drive(driver, own, peer, Box::new(leave)).await
}
