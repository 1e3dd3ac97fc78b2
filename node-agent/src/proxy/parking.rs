//! Connections whose tunnel is gone, at the end that did not open it: parked until their client resumes them on another
//! tunnel, for [`PATIENCE`] at most. The socket of the application stays open meanwhile; what it sends waits in it.
//!
//! Only who knows the connection's random name, comes to the same pod and proves the same identity gets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hbone::connection::ConnectionId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Agent;
use super::moves::{Detached, PATIENCE};

/// How long a request to resume waits for its connection: it may still be on its way from another process. Shorter than a
/// CONNECT's own time, so that the client gets an answer.
const ARRIVAL: Duration = Duration::from_secs(8);
/// Requests that wait at a time. More are answered at once.
const WAITING: usize = 65_536;

/// The parked connections of all threads.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    slots: Mutex<HashMap<ConnectionId, Slot>>,
}

#[derive(Debug)]
enum Slot {
    Parked {
        detached: Box<Detached>,
        until: Instant,
    },
    /// A request is here before its connection.
    Awaited(oneshot::Sender<Box<Detached>>),
}

impl Parking {
    fn slots(&self) -> MutexGuard<'_, HashMap<ConnectionId, Slot>> {
        // The map is whole between any two calls on it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a connection, or gives it to who waits for it.
    pub(crate) fn park(&self, detached: Detached) {
        let id = detached.connection.id();
        let mut detached = Box::new(detached);
        let mut slots = self.slots();
        match slots.remove(&id) {
            Some(Slot::Awaited(waiting)) => match waiting.send(detached) {
                Ok(()) => return,
                Err(unclaimed) => detached = unclaimed,
            },
            // Ids are random: a second one of the same is no accident.
            Some(parked @ Slot::Parked { .. }) => {
                slots.insert(id, parked);
                drop(slots);
                return detached.give_up("another connection of the same id is parked");
            }
            None => {}
        }
        slots.insert(id, Slot::Parked { detached, until: Instant::now() + PATIENCE });
    }

    /// Takes a connection out for who resumes it, if it is `rightful`; waits a moment for one that is not here yet.
    pub(crate) async fn claim(
        &self,
        id: ConnectionId,
        rightful: impl Fn(&Detached) -> bool,
    ) -> Option<Box<Detached>> {
        let arrival = {
            let mut slots = self.slots();
            match slots.remove(&id) {
                Some(Slot::Parked { detached, .. }) if rightful(&detached) => return Some(detached),
                Some(other) => {
                    slots.insert(id, other);
                    return None;
                }
                None if slots.len() >= WAITING => return None,
                None => {}
            }
            let (sender, arrival) = oneshot::channel();
            slots.insert(id, Slot::Awaited(sender));
            arrival
        };
        let awaited = Awaited { parking: self, id };
        let detached = timeout(ARRIVAL, arrival).await.ok()?.ok()?;
        drop(awaited);
        if rightful(&detached) {
            return Some(detached);
        }
        self.park(*detached);
        None
    }

    /// Takes out those that have waited long enough.
    pub(crate) fn expired(&self) -> Vec<Detached> {
        let now = Instant::now();
        self.take(|_, until| until <= now)
    }

    /// Takes out those of a pod.
    pub(crate) fn of_pod(&self, uid: &str) -> Vec<Detached> {
        self.take(|detached, _| &*detached.pod.uid == uid)
    }

    /// Takes out all, and waits for none any more: they are a successor's now, and so are those who ask for them.
    pub(crate) fn all(&self) -> Vec<Detached> {
        self.slots().retain(|_, slot| matches!(slot, Slot::Parked { .. }));
        self.take(|_, _| true)
    }

    fn take(&self, mut wanted: impl FnMut(&Detached, Instant) -> bool) -> Vec<Detached> {
        let mut slots = self.slots();
        slots
            .extract_if(|_, slot| match slot {
                Slot::Parked { detached, until } => wanted(detached, *until),
                Slot::Awaited(_) => false,
            })
            .filter_map(|(_, slot)| match slot {
                Slot::Parked { detached, .. } => Some(*detached),
                Slot::Awaited(_) => None,
            })
            .collect()
    }

    /// How many are parked.
    pub(crate) fn len(&self) -> usize {
        self.slots().values().filter(|slot| matches!(slot, Slot::Parked { .. })).count()
    }

    /// Whether a pod has any here.
    pub(crate) fn has_of(&self, uid: &str) -> bool {
        let of_pod = |slot: &Slot| matches!(slot, Slot::Parked { detached, .. } if &*detached.pod.uid == uid);
        self.slots().values().any(of_pod)
    }
}

/// Gives up connections that nobody has come for, as long as the process lives.
pub(crate) async fn expire(agent: Arc<Agent>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        for detached in agent.parking.expired() {
            detached.give_up("taken off its tunnel, and its client has not come again");
        }
    }
}

/// Takes a request's slot away when it waits no more.
struct Awaited<'a> {
    parking: &'a Parking,
    id: ConnectionId,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut slots = self.parking.slots();
        if matches!(slots.get(&self.id), Some(Slot::Awaited(_))) {
            slots.remove(&self.id);
        }
    }
}
