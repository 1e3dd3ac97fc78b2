//! Which clients are connected, what each has in force and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::address::Str;
use tokio::sync::watch;
use tokio::time;

use super::responses::Ender;
use crate::delta::session::{Event, head};
use crate::delta::store::Revision;
use crate::node::NodeInfo;

/// Identifies a connection of this server.
pub type ClientId = u64;

/// Refusals that are remembered of one client.
const MAX_REFUSALS: usize = 1024;
/// What is remembered of the reason of one, in bytes: as much as our own clients say.
const MAX_REASON: usize = 512;

/// One client.
#[derive(Debug, Clone)]
pub struct ClientStatus<C> {
    /// Its connection.
    pub id: ClientId,
    /// Who it has proved to be.
    pub caller: C,
    /// What it says of itself.
    pub node: NodeInfo,
    /// By type, the revision up to which it has everything. Types it has not subscribed to are missing.
    pub in_force: BTreeMap<Str, Revision>,
    /// What it refuses, by type and name, with its reason.
    pub refused: BTreeMap<(Str, Str), Str>,
}

/// All clients of a server.
#[derive(Debug)]
pub struct Clients<C> {
    max: usize,
    table: Mutex<Table<C>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Table<C> {
    next: ClientId,
    /// Every place taken.
    seats: BTreeMap<ClientId, Taken<C>>,
    /// The same, by who took it.
    callers: BTreeMap<C, BTreeSet<ClientId>>,
    /// Those of them that have said who they are.
    clients: BTreeMap<ClientId, ClientStatus<C>>,
}

#[derive(Debug)]
struct Taken<C> {
    caller: C,
    ender: Ender,
}

/// A client's place among them, until dropped.
#[derive(Debug)]
pub(super) struct Seat<C: Ord> {
    clients: Arc<Clients<C>>,
    id: ClientId,
}

impl<C> Clients<C> {
    pub(super) fn new(max: usize) -> Self {
        let (seats, callers, clients) = Default::default();
        let table = Mutex::new(Table { next: 1, seats, callers, clients });
        Self { max, table, changed: watch::channel(0).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Table<C>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Table<C>)) {
        change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
    }
}

impl<C: Clone> Clients<C> {
    /// Every client that is connected.
    pub fn all(&self) -> Vec<ClientStatus<C>> {
        self.lock().clients.values().cloned().collect()
    }

    /// Changes whenever any client does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The clients of a kind that have subscribed to a type and do not have it up to a revision yet.
    pub fn behind(
        &self,
        type_url: &str,
        revision: Revision,
        counts: impl Fn(&ClientStatus<C>) -> bool,
    ) -> Vec<ClientId> {
        let behind = |client: &&ClientStatus<C>| {
            counts(client) && client.in_force.get(type_url).is_some_and(|has| *has < revision)
        };
        self.lock().clients.values().filter(behind).map(|client| client.id).collect()
    }

    /// Waits until no client of a kind is behind, and returns those that still are when time is up.
    pub async fn in_force(
        &self,
        type_url: &str,
        revision: Revision,
        counts: impl Fn(&ClientStatus<C>) -> bool,
        within: Duration,
    ) -> Vec<ClientId> {
        let mut changed = self.watch();
        let wait = async {
            while !self.behind(type_url, revision, &counts).is_empty() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Out of time or not, the answer is how things stand.
        drop(time::timeout(within, wait).await);
        self.behind(type_url, revision, &counts)
    }
}

impl<C: Ord> Table<C> {
    /// Gives a place up.
    fn leave(&mut self, id: ClientId) -> Option<Taken<C>> {
        let taken = self.seats.remove(&id)?;
        self.clients.remove(&id);
        if let Some(own) = self.callers.get_mut(&taken.caller) {
            own.remove(&id);
            if own.is_empty() {
                self.callers.remove(&taken.caller);
            }
        }
        Some(taken)
    }
}

impl<C: Clone + Ord> Clients<C> {
    /// A place for a client, if there is room. A caller who has as many as he may (`of_caller`) gives his oldest up;
    /// what ends that one's stream is returned too, for when nothing here is locked.
    pub(super) fn seat(
        self: &Arc<Self>,
        caller: C,
        of_caller: usize,
        ender: Ender,
    ) -> (Option<Seat<C>>, Option<Ender>) {
        let (mut seat, mut ousted) = (None, None);
        self.change(|table| {
            let oldest = table.callers.get(&caller).filter(|own| own.len() >= of_caller.max(1));
            if let Some(oldest) = oldest.and_then(|own| own.first().copied()) {
                ousted = table.leave(oldest).map(|taken| taken.ender);
            }
            if table.seats.len() < self.max {
                let id = table.next;
                table.next += 1;
                table.callers.entry(caller.clone()).or_default().insert(id);
                table.seats.insert(id, Taken { caller, ender });
                seat = Some(id);
            }
        });
        (seat.map(|id| Seat { clients: self.clone(), id }), ousted)
    }
}

impl<C: Clone + Ord> Seat<C> {
    /// Notes who the client says it is: from now on it counts as one.
    pub(super) fn introduce(&self, node: NodeInfo) {
        self.clients.change(|table| {
            if let Some(taken) = table.seats.get(&self.id) {
                let (caller, in_force, refused) = (taken.caller.clone(), BTreeMap::new(), BTreeMap::new());
                table.clients.insert(self.id, ClientStatus { id: self.id, caller, node, in_force, refused });
            }
        });
    }

