//! What is too much for a destination: Envoy's circuit breakers, as Istio sets them by `connectionPool` and `retryBudget`.
//!
//! The accounts of a destination count what is under way, whichever thread carries it. Who begins something asks for a
//! [`Ticket`], and has it until it is over; where there is none, the [`Overflow`] says which limit is reached. The limits
//! are passed in each time, so that the accounts stay when these are replaced. An account at its limit is an open breaker,
//! and closes by itself with the next ticket that is given back.
//!
//! Not counted here, because they concern single connections: `maxRequestsPerConnection`, `maxConcurrentStreams`, and the
//! timeouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use thiserror::Error;

use super::{ConnectionPool, RetryBudget};

mod recent;

use self::recent::Recent;

/// The limits of a destination, with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// `connectionPool.tcp.maxConnections`.
    pub connections: u32,
    /// `connectionPool.http.http1MaxPendingRequests`.
    pub pending: u32,
    /// `connectionPool.http.http2MaxRequests`.
    pub requests: u32,
    /// `connectionPool.http.maxRetries`, or the budget in its place.
    pub retries: RetryLimit,
}

/// How many retries may be under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RetryLimit {
    /// So many (`maxRetries`).
    AtMost(u32),
    /// A share of the requests (`retryBudget`).
    Budget(RetryBudget),
}

impl Limits {
    /// What a policy says. A budget stands in place of `maxRetries`.
    pub fn new(pool: &ConnectionPool, budget: Option<RetryBudget>) -> Self {
        Self {
            connections: pool.tcp.max_connections,
            pending: pool.http.http1_max_pending_requests,
            requests: pool.http.http2_max_requests,
            retries: budget.map_or(RetryLimit::AtMost(pool.http.max_retries), RetryLimit::Budget),
        }
    }
}

/// A limit is reached; which one, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Overflow {
    /// No more connections.
    #[error(
        "{0} connections are open, the most by connectionPool.tcp.maxConnections: raise it or add endpoints"
    )]
    Connections(u32),
    /// No more requests that wait for a connection.
    #[error(
        "{0} requests wait for a connection, the most by connectionPool.http.http1MaxPendingRequests: raise it or add \
         endpoints"
    )]
    Pending(u32),
    /// No more requests.
    #[error(
        "{0} requests are under way, the most by connectionPool.http.http2MaxRequests: raise it or add endpoints"
    )]
    Requests(u32),
    /// No more retries.
    #[error(
        "{0} retries are under way, the most by connectionPool.http.maxRetries: see why so many requests fail"
    )]
    Retries(u32),
    /// No more retries for so many requests.
    #[error(
        "{0} retries are under way, the most by retryBudget for the requests there are: see why so many fail"
    )]
    RetryBudget(u32),
}

impl Overflow {
    /// The response flag of what is refused for it ("upstream overflow").
    pub const FLAG: &str = "UO";

    /// Where Envoy counts it, in a cluster's statistics.
    pub fn statistic(self) -> &'static str {
        match self {
            Self::Connections(_) => "upstream_cx_overflow",
            Self::Pending(_) | Self::Requests(_) => "upstream_rq_pending_overflow",
            Self::Retries(_) | Self::RetryBudget(_) => "upstream_rq_retry_overflow",
        }
    }

    /// The field of the DestinationRule's `trafficPolicy` that says the limit.
    pub fn field(self) -> &'static str {
        match self {
            Self::Connections(_) => "connectionPool.tcp.maxConnections",
            Self::Pending(_) => "connectionPool.http.http1MaxPendingRequests",
            Self::Requests(_) => "connectionPool.http.http2MaxRequests",
            Self::Retries(_) => "connectionPool.http.maxRetries",
            Self::RetryBudget(_) => "retryBudget",
        }
    }
}

/// What is under way to a destination.
#[derive(Debug, Default)]
pub struct Accounts {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
    recent: Recent,
}

/// One of the accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// Connections open or being opened.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests that have one.
    Requests,
    /// Requests that are retries, beside being requests.
    Retries,
}

