//! What a pod costs us: connections, tunnels, descriptors, buffered bytes, bytes carried. Charged from the first byte,
//! released on drop.
//!
//! One [`Account`] a pod, shared by all its connections on all threads. Bounds belong to the pod, not to the
//! tunnel, so that no workload can make the node hold more than its share. All accounts stand in one [`Ledger`]: of
//! what there is once for the whole process, an account gets at most twice what is left. One that is alone may take
//! two thirds, of two greedy ones each gets two fifths, and however many there are, something is left for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::limits::{Hits, Limit};

/// What the memory of one connection beside its buffers is taken to be, bytes: slot, record, table entry, task.
pub const CONNECTION_BYTES: u64 = 1 << 10;
/// What the memory of one tunnel is taken to be, bytes: TLS session, HPACK tables, queues.
const TUNNEL_BYTES: u64 = 24 << 10;

/// A limit was reached; the text names it and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many connections are open as the account allows.
    #[error("the pod has {0} connections open, its limit; raise the limit or find what does not close them")]
    Connections(u32),
    /// As many bytes wait for slow applications as the account allows.
    #[error("{0} bytes already wait for the pod's applications, its limit; an application does not read")]
    Buffered(u64),
    /// What all pods may hold together is nearly used up, and this one holds its share of it.
    #[error(
        "{0} bytes wait for the pod's applications, its share of what the node agent may hold; an application does not read"
    )]
    ShareOfBuffered(u64),
    /// The process's descriptors are nearly used up, and this one holds its share of them.
    #[error(
        "the pod holds {0} of the node agent's file descriptors, its share; raise the agent's limit of open files (ulimit -n) or find what does not close its connections"
    )]
    ShareOfDescriptors(u32),
}

impl Full {
    fn limit(self) -> Limit {
        match self {
            Self::Connections(_) => Limit::PodConnections,
            Self::Buffered(_) => Limit::PodBuffered,
            Self::ShareOfBuffered(_) => Limit::AllBuffered,
            Self::ShareOfDescriptors(_) => Limit::AllDescriptors,
        }
    }
}

/// Bounds of one account.
#[derive(Debug, Clone, Copy)]
pub struct AccountLimits {
    /// Connections open at once. Default 65,536.
    pub connections: u32,
    /// Bytes received for applications that have not taken them yet. Default 256 MiB.
    pub buffered: u64,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self { connections: 65_536, buffered: 256 << 20 }
    }
}

/// What there is once for all accounts of a process.
#[derive(Debug)]
pub struct Ledger {
    most_descriptors: u64,
    most_buffered: u64,
    descriptors: AtomicU64,
    buffered: AtomicU64,
    hits: Arc<Hits>,
}

impl Ledger {
    /// A ledger over this many descriptors and buffered bytes; refusals are counted in `hits`.
    pub fn new(descriptors: u64, buffered: u64, hits: Arc<Hits>) -> Arc<Self> {
        Arc::new(Self {
            most_descriptors: descriptors,
            most_buffered: buffered,
            descriptors: AtomicU64::new(0),
            buffered: AtomicU64::new(0),
            hits,
        })
    }

    /// Descriptors that accounts hold now.
    pub fn descriptors(&self) -> u64 {
        self.descriptors.load(Ordering::Relaxed)
    }

    /// Bytes that accounts hold now for applications.
    pub fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Whether there is a descriptor left for anybody at all.
    pub fn has_descriptors(&self) -> bool {
        is_fair(1, self.descriptors() + 1, self.most_descriptors)
    }
}

/// Whether one who then has `own` of the `all` that are taken has no more than its share of what there is.
pub fn is_fair(own: u64, all: u64, most: u64) -> bool {
    own <= most.saturating_sub(all).saturating_mul(2)
}

/// The running costs of one pod. Cheap to read from any thread.
#[derive(Debug)]
pub struct Account {
    limits: AccountLimits,
    ledger: Arc<Ledger>,
    connections: AtomicU32,
    tunnels: AtomicU32,
    descriptors: AtomicU32,
    buffered: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
    /// What its turns on the threads came to, in bytes; see [`fairness`](crate::fairness).
    pub(crate) work: AtomicU64,
}

