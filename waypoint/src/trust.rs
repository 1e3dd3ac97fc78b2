//! What becomes of a tunnel whose certificates count no more (`proxy::trust`).

use std::rc::Rc;
use std::sync::Arc;

use hbone::tunnel::{Driver, Gone, Handle};
use identity::revocation::Side;
use identity::tls::Credentials;

use crate::ending::Leaving;
use crate::worker::Worker;

/// Which end of a tunnel this is, and how the other is left.
#[derive(Debug)]
pub(crate) enum Ends {
    /// A client's tunnel: what is asked for on it is to be asked for on another.
    Server(Rc<Leaving>),
    /// One to an endpoint or another waypoint: connections over it are not used for further requests.
    Client,
}

/// Runs a tunnel to its end, watched over meanwhile.
pub(crate) async fn drive(worker: Rc<Worker>, driver: Driver, own: Arc<Credentials>, ends: Ends) -> Gone {
    match ends {
        Ends::Server(leaving) => {
            let leave = move |_: &Handle| leaving.begin();
            worker.trusted.drive(driver, own, Side::Client, Box::new(leave)).await
        }
        Ends::Client => worker.trusted.drive(driver, own, Side::Server, Box::new(Handle::drain)).await,
    }
}