/// Something under way, counted until this is dropped.
#[derive(Debug)]
#[must_use = "it is counted until the ticket is dropped"]
pub struct Ticket {
    accounts: Arc<Accounts>,
    account: Account,
}

impl Accounts {
    /// Asks for a further connection.
    ///
    /// An endpoint without any is given one whatever the limit, as Envoy does: what waits for it could never go on
    /// otherwise. `first` says that it has none.
    pub fn connection(self: &Arc<Self>, limits: &Limits, first: bool) -> Result<Ticket, Overflow> {
        match self.take(Account::Connections, limits.connections) {
            None if first => Ok(self.grant(Account::Connections)),
            ticket => ticket.ok_or(Overflow::Connections(limits.connections)),
        }
    }

    /// Asks to wait for a connection with a request.
    pub fn pending(self: &Arc<Self>, limits: &Limits) -> Result<Ticket, Overflow> {
        self.take(Account::Pending, limits.pending).ok_or(Overflow::Pending(limits.pending))
    }

    /// Asks to send a request on a connection that there is.
    pub fn request(self: &Arc<Self>, limits: &Limits, now: Duration) -> Result<Ticket, Overflow> {
        let ticket =
            self.take(Account::Requests, limits.requests).ok_or(Overflow::Requests(limits.requests))?;
        if let RetryLimit::Budget(budget) = limits.retries {
            self.recent.count(budget.interval, now);
        }
        Ok(ticket)
    }

    /// Asks to try a request again; the try itself asks for what any request does.
    pub fn retry(self: &Arc<Self>, limits: &Limits, now: Duration) -> Result<Ticket, Overflow> {
        match limits.retries {
            RetryLimit::AtMost(most) => self.take(Account::Retries, most).ok_or(Overflow::Retries(most)),
            RetryLimit::Budget(budget) => {
                let most = self.budget(&budget, now);
                self.take(Account::Retries, most).ok_or(Overflow::RetryBudget(most))
            }
        }
    }

    /// How many retries a budget allows now: its share of the requests under way and waiting, rounded down, and at least
    /// its minimum. With an interval, requests that began within it count though they are over: the larger of the two
    /// numbers counts.
    fn budget(&self, budget: &RetryBudget, now: Duration) -> u32 {
        let under_way = self.count(Account::Requests).saturating_add(self.count(Account::Pending));
        let requests = under_way.max(self.recent.within(budget.interval, now));
        // A share that is not a number, or less than none, becomes 0 by this conversion, and one too large the largest.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let share = (f64::from(requests) * budget.percent / 100.0) as u32;
        share.max(budget.min_retry_concurrency)
    }

    /// How much is on an account.
    pub fn count(&self, account: Account) -> u32 {
        self.of(account).load(Relaxed)
    }

    /// Whether an account is at its limit, so that whoever asks next is refused (Envoy's `circuit_breakers…_open`).
    pub fn is_open(&self, account: Account, limits: &Limits, now: Duration) -> bool {
        let limit = match (account, limits.retries) {
            (Account::Connections, _) => limits.connections,
            (Account::Pending, _) => limits.pending,
            (Account::Requests, _) => limits.requests,
            (Account::Retries, RetryLimit::AtMost(most)) => most,
            (Account::Retries, RetryLimit::Budget(budget)) => self.budget(&budget, now),
        };
        self.count(account) >= limit
    }

    /// Counts one more if that is not above the limit, also if several threads ask at once.
    fn take(self: &Arc<Self>, account: Account, limit: u32) -> Option<Ticket> {
        let one_more = |count: u32| (count < limit).then(|| count.saturating_add(1));
        self.of(account).fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Ticket { accounts: self.clone(), account })
    }

    fn grant(self: &Arc<Self>, account: Account) -> Ticket {
        self.of(account).fetch_add(1, Relaxed);
        Ticket { accounts: self.clone(), account }
    }

    fn of(&self, account: Account) -> &AtomicU32 {
        match account {
            Account::Connections => &self.connections,
            Account::Pending => &self.pending,
            Account::Requests => &self.requests,
            Account::Retries => &self.retries,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.accounts.of(self.account).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