impl Account {
    /// An account with these bounds and no costs yet, in a ledger of its own that has enough of everything.
    pub fn new(limits: AccountLimits) -> Arc<Self> {
        Self::listed(limits, &Ledger::new(u64::MAX, u64::MAX, Arc::default()))
    }

    /// The same beside others in a ledger.
    pub fn listed(limits: AccountLimits, ledger: &Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            ledger: Arc::clone(ledger),
            connections: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
            descriptors: AtomicU32::new(0),
            buffered: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            work: AtomicU64::new(0),
        })
    }

    /// Connections open now.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Tunnels open now, both those opened for the pod and those opened to it.
    pub fn tunnels(&self) -> u32 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// Descriptors held now.
    pub fn descriptors(&self) -> u32 {
        self.descriptors.load(Ordering::Relaxed)
    }

    /// Bytes held now for applications that have not taken them.
    pub fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// What all of it is taken to hold of the process's memory, bytes: an estimate, good enough to compare pods by.
    pub fn memory(&self) -> u64 {
        let connections = u64::from(self.connections()) * CONNECTION_BYTES;
        self.buffered() + connections + u64::from(self.tunnels()) * TUNNEL_BYTES
    }

    /// Bytes that the pod's applications sent, as far as their owner has told ([`Account::carried`]).
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that the pod's applications were given, likewise.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// What the pod's turns came to, in bytes: a turn counts a fixed share beside the bytes that it moved.
    pub fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    /// How often a limit was hit on this account.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn hits(&self) -> &Arc<Hits> {
        &self.ledger.hits
    }

    /// Adds what connections carried since the last time. Who owns them reads their
    /// [`Live`](crate::connection::Live) and tells; nothing is counted twice on the path of the bytes.
    pub fn carried(&self, sent: u64, received: u64) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.received.fetch_add(received, Ordering::Relaxed);
    }

    /// Charges descriptors until dropped.
    ///
    /// # Errors
    /// The pod has its share of what there is.
    pub fn descriptors_for(self: &Arc<Self>, count: u32) -> Result<Descriptors, Full> {
        let mut held = Descriptors { account: Arc::clone(self), count: 0 };
        held.more(count)?;
        Ok(held)
    }

    /// The same where there is another way without them: nothing is refused, so nothing is counted as such.
    pub(crate) fn descriptors_to_spare(self: &Arc<Self>, count: u32) -> Option<Descriptors> {
        let mut held = Descriptors { account: Arc::clone(self), count: 0 };
        let (own, all) = held.add(count);
        is_fair(u64::from(own), all, self.ledger.most_descriptors).then_some(held)
    }

    /// Takes on a connection that is there already: one more than allowed is better than one that breaks.
    pub(crate) fn adopt(self: &Arc<Self>, buffered: usize) -> Charge {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let mut charge = Charge::new(self, Counted::Connection);
        charge.lives = true;
        charge.descriptors.add(1);
        charge.add(buffered);
        charge
    }

    /// A connection with the one descriptor of its application's socket.
    pub(crate) fn open(self: &Arc<Self>) -> Result<Charge, Full> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        // From here on dropping it settles what was counted.
        let mut charge = Charge::new(self, Counted::Connection);
        if before >= self.limits.connections {
            return Err(self.refuse(Full::Connections(before)));
        }
        charge.descriptors.more(1)?;
        Ok(charge)
    }

    /// A tunnel. It is there already, and its descriptor is on the account of who opened it: nothing is refused.
    pub(crate) fn tunnel(self: &Arc<Self>) -> Charge {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
        Charge::new(self, Counted::Tunnel)
    }

    /// A connection that is not carried on but served by who took it, without a descriptor of its own.
    ///
    /// # Errors
    /// The account has as many as it may.
    pub fn serve(self: &Arc<Self>) -> Result<Served, Full> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        // From here on dropping it settles what was counted.
        let served = Served { _charge: Charge::new(self, Counted::Connection) };
        if before >= self.limits.connections {
            Err(self.refuse(Full::Connections(before)))
        } else {
            Ok(served)
        }
    }

    fn refuse(&self, full: Full) -> Full {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.ledger.hits.hit(full.limit());
        full
    }
}