    /// Notes what the client has.
    pub(super) fn in_force(&self, in_force: BTreeMap<Str, Revision>) {
        let same =
            self.clients.lock().clients.get(&self.id).is_some_and(|client| client.in_force == in_force);
        if !same {
            self.change(|client| client.in_force = in_force);
        }
    }

    /// Notes what the client said.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Acked { type_url, names } => {
                self.change(|client| client.settle(type_url, names, &Reasons::default()));
            }
            Event::Nacked { type_url, names, error } => {
                let reasons = Reasons::read(error, names);
                self.change(|client| client.settle(type_url, names, &reasons));
            }
            Event::UnknownType { .. } => {}
        }
    }

    fn change(&self, change: impl FnOnce(&mut ClientStatus<C>)) {
        self.clients.change(|table| {
            if let Some(client) = table.clients.get_mut(&self.id) {
                change(client);
            }
        });
    }
}

impl<C> ClientStatus<C> {
    /// After an answer: what it names as refused is, the rest of the response is not.
    fn settle(&mut self, type_url: &Str, names: &[Str], reasons: &Reasons<'_>) {
        for name in names {
            let key = (type_url.clone(), name.clone());
            match reasons.of(name) {
                Some(reason) if self.refused.len() < MAX_REFUSALS || self.refused.contains_key(&key) => {
                    self.refused.insert(key, reason.clone());
                }
                Some(_) => {}
                None => drop(self.refused.remove(&key)),
            }
        }
    }
}

/// Why what is refused, each reason once however many names it is for.
#[derive(Debug, Default)]
struct Reasons<'a> {
    named: BTreeMap<&'a str, Str>,
    /// For all, where none is named.
    whole: Option<Str>,
}

impl<'a> Reasons<'a> {
    /// In the words of our clients: `name: reason; name: reason`. Another's may word it otherwise: then all of the
    /// response counts as refused.
    fn read(error: &'a str, names: &[Str]) -> Self {
        let mut reasons = Self::default();
        for (name, reason) in error.split("; ").filter_map(|part| part.split_once(": ")) {
            reasons.named.entry(name).or_insert_with(|| head(reason, MAX_REASON).into());
        }
        if !names.iter().any(|name| reasons.named.contains_key(&**name)) {
            reasons.whole = Some(head(error, MAX_REASON).into());
        }
        reasons
    }

    fn of(&self, name: &str) -> Option<&Str> {
        self.named.get(name).or(self.whole.as_ref())
    }
}

