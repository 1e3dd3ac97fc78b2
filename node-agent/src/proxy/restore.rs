//! Goes on from what a predecessor left, and writes down for a successor what comes.

use std::sync::Arc;

use model::address::Str;
use model::mesh::Update;
use prost::Message;
use proto::type_url;
use xds::convert::{Decoder, authz};
use xds::delta::subscriber::{Delivery, Handler, REFUSED, Rejection, Subscriber, Wish};

use super::Agent;
use super::journal::{self, Damaged, Entry, Journal, Kind};
use crate::private::saved::Saved;

/// Updates that are taken into account at once.
const MANY: usize = 4096;

/// Goes on from what the predecessor left; returns the journal that continues it, or an empty one, and whether it had
/// been told everything, so that connections can be decided by it. If not, the controller still has to send the rest.
pub(crate) fn restore(
    agent: &Agent,
    decoder: &mut Decoder,
    subscriber: &mut Subscriber,
    files: Vec<Saved>,
) -> (Journal, bool) {
    if files.is_empty() {
        return (Journal::new(), false);
    }
    let files: Vec<Arc<Saved>> = files.into_iter().map(Arc::new).collect();
    let continued = replay(agent, decoder, subscriber, &files).and_then(|(entries, live, complete)| {
        let journal = Journal::after(files, entries, live).map_err(journal::unreadable)?;
        Ok((journal, complete))
    });
    continued.unwrap_or_else(|error| {
        tracing::warn!(%error, "the predecessor's state is of no use; the controller is asked for all");
        (Journal::new(), false)
    })
}

/// What the predecessor had been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    All,
    /// All policies; of workloads and services what it had asked for.
    OnDemand,
}

/// Returns the number of entries, and of those that still count, and whether nothing is missing.
fn replay(
    agent: &Agent,
    decoder: &mut Decoder,
    subscriber: &mut Subscriber,
    files: &[Arc<Saved>],
) -> Result<(u64, u64, bool), Damaged> {
    // All or nothing: looked through before anything is taken over.
    journal::read(files, |_| {})?;
    let (mut entries, mut certificates, mut complete) = (0, None, None);
    let mut updates = Vec::with_capacity(MANY);
    journal::read(files, |entry| {
        entries += 1;
        match entry.kind {
            Kind::Certificates => return certificates = entry.content.map(|(_, value)| value),
            Kind::Complete => return complete = Some(Told::All),
            Kind::CompleteOnDemand => return complete = Some(Told::OnDemand),
            Kind::Settings | Kind::Policy | Kind::Address => take(decoder, subscriber, entry, &mut updates),
        }
        if updates.len() >= MANY {
            agent.take(std::mem::replace(&mut updates, Vec::with_capacity(MANY)));
        }
    })?;
    agent.take(updates);
    if complete == Some(Told::OnDemand) {
        let ask = agent.demand.adopt(&agent.state.read()).into_iter().collect();
        // It goes with the first request.
        drop(subscriber.wish(type_url::ADDRESS, Wish { ask, ..Wish::default() }));
    }
    // What was all there was to be asked for is not all there is.
    let complete = match complete {
        Some(Told::All) => true,
        Some(Told::OnDemand) => agent.demand.is_on(),
        None => false,
    };
    let live = {
        let mesh = agent.state.read();
        mesh.workloads().count() + mesh.services().count() + mesh.policies().count()
    };
    let imported = certificates.map(|value| agent.trust.certificates.import(&value)).transpose();
    match imported {
        Ok(certificates) => {
            let certificates = certificates.unwrap_or_default();
            tracing::info!(resources = live, certificates, complete, "going on from the saved state");
        }
        Err(error) => tracing::warn!(%error, "the saved certificates are of no use"),
    }
    Ok((entries, live as u64, complete))
}

/// Takes a resource over as it was taken over before.
fn take(decoder: &mut Decoder, subscriber: &mut Subscriber, entry: Entry<'_>, updates: &mut Vec<Update>) {
    let Some(type_url) = entry.kind.type_url() else { return };
    let name = decoder.held(entry.name).unwrap_or_else(|| entry.name.into());
    let Some((version, value)) = entry.content else {
        updates.extend(decoder.removal(type_url, &name));
        subscriber.restore_removal(type_url, &name);
        return;
    };
    match decoder.decode(type_url, &name, value) {
        Ok(update) => {
            updates.push(update);
            subscriber.restore(type_url, &name, version);
        }
        Err(refused) => {
            tracing::warn!(error = %refused, "a saved resource cannot be read; the controller is asked for it");
            // Nor does an earlier version count: it was replaced.
            updates.extend(decoder.removal(type_url, &name));
            subscriber.restore_removal(type_url, &name);
            if let Some(policy) = refused.instead {
                updates.push(Update::Policy(*policy));
                subscriber.restore(type_url, &name, REFUSED);
            }
        }
    }
}

/// Hands deliveries on, and writes down what of them was taken over.
#[derive(Debug)]
pub(crate) struct Recorded<H> {
    pub(crate) handler: H,
    pub(crate) agent: Arc<Agent>,
    pub(crate) journal: Arc<Journal>,
}

impl<H: Handler> Handler for Recorded<H> {
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection> {
        let Self { handler, agent, journal } = self;
        if !agent.demand.is_on() {
            let rejections = handler.apply(delivery);
            journal.record(delivery, &rejections, |name| stand_in(agent, &delivery.type_url, name));
            return rejections;
        }
        agent.demand.begin(delivery);
        // What was asked for and is not there need not be written down.
        let known = |name: &&Str| agent.knows(&delivery.type_url, name);
        let removed = delivery.removed.iter().filter(known).cloned().collect();
        let rejections = handler.apply(delivery);
        let written = Delivery { removed, ..delivery.clone() };
        journal.record(&written, &rejections, |name| stand_in(agent, &delivery.type_url, name));
        if agent.demand.end(delivery) {
            agent.state.look_again();
        }
        rejections
    }

    fn held(&self, name: &str) -> Option<Str> {
        self.handler.held(name)
    }
}

/// The policy in force that stands in for one that could not be read: on the wire it denies everything.
fn stand_in(agent: &Agent, type_url: &str, name: &str) -> Option<Vec<u8>> {
    if type_url != type_url::AUTHORIZATION {
        return None;
    }
    let mesh = agent.state.read();
    let mut policies = mesh.policies().filter(|policy| policy.invalid.is_some());
    let policy = policies.find(|policy| policy.name.to_string() == name)?;
    Some(authz::to_wire(policy).encode_to_vec())
}

#[cfg(test)]
mod tests;