/// A connection that is served, on its account until dropped.
#[derive(Debug)]
pub struct Served {
    _charge: Charge,
}

/// Descriptors on an account; given back when dropped.
#[derive(Debug)]
pub struct Descriptors {
    account: Arc<Account>,
    count: u32,
}

impl Descriptors {
    fn add(&mut self, count: u32) -> (u32, u64) {
        self.count += count;
        let own = self.account.descriptors.fetch_add(count, Ordering::Relaxed) + count;
        let all = self.account.ledger.descriptors.fetch_add(u64::from(count), Ordering::Relaxed);
        (own, all + u64::from(count))
    }

    fn more(&mut self, count: u32) -> Result<(), Full> {
        let (own, all) = self.add(count);
        if is_fair(u64::from(own), all, self.account.ledger.most_descriptors) {
            return Ok(());
        }
        self.give_back(count);
        Err(self.account.refuse(Full::ShareOfDescriptors(own - count)))
    }

    fn give_back(&mut self, count: u32) {
        self.count -= count;
        self.account.descriptors.fetch_sub(count, Ordering::Relaxed);
        self.account.ledger.descriptors.fetch_sub(u64::from(count), Ordering::Relaxed);
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.give_back(self.count);
    }
}

/// What a [`Charge`] is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Connection,
    Tunnel,
}

/// One connection's or tunnel's part of an account: released when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    descriptors: Descriptors,
    // More than a stream's or tunnel's window never waits.
    buffered: u32,
    counted: Counted,
    /// It has carried something, here or elsewhere: nothing that it needs to go on is refused.
    lives: bool,
}

impl Charge {
    fn new(account: &Arc<Account>, counted: Counted) -> Self {
        Self {
            descriptors: Descriptors { account: Arc::clone(account), count: 0 },
            buffered: 0,
            counted,
            lives: false,
        }
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.descriptors.account
    }

    /// Bytes that wait in memory.
    pub(crate) fn buffered(&self) -> u32 {
        self.buffered
    }

    /// Counts `bytes` more; what the account and all of them hold then.
    fn add(&mut self, bytes: usize) -> (u64, u64) {
        let account = &*self.descriptors.account;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.buffered += bytes;
        let own = account.buffered.fetch_add(bytes.into(), Ordering::Relaxed);
        let all = account.ledger.buffered.fetch_add(bytes.into(), Ordering::Relaxed);
        (own + u64::from(bytes), all + u64::from(bytes))
    }