impl<C: Ord> Drop for Seat<C> {
    fn drop(&mut self) {
        self.clients.change(|table| drop(table.leave(self.id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::responses::Responses;

    fn seat_of(
        clients: &Arc<Clients<&'static str>>,
        caller: &'static str,
    ) -> (Option<Seat<&'static str>>, Option<Ender>) {
        let (seat, ousted) = clients.seat(caller, 3, Responses::new().1);
        if let Some(seat) = &seat {
            seat.introduce(NodeInfo::new("ztunnel", None, "pod", "ns"));
        }
        (seat, ousted)
    }

    fn seat(clients: &Arc<Clients<&'static str>>) -> Option<Seat<&'static str>> {
        seat_of(clients, "someone").0
    }

    fn names(names: &[&str]) -> Vec<Str> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn there_is_a_limit_and_leaving_makes_room() {
        let clients = Arc::new(Clients::new(1));
        let first = seat(&clients);
        assert!(first.is_some());
        assert!(seat(&clients).is_none());
        drop(first);
        assert!(seat(&clients).is_some());
        assert_eq!(clients.all().len(), 0);
    }

    #[test]
    fn a_caller_has_few_places_and_gives_up_his_oldest() {
        let clients = Arc::new(Clients::new(5));
        let others = [seat_of(&clients, "other").0, seat_of(&clients, "other").0];
        let mut own = Vec::new();
        for number in 0..20 {
            let (seat, ousted) = seat_of(&clients, "greedy");
            assert_eq!(ousted.is_some(), number >= 3, "{number}");
            own.push(seat.expect("always a place"));
        }
        let there: Vec<_> = clients.all().iter().map(|client| (client.caller, client.id)).collect();
        assert_eq!(there, [("other", 1), ("other", 2), ("greedy", 20), ("greedy", 21), ("greedy", 22)]);
        // Who has lost his place says nothing more, and takes nothing with him.
        own[0].introduce(NodeInfo::new("ztunnel", None, "pod", "ns"));
        own[0].in_force([("t".into(), 3)].into());
        own.truncate(17);
        assert_eq!(clients.all().len(), 2);
        drop(own);
        assert_eq!(clients.lock().seats.len(), 2);
        drop(others);
        assert!(clients.lock().callers.is_empty() && clients.lock().seats.is_empty());
    }

    #[test]
    fn refusals_stay_until_the_resource_is_answered_otherwise() {
        let clients = Arc::new(Clients::new(9));
        let seat = seat(&clients).unwrap();
        let refused = || -> Vec<String> {
            clients.all()[0].refused.iter().map(|((_, name), reason)| format!("{name}={reason}")).collect()
        };
        let nack = |error: &str| Event::Nacked {
            type_url: "t".into(),
            names: names(&["a", "b", "c"]),
            error: error.into(),
        };
        seat.event(&nack("a: no; c: never"));
        assert_eq!(refused(), ["a=no", "c=never"]);
        seat.event(&Event::Acked { type_url: "t".into(), names: names(&["b", "c"]) });
        assert_eq!(refused(), ["a=no"]);
        seat.event(&Event::Acked { type_url: "other".into(), names: names(&["a"]) });
        assert_eq!(refused(), ["a=no"]);
        seat.event(&nack("something of another's wording"));
        assert_eq!(refused().len(), 3);
    }

    #[test]
    fn a_reason_is_cut_and_held_once_for_all_names() {
        let clients = Arc::new(Clients::new(9));
        let seat = seat(&clients).unwrap();
        let all: Vec<Str> = (0..2 * MAX_REFUSALS).map(|number| number.to_string().into()).collect();
        // An odd byte first, so that the cut would fall into a letter.
        for error in [format!("x{}", "ä".repeat(1 << 20)), format!("7: x{}", "ä".repeat(1 << 20))] {
            seat.event(&Event::Nacked { type_url: "t".into(), names: all.clone(), error });
            let status = clients.all().remove(0);
            assert!(status.refused.values().all(|reason| reason.len() == MAX_REASON - 1));
            let distinct: BTreeSet<*const u8> =
                status.refused.values().map(|reason| reason.as_ptr()).collect();
            assert_eq!(distinct.len(), 1, "of {}", status.refused.len());
        }
        // As many as fit, then the one that is named.
        assert_eq!(clients.all()[0].refused.keys().map(|(_, name)| &**name).collect::<Vec<_>>(), ["7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_those_that_subscribed() {
        let clients = Arc::new(Clients::new(9));
        let (one, other) = (seat(&clients).unwrap(), seat(&clients).unwrap());
        one.in_force([("t".into(), 3)].into());
        let all = |_: &ClientStatus<&'static str>| true;
        assert!(clients.in_force("t", 3, all, Duration::from_secs(1)).await.is_empty());
        other.in_force([("t".into(), 2)].into());
        assert_eq!(clients.in_force("t", 3, all, Duration::from_secs(1)).await, [2]);
        let (waited, ()) = tokio::join!(clients.in_force("t", 3, all, Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            other.in_force([("t".into(), 3)].into());
        });
        assert!(waited.is_empty(), "{waited:?}");
    }
}
