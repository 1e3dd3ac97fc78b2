//! What goes with a request or connection to an endpoint of a cluster: its place in the counts, and where to say what
//! became of it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use model::traffic::balance::{Active, Endpoint};
use model::traffic::outlier::Outcome;
use model::traffic::pool::{Overflow, Ticket};

use super::shared::{Current, Shared};

/// A request or connection under way to an endpoint.
#[derive(Debug)]
pub(crate) struct InUse {
    pub(super) shared: Arc<Shared>,
    /// What is in force for it.
    pub(crate) current: Arc<Current>,
    /// None where it goes to where the client wanted to.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// The priority of the endpoint.
    pub(crate) priority: usize,
    /// What gives the client the cookie that leads it there again, where it has none.
    pub(crate) set_cookie: Option<String>,
    pub(super) _active: Option<Active>,
    /// Counts the connection, where it is one that carries no requests.
    pub(super) held: RefCell<Option<Ticket>>,
    /// It waits until one of as many connections as there may be is free: the endpoint has not been asked for anything.
    pub(super) queued: Cell<bool>,
}

impl InUse {
    /// What distinguishes the cluster.
    pub(crate) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Notes what became of it; the endpoint may be ejected for it.
    pub(crate) fn record(&self, outcome: Outcome) {
        let Some(settings) = &self.current.policy.outlier_detection else { return };
        let Some(endpoint) = &self.endpoint else { return };
        if let Some(cause) = endpoint.monitor().record(outcome, settings) {
            self.shared.eject(endpoint, cause);
        }
    }

    /// Asks to send a request on a connection that there is.
    ///
    /// # Errors
    /// So many are under way as may be.
    pub(crate) fn request(&self) -> Result<Option<Ticket>, Overflow> {
        if !self.current.counts_requests {
            return Ok(None);
        }
        self.shared.accounts.request(&self.current.limits, self.shared.now()).map(Some)
    }

    /// Asks to wait for a connection with a request.
    ///
    /// # Errors
    /// So many wait as may.
    pub(crate) fn pending(&self) -> Result<Ticket, Overflow> {
        self.shared.accounts.pending(&self.current.limits)
    }

    /// Waits for what others give back.
    pub(crate) async fn queue(&self, freed: impl Future<Output = ()>) {
        self.queued.set(true);
        freed.await;
        self.queued.set(false);
    }

    /// Whether it still waits, or did when it was given up.
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.get()
    }

    /// Asks to open a connection; `first` says that there is none yet that what waits could go over.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(crate) fn connection(&self, first: bool) -> Result<Ticket, Overflow> {
        self.shared.accounts.connection(&self.current.limits, first)
    }

    /// Asks to open a connection that carries no requests; it is counted as long as this lasts. Nobody waits for another
    /// one to end, as in Envoy.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(crate) fn hold(&self) -> Result<(), Overflow> {
        if self.current.own_connections {
            *self.held.borrow_mut() = Some(self.connection(false)?);
        }
        Ok(())
    }

    /// Asks to try once more.
    ///
    /// # Errors
    /// So many retries are under way as may be.
    pub(crate) fn retry(&self) -> Result<Ticket, Overflow> {
        self.shared.accounts.retry(&self.current.limits, self.shared.now())
    }

    /// Who says that something is too much: the rule, and its field.
    pub(crate) fn blame(&self, field: &str) -> String {
        format!("{} trafficPolicy.{field}", self.current.cause)
    }
}