    /// Charges `bytes` more that wait in memory.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let (own, all) = self.add(bytes);
        let account = &*self.descriptors.account;
        let before = own.saturating_sub(bytes as u64);
        let full = if own > account.limits.buffered {
            Full::Buffered(before)
        } else if !is_fair(own, all, account.ledger.most_buffered) {
            Full::ShareOfBuffered(before)
        } else {
            return Ok(());
        };
        let full = account.refuse(full);
        self.release(bytes);
        Err(full)
    }

    /// `bytes` left memory.
    pub(crate) fn release(&mut self, bytes: usize) {
        let bytes = self.buffered.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.buffered -= bytes;
        let account = &*self.descriptors.account;
        account.buffered.fetch_sub(bytes.into(), Ordering::Relaxed);
        account.ledger.buffered.fetch_sub(bytes.into(), Ordering::Relaxed);
    }

    /// A second socket; refused only to one that gets it for the first time: it is there already for one that goes on
    /// after it was taken off, or that another process has begun.
    pub(crate) fn second_socket(&mut self) -> Result<(), Full> {
        if self.lives {
            self.descriptors.add(1);
            return Ok(());
        }
        self.descriptors.more(1)?;
        self.lives = true;
        Ok(())
    }

    /// The second socket is somebody else's again.
    pub(crate) fn one_socket(&mut self) {
        self.descriptors.give_back(self.descriptors.count.saturating_sub(1));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release(self.buffered as usize);
        let account = &*self.descriptors.account;
        let count = match self.counted {
            Counted::Connection => &account.connections,
            Counted::Tunnel => &account.tunnels,
        };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(account: &Account) -> (u32, u32, u32, u64) {
        (account.connections(), account.tunnels(), account.descriptors(), account.buffered())
    }

    #[test]
    fn limits_hold_and_drop_releases() {
        let account = Account::new(AccountLimits { connections: 1, buffered: 10 });
        let mut first = account.open().unwrap();
        assert_eq!(account.open().unwrap_err(), Full::Connections(1));
        first.hold(8).unwrap();
        assert_eq!(first.hold(3).unwrap_err(), Full::Buffered(8));
        first.release(2);
        first.hold(3).unwrap();
        first.second_socket().unwrap();
        let mut tunnel = account.tunnel();
        tunnel.hold(1).unwrap();
        assert_eq!((settled(&account), account.refused()), ((1, 1, 2, 10), 2));
        let adopted = account.adopt(100);
        assert_eq!(settled(&account), (2, 1, 3, 110), "what is there is never refused");
        drop((first, tunnel, adopted));
        assert_eq!(settled(&account), (0, 0, 0, 0));
        assert_eq!((account.ledger.descriptors(), account.ledger.buffered()), (0, 0));
    }

    #[test]
    fn what_is_served_counts_as_a_connection() {
        let account = Account::new(AccountLimits { connections: 1, buffered: 10 });
        let first = account.serve().unwrap();
        assert_eq!(account.serve().unwrap_err(), Full::Connections(1));
        assert_eq!(settled(&account), (1, 0, 0, 0));
        drop(first);
        assert_eq!(settled(&account), (0, 0, 0, 0));
    }

    #[test]
    fn shares_of_descriptors_leave_some_for_the_next() {
        let hits = Arc::<Hits>::default();
        let ledger = Ledger::new(900, 0, hits.clone());
        let fill = || {
            let account = Account::listed(AccountLimits::default(), &ledger);
            let held: Vec<_> = std::iter::from_fn(|| account.open().ok()).collect();
            (account, held)
        };
        let (first, held) = fill();
        assert_eq!(first.descriptors(), 600, "alone: two thirds");
        let mut others = Vec::new();
        for others_before in 0..5 {
            let (other, held) = fill();
            assert!(other.descriptors() >= 1, "nothing was left for the {others_before}. of the others");
            others.push((other, held));
        }
        assert!(ledger.has_descriptors());
        assert!(matches!(first.open(), Err(Full::ShareOfDescriptors(600))));
        assert!(hits.of(Limit::AllDescriptors) >= 7);
        assert_eq!(first.connections(), 600, "what was refused counts no more");
        drop((held, others));
        assert_eq!(ledger.descriptors(), 0);
    }

    #[test]
    fn shares_of_memory_spare_who_holds_little() {
        let hits = Arc::<Hits>::default();
        let ledger = Ledger::new(u64::MAX, 3000, hits.clone());
        let limits = AccountLimits { connections: 10, buffered: u64::MAX };
        let (greedy, modest) = (Account::listed(limits, &ledger), Account::listed(limits, &ledger));
        let mut hog = greedy.open().unwrap();
        while hog.hold(100).is_ok() {}
        assert_eq!((greedy.buffered(), greedy.refused()), (2000, 1));
        let mut small = modest.open().unwrap();
        small.hold(600).unwrap();
        assert_eq!(hog.hold(1).unwrap_err(), Full::ShareOfBuffered(2000));
        assert_eq!((hits.of(Limit::AllBuffered), modest.refused()), (2, 0));
        assert!(greedy.memory() > modest.memory());
    }
}
