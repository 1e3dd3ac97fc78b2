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
use super::limits::Limit;
use super::moves::{Detached, PATIENCE};

/// How long a request to resume waits for its connection, which may still be on its way from another thread, or another
/// process may just have been heard of.
const HERE: Duration = Duration::from_secs(1);
/// How long it waits in all while another process hands over. Shorter than a CONNECT's own time, so that the client gets
/// an answer.
const ARRIVAL: Duration = Duration::from_secs(8);
/// Requests for connections of one pod that wait at a time: many more than a hand-over has on its way.
const WAITING: usize = 1024;

/// The parked connections of all threads.
#[derive(Debug, Default)]
pub(crate) struct Parking(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    of: HashMap<ConnectionId, Slot>,
    /// Requests that wait, by pod.
    waiting: HashMap<Arc<str>, usize>,
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

/// Why a request gets no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unclaimed {
    /// It is not here, or not the client's.
    #[error("no such connection of this client is parked here")]
    NotHere,
    /// Too many wait already; asking again may help.
    #[error("{WAITING} requests wait for connections of this pod already")]
    TooMany,
}

impl Parking {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // The maps are whole between any two calls on them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a connection, or gives it to who waits for it.
    pub(crate) fn park(&self, detached: Detached) {
        let id = detached.connection.id();
        let mut detached = Box::new(detached);
        let mut slots = self.slots();
        match slots.of.remove(&id) {
            Some(Slot::Awaited(waiting)) => match waiting.send(detached) {
                Ok(()) => return,
                Err(unclaimed) => detached = unclaimed,
            },
            // Ids are random: a second one of the same is no accident.
            Some(parked @ Slot::Parked { .. }) => {
                slots.of.insert(id, parked);
                drop(slots);
                return detached.give_up("another connection of the same id is parked");
            }
            None => {}
        }
        slots.of.insert(id, Slot::Parked { detached, until: Instant::now() + PATIENCE });
    }

    /// Takes a connection of a pod out for who resumes it, if it is `rightful`; waits a moment for one that is not here
    /// yet, and longer where some are `coming` from another process. A later request for it takes the place of one that
    /// waits: that one's tunnel has ended.
    ///
    /// # Errors
    /// Why not; one that is not rightful stays.
    pub(crate) async fn claim(
        &self,
        pod: &Arc<str>,
        id: ConnectionId,
        rightful: impl Fn(&Detached) -> bool,
        coming: impl Fn() -> bool,
    ) -> Result<Box<Detached>, Unclaimed> {
        let (_waiting, mut arrival) = {
            let mut slots = self.slots();
            match slots.of.remove(&id) {
                Some(Slot::Parked { detached, .. }) if rightful(&detached) => return Ok(detached),
                Some(parked @ Slot::Parked { .. }) => {
                    slots.of.insert(id, parked);
                    return Err(Unclaimed::NotHere);
                }
                Some(Slot::Awaited(_)) | None => {}
            }
            let waiting = slots.waiting.entry(pod.clone()).or_default();
            if *waiting >= WAITING {
                return Err(Unclaimed::TooMany);
            }
            *waiting += 1;
            let (sender, arrival) = oneshot::channel();
            slots.of.insert(id, Slot::Awaited(sender));
            (Waiting { parking: self, pod, id }, arrival)
        };
        let mut arrived = timeout(HERE, &mut arrival).await;
        if arrived.is_err() && coming() {
            arrived = timeout(ARRIVAL.saturating_sub(HERE), &mut arrival).await;
        }
        let detached = match arrived {
            Ok(arrived) => arrived.ok(),
            Err(_) => {
                // It may come at this very moment.
                arrival.close();
                arrival.try_recv().ok()
            }
        };
        let detached = detached.ok_or(Unclaimed::NotHere)?;
        if rightful(&detached) {
            return Ok(detached);
        }
        self.park(*detached);
        Err(Unclaimed::NotHere)
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
        self.slots().of.retain(|_, slot| matches!(slot, Slot::Parked { .. }));
        self.take(|_, _| true)
    }

    fn take(&self, mut wanted: impl FnMut(&Detached, Instant) -> bool) -> Vec<Detached> {
        let mut slots = self.slots();
        let taken = slots.of.extract_if(|_, slot| match slot {
            Slot::Parked { detached, until } => wanted(detached, *until),
            Slot::Awaited(_) => false,
        });
        taken
            .filter_map(|(_, slot)| match slot {
                Slot::Parked { detached, .. } => Some(*detached),
                Slot::Awaited(_) => None,
            })
            .collect()
    }
}

/// Gives up connections that nobody has come for, as long as the process lives.
pub(crate) async fn expire(agent: Arc<Agent>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        for detached in agent.parking.expired() {
            agent.hits.hit(Limit::Parked);
            detached.give_up("taken off its tunnel, and its client has not come again");
        }
    }
}

/// A request that waits, until dropped.
struct Waiting<'a> {
    parking: &'a Parking,
    pod: &'a Arc<str>,
    id: ConnectionId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut slots = self.parking.slots();
        // A later request's has an open channel.
        if matches!(slots.of.get(&self.id), Some(Slot::Awaited(waiting)) if waiting.is_closed()) {
            slots.of.remove(&self.id);
        }
        if let Some(waiting) = slots.waiting.get_mut(self.pod) {
            *waiting -= 1;
            if *waiting == 0 {
                slots.waiting.remove(self.pod);
            }
        }
    }
}
