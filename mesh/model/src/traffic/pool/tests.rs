//! What is refused, by which limit, and that it is let through again.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Account, Accounts, Limits, Overflow, RetryLimit, Ticket};
use crate::traffic::{ConnectionPool, HttpSettings, RetryBudget, TcpSettings};

const START: Duration = Duration::ZERO;

fn limits() -> Limits {
    Limits { connections: 3, pending: 2, requests: 4, retries: RetryLimit::AtMost(1) }
}

fn ask(
    accounts: &Arc<Accounts>,
    account: Account,
    limits: &Limits,
    now: Duration,
) -> Result<Ticket, Overflow> {
    match account {
        Account::Connections => accounts.connection(limits, false),
        Account::Pending => accounts.pending(limits),
        Account::Requests => accounts.request(limits, now),
        Account::Retries => accounts.retry(limits, now),
    }
}

#[test]
fn limits_are_those_of_the_policy() {
    let pool = ConnectionPool {
        tcp: TcpSettings { max_connections: 1, ..TcpSettings::default() },
        http: HttpSettings {
            http1_max_pending_requests: 2,
            http2_max_requests: 3,
            max_retries: 4,
            ..HttpSettings::default()
        },
    };
    let retries = RetryLimit::AtMost(4);
    let expected = Limits { connections: 1, pending: 2, requests: 3, retries };
    assert_eq!(Limits::new(&pool, None), expected);
    let budget = RetryBudget::default();
    let expected = Limits { retries: RetryLimit::Budget(budget), ..expected };
    assert_eq!(Limits::new(&pool, Some(budget)), expected);
    let none = Limits::new(&ConnectionPool::default(), None);
    assert_eq!((none.connections, none.pending, none.requests), (u32::MAX, u32::MAX, u32::MAX));
}

#[test]
fn a_breaker_opens_at_its_limit_and_closes_when_something_is_over() {
    use Account::{Connections, Pending, Requests, Retries};
    #[rustfmt::skip]
    let table = [
        (Connections, 3, Overflow::Connections(3), "upstream_cx_overflow", "connectionPool.tcp.maxConnections"),
        (Pending, 2, Overflow::Pending(2), "upstream_rq_pending_overflow", "connectionPool.http.http1MaxPendingRequests"),
        (Requests, 4, Overflow::Requests(4), "upstream_rq_pending_overflow", "connectionPool.http.http2MaxRequests"),
        (Retries, 1, Overflow::Retries(1), "upstream_rq_retry_overflow", "connectionPool.http.maxRetries"),
    ];
    for (account, limit, overflow, statistic, field) in table {
        let accounts = Arc::new(Accounts::default());
        let mut tickets = Vec::new();
        for count in 0..limit {
            assert_eq!(accounts.count(account), count);
            assert!(!accounts.is_open(account, &limits(), START));
            tickets.push(ask(&accounts, account, &limits(), START).unwrap());
        }
        for _ in 0..2 {
            assert!(accounts.is_open(account, &limits(), START));
            assert_eq!(ask(&accounts, account, &limits(), START).unwrap_err(), overflow);
            assert_eq!(accounts.count(account), limit);
        }
        assert_eq!((overflow.statistic(), overflow.field()), (statistic, field));
        assert!(overflow.to_string().contains(field), "{overflow}");
        // Nothing is counted elsewhere.
        let others = [Connections, Pending, Requests, Retries].into_iter().filter(|other| *other != account);
        assert_eq!(others.map(|other| accounts.count(other)).sum::<u32>(), 0);
        tickets.pop();
        assert!(!accounts.is_open(account, &limits(), START));
        tickets.push(ask(&accounts, account, &limits(), START).unwrap());
        assert!(ask(&accounts, account, &limits(), START).is_err());
        // A limit that is raised counts at once; one that is lowered ends nothing that is under way.
        let raised = Limits { connections: 9, pending: 9, requests: 9, retries: RetryLimit::AtMost(9) };
        tickets.push(ask(&accounts, account, &raised, START).unwrap());
        assert!(ask(&accounts, account, &limits(), START).is_err());
        drop(tickets);
        assert_eq!(accounts.count(account), 0);
    }
    assert_eq!(Overflow::FLAG, "UO");
}

#[test]
fn an_endpoint_always_gets_its_first_connection() {
    let accounts = Arc::new(Accounts::default());
    let limits = Limits { connections: 0, ..limits() };
    assert_eq!(accounts.connection(&limits, false).unwrap_err(), Overflow::Connections(0));
    let first = accounts.connection(&limits, true).unwrap();
    let of_another = accounts.connection(&limits, true).unwrap();
    assert_eq!(accounts.count(Account::Connections), 2);
    drop((first, of_another));
    assert_eq!(accounts.count(Account::Connections), 0);
    // Below the limit the first is like any other.
    let limits = Limits { connections: 1, ..limits };
    let first = accounts.connection(&limits, true).unwrap();
    assert_eq!(accounts.count(Account::Connections), 1);
    drop(first);
}

