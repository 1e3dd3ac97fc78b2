//! A connection for a request: one that is there, one that is made, or one that others give back.

use std::rc::Rc;

use model::traffic::outlier::Outcome;

use super::Key;
use super::lease::Lease;
use super::opening::{Unopened, Wanted};
use super::queue::Counted;
use super::rules::Rules;
use crate::listen::Inbound;
use crate::protocol::Http;
use crate::route::Endpoint;
use crate::upstream::SendError;
use crate::worker::Worker;

/// A connection to an endpoint for one request: a pooled one unless it has to be `fresh`.
///
/// # Errors
/// It cannot be connected to, or there are too many connections, or requests.
pub(crate) async fn lease(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    version: Http,
    fresh: bool,
) -> Result<Lease, SendError> {
    let key = Key::of(endpoint, version);
    let rules = Rules::of(endpoint, &worker.waypoint.bounds);
    let queue = worker.pools.queue(&key, &rules);
    let pooled = if fresh || queue.waiting.get() > 0 { None } else { worker.pools.take(&key, &rules) };
    let lease = match pooled {
        Some(lease) => lease,
        // Its state is ten times what a request over a pooled connection needs.
        None => Box::pin(wait(Wanted { worker, inbound, endpoint, key: &key, rules: &rules, fresh })).await?,
    };
    let Some(in_use) = &endpoint.in_use else { return Ok(lease) };
    in_use.record(Outcome::Connected);
    match in_use.request() {
        Ok(ticket) => Ok(Lease { ticket, ..lease }),
        Err(overflow) => {
            lease.done(worker);
            Err(SendError::Overflow(overflow))
        }
    }
}

/// Waits for a connection: for one that is made, or for one that others give back.
async fn wait(wanted: Wanted<'_>) -> Result<Lease, SendError> {
    let Wanted { worker, key, rules, fresh, .. } = wanted;
    let _pending = match wanted.limits() {
        Some(in_use) => Some(in_use.pending().map_err(SendError::Overflow)?),
        None => None,
    };
    let there = || if fresh { None } else { worker.pools.take(key, rules) };
    let mut behind = worker.pools.queue(key, rules).waiting.get() > 0;
    loop {
        if !behind {
            match wanted.open().await {
                Ok(Some(lease)) => return Ok(lease),
                // Another request has made one meanwhile.
                Ok(None) => match there() {
                    Some(lease) => return Ok(lease),
                    None => continue,
                },
                Err(Unopened::Failed(error)) => return Err(error.into()),
                // What was given back before it was said is said to nobody who begins to wait now.
                Err(Unopened::Full) => {
                    if let Some(lease) = there() {
                        return Ok(lease);
                    }
                }
            }
        }
        behind = false;
        let queue = worker.pools.queue(key, rules);
        let counted = Counted::new(&queue.waiting, None);
        match &wanted.endpoint.in_use {
            Some(in_use) => in_use.queue(queue.freed.notified()).await,
            None => queue.freed.notified().await,
        }
        drop(counted);
        if let Some(lease) = worker.pools.take(key, rules) {
            return Ok(lease);
        }
    }
}
