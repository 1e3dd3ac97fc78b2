//! What the controller's word on certificates (`identity::trust`) means for tunnels that are there already: one at whose
//! ends a certificate is revoked is ended, one whose root is trusted no more is left.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use daemon::metrics::proxy::encode_rejections;
use hbone::tunnel::{Driver, Gone, Handle};
use identity::revocation::Side;
use identity::tls::Credentials;
use identity::trust::{Trusted, Tunnel};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use rustls::pki_types::CertificateDer;

use crate::Waypoint;
use crate::ending::Leaving;
use crate::worker::Worker;

/// The tunnels of one thread.
pub(crate) type Tunnels = identity::trust::Tunnels<Watched>;

/// A tunnel, for who watches over it.
#[derive(Debug)]
pub(crate) struct Watched {
    tunnel: Handle,
    /// What it was shaken hands with here.
    own: Arc<Credentials>,
    ends: Ends,
}

/// Which end of a tunnel this is, and how the other is left.
#[derive(Debug)]
pub(crate) enum Ends {
    /// A client's tunnel: what is asked for on it is to be asked for on another.
    Server(Rc<Leaving>),
    /// One to an endpoint or another waypoint: connections over it are not used for further requests.
    Client,
}

impl Tunnel for Watched {
    fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.tunnel.peer_certificates()
    }

    fn peer_side(&self) -> Side {
        match self.ends {
            Ends::Server(_) => Side::Client,
            Ends::Client => Side::Server,
        }
    }

    fn own(&self) -> &Credentials {
        &self.own
    }

    fn end(&self, cause: &'static str) {
        let peer = identity::verify::peer_identity(&self.peer_certificates()).map(|peer| peer.to_string());
        tracing::warn!(identity = peer.unwrap_or_default(), cause, "a tunnel is ended");
        self.tunnel.end(cause);
    }

    fn leave(&self) {
        match &self.ends {
            Ends::Server(leaving) => leaving.begin(),
            // Its connections are not used for further requests then.
            Ends::Client => self.tunnel.drain(),
        }
    }
}

/// Runs a tunnel to its end, watched over meanwhile.
pub(crate) async fn drive(worker: Rc<Worker>, driver: Driver, own: Arc<Credentials>, ends: Ends) -> Gone {
    let watched = Watched { tunnel: driver.handle(), own, ends };
    worker.trusted.drive(trusted(&worker), watched, driver).await
}

/// Judges the thread's tunnels again whenever other certificates count.
pub(crate) async fn follow(worker: Rc<Worker>) {
    worker.trusted.follow(trusted(&worker)).await;
}

fn trusted(worker: &Worker) -> Trusted<'_> {
    let Waypoint { certificates, tls, revoked_tunnels: ended, .. } = &*worker.waypoint;
    Trusted { certificates, tls, ended }
}

/// `istio_crl_policy_rejections_total`, by the end of the tunnel that this waypoint was.
#[derive(Debug)]
pub(crate) struct RevokedMetrics(pub(crate) Arc<Waypoint>);

impl Collector for RevokedMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let count = |peer| self.0.revoked_tunnels.and_refused(self.0.tls.revocations(), peer);
        encode_rejections(&mut encoder, count(Side::Client), count(Side::Server))
    }
}