#[test]
fn a_retry_budget_grows_with_the_requests() {
    // Percent, the least; requests, waiting; so many retries.
    #[rustfmt::skip]
    let table = [
        (20.0, 3, 0, 0, 3), (20.0, 3, 2, 0, 3), (20.0, 3, 15, 0, 3), (20.0, 3, 25, 0, 5), (20.0, 3, 20, 5, 5),
        (20.0, 3, 29, 0, 5), (20.0, 3, 0, 30, 6), (100.0, 0, 7, 0, 7), (0.0, 0, 50, 50, 0), (0.5, 0, 199, 0, 0),
        (0.5, 0, 200, 0, 1), (50.0, 0, 1, 0, 0),
        // Not to be written, and harmless.
        (f64::NAN, 2, 50, 0, 2), (-5.0, 1, 50, 0, 1),
    ];
    for (percent, min_retry_concurrency, requests, pending, most) in table {
        let budget = RetryBudget { percent, min_retry_concurrency, interval: Duration::ZERO };
        let limits =
            Limits { requests: u32::MAX, pending: u32::MAX, retries: RetryLimit::Budget(budget), ..limits() };
        let accounts = Arc::new(Accounts::default());
        let _requests: Vec<Ticket> =
            (0..requests).map(|_| accounts.request(&limits, START).unwrap()).collect();
        let _pending: Vec<Ticket> = (0..pending).map(|_| accounts.pending(&limits).unwrap()).collect();
        let mut retries = Vec::new();
        while let Ok(retry) = accounts.retry(&limits, START) {
            retries.push(retry);
            assert!(retries.len() <= 100);
        }
        assert_eq!(retries.len(), most, "{percent} % of {requests} and {pending}");
        let most = u32::try_from(most).unwrap();
        let overflow = accounts.retry(&limits, START).unwrap_err();
        assert_eq!(overflow, Overflow::RetryBudget(most));
        assert_eq!((overflow.statistic(), overflow.field()), ("upstream_rq_retry_overflow", "retryBudget"));
        assert!(accounts.is_open(Account::Retries, &limits, START));
    }
}

#[test]
fn with_an_interval_requests_count_though_they_are_over() {
    let second = Duration::from_secs(1);
    let budget = RetryBudget { percent: 50.0, min_retry_concurrency: 0, interval: 10 * second };
    let limits = Limits { requests: u32::MAX, retries: RetryLimit::Budget(budget), ..limits() };
    let accounts = Arc::new(Accounts::default());
    let may = |now: u32| match accounts.retry(&limits, now * second) {
        Ok(_) => true,
        Err(overflow) => {
            assert_eq!(overflow, Overflow::RetryBudget(0));
            false
        }
    };
    assert!(!may(100));
    for now in [100, 101] {
        drop(accounts.request(&limits, now * second).unwrap());
    }
    assert!(may(101) && may(109));
    // Ten seconds after it began, and a part of the interval at most, the first is forgotten.
    assert!(!may(112));
    // Those that are under way count once, whether they are new or old.
    let one = accounts.request(&limits, 200 * second).unwrap();
    assert!(!may(200));
    let two = accounts.request(&limits, 200 * second).unwrap();
    assert!(may(200) && may(300));
    drop((one, two));
    assert!(!may(300));
    // Nothing comes back with a time that is far away, and none of them panics.
    for now in [Duration::ZERO, Duration::MAX] {
        drop(accounts.request(&limits, now).unwrap());
        assert!(accounts.retry(&limits, now).is_err());
    }
    let longest = RetryBudget { interval: Duration::MAX, ..budget };
    let limits = Limits { retries: RetryLimit::Budget(longest), ..limits };
    assert!(accounts.request(&limits, Duration::MAX).is_ok());
}

#[test]
fn threads_that_ask_at_once_do_not_get_past_a_limit() {
    let accounts = Arc::new(Accounts::default());
    let limits = Limits { requests: 7, ..limits() };
    let most = std::thread::scope(|scope| {
        let ask = || {
            let mut most = 0;
            for _ in 0..2_000 {
                if let Ok(ticket) = accounts.request(&limits, START) {
                    let second = accounts.request(&limits, START);
                    most = most.max(accounts.count(Account::Requests));
                    drop((ticket, second));
                }
            }
            most
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max()
    });
    assert!(most.is_some_and(|most| (1..=7).contains(&most)), "{most:?}");
    assert_eq!(accounts.count(Account::Requests), 0);
}

proptest! {
    /// Whatever is begun and ended, in whichever order: counts are those of the tickets, and no limit is passed.
    #[test]
    fn accounts_are_the_tickets_that_are_out(
        steps in prop::collection::vec((0usize..4, any::<bool>()), 0..200),
        connections in 0u32..5,
        pending in 0u32..5,
        requests in 0u32..5,
        retries in 0u32..5,
    ) {
        let limits = Limits { connections, pending, requests, retries: RetryLimit::AtMost(retries) };
        let of = [connections, pending, requests, retries];
        let all = [Account::Connections, Account::Pending, Account::Requests, Account::Retries];
        let accounts = Arc::new(Accounts::default());
        let mut tickets: [Vec<Ticket>; 4] = std::array::from_fn(|_| Vec::new());
        for (which, begin) in steps {
            if begin {
                match ask(&accounts, all[which], &limits, START) {
                    Ok(ticket) => tickets[which].push(ticket),
                    Err(_) => prop_assert_eq!(tickets[which].len(), of[which] as usize),
                }
            } else {
                tickets[which].pop();
            }
            for (account, (out, limit)) in all.into_iter().zip(tickets.iter().zip(of)) {
                prop_assert_eq!(accounts.count(account) as usize, out.len());
                prop_assert!(accounts.count(account) <= limit);
            }
        }
    }
}
