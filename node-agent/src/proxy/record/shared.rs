//! What connections between the same two ends have in common: one value for all of them. A node carries thousands of
//! connections between a few ends, and most of what is to be said of each is said of all.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use daemon::metrics::traffic::Series;
use model::address::NamespacedHostname;

use super::{Ends, flags};
use crate::proxy::Agent;

/// Values that a thread remembers, each in the one place that its hash names. What is not found is made anew.
const REMEMBERED: usize = 64;

/// The ends, the series they count under, and whose connections they are.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ends: Ends,
    pub(super) series: Arc<Series>,
    pub(super) agent: Arc<Agent>,
}

thread_local! {
    /// Weak: a series that no connection uses any more goes.
    static KNOWN: RefCell<[Weak<Shared>; REMEMBERED]> = const { RefCell::new([const { Weak::new() }; REMEMBERED]) };
}

impl Shared {
    /// That of these ends.
    pub(super) fn of(ends: Ends, agent: &Arc<Agent>) -> Arc<Self> {
        let place = place(&ends);
        KNOWN.with_borrow_mut(|known| {
            if let Some(shared) = known[place].upgrade()
                && Arc::ptr_eq(&shared.agent, agent)
                && is_same(&shared.ends, &ends)
            {
                shared.series.used();
                return shared;
            }
            let series = agent.traffic.series(&ends.labels(flags::NONE));
            let shared = Arc::new(Self { ends, series, agent: agent.clone() });
            known[place] = Arc::downgrade(&shared);
            shared
        })
    }
}

fn address<T>(shared: Option<&Arc<T>>) -> *const T {
    shared.map_or(std::ptr::null(), Arc::as_ptr)
}

fn place(ends: &Ends) -> usize {
    let mut hasher = DefaultHasher::new();
    let who = (address(ends.source.as_ref()), address(ends.destination.as_ref()), &ends.source_identity);
    (who, ends.next_hop, ends.delivered, &ends.authority).hash(&mut hasher);
    usize::try_from(hasher.finish() % REMEMBERED as u64).unwrap_or(0)
}

/// Whether all that is known is the same. A workload that the controller has told anew is another.
fn is_same(one: &Ends, other: &Ends) -> bool {
    address(one.source.as_ref()) == address(other.source.as_ref())
        && address(one.destination.as_ref()) == address(other.destination.as_ref())
        // Its name is all that is said of it.
        && named(one) == named(other)
        && (one.reporter, one.next_hop, one.delivered) == (other.reporter, other.next_hop, other.delivered)
        && one.authority == other.authority
        && one.source_identity == other.source_identity
        && one.destination_identity == other.destination_identity
        && one.baggage == other.baggage
}

/// What is said of the service.
fn named(ends: &Ends) -> Option<(&NamespacedHostname, &str)> {
    ends.service.as_ref().map(|service| (&service.key, service.name()))
}
