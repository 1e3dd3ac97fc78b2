//! What a pod costs us: connections, buffered bytes, bytes carried. Charged from the first byte, released on drop.
//!
//! One [`Account`] a pod, shared by all its connections on all threads. Bounds belong to the pod, not to the
//! tunnel, so that no workload can make the node hold more than its share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A limit of the account was reached; the text names it and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many connections are open as the account allows.
    #[error("the pod has {0} connections open, its limit; raise the limit or find what does not close them")]
    Connections(u32),
    /// As many bytes wait for slow applications as the account allows.
    #[error("{0} bytes already wait for the pod's applications, its limit; an application does not read")]
    Buffered(u64),
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

/// The running costs of one pod. Cheap to read from any thread.
#[derive(Debug, Default)]
pub struct Account {
    limits: AccountLimits,
    connections: AtomicU32,
    buffered: AtomicU64,
    carried: AtomicU64,
    refused: AtomicU64,
}

impl Account {
    /// An account with these bounds and no costs yet.
    pub fn new(limits: AccountLimits) -> Arc<Self> {
        Arc::new(Self { limits, ..Self::default() })
    }

    /// Connections open now.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes held now for applications that have not taken them.
    pub fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Bytes carried in both directions by connections that ended. Those of live ones are in their `Live`.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// How often a limit of this account was hit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes on a connection that is there already: one more than allowed is better than one that breaks.
    pub(crate) fn adopt(self: &Arc<Self>, buffered: usize) -> Charge {
        let buffered = buffered as u64;
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.buffered.fetch_add(buffered, Ordering::Relaxed);
        Charge { account: Arc::clone(self), buffered }
    }

    pub(crate) fn open(self: &Arc<Self>) -> Result<Charge, Full> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Full::Connections(before));
        }
        Ok(Charge { account: Arc::clone(self), buffered: 0 })
    }
}

/// One connection's part of an account: released when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    buffered: u64,
}

impl Charge {
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Charges `bytes` more that wait in memory.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let before = self.account.buffered.fetch_add(bytes as u64, Ordering::Relaxed);
        if before + bytes as u64 > self.account.limits.buffered {
            self.account.buffered.fetch_sub(bytes as u64, Ordering::Relaxed);
            self.account.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Full::Buffered(before));
        }
        self.buffered += bytes as u64;
        Ok(())
    }

    /// `bytes` left memory.
    pub(crate) fn release(&mut self, bytes: usize) {
        let bytes = self.buffered.min(bytes as u64);
        self.buffered -= bytes;
        self.account.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn carried(&self, bytes: u64) {
        self.account.carried.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.buffered.fetch_sub(self.buffered, Ordering::Relaxed);
        self.account.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_drop_releases() {
        let account = Account::new(AccountLimits { connections: 1, buffered: 10 });
        let mut first = account.open().unwrap();
        assert_eq!(account.open().unwrap_err(), Full::Connections(1));
        first.hold(8).unwrap();
        assert_eq!(first.hold(3).unwrap_err(), Full::Buffered(8));
        first.release(2);
        first.hold(3).unwrap();
        assert_eq!((account.connections(), account.buffered(), account.refused()), (1, 9, 2));
        let adopted = account.adopt(100);
        assert_eq!((account.connections(), account.buffered()), (2, 109), "what is there is never refused");
        drop((first, adopted));
        assert_eq!((account.connections(), account.buffered()), (0, 0));
    }
}
