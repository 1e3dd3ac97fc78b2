//! The pool: one dial at a time, tunnels shared up to their capacity, eviction, idle release.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::pool::{Counts, Pool, PoolError};
use hbone::tunnel::Client;
use tokio::time::timeout;

use crate::support::{pair, run_paused};

/// Tunnels to servers that accept everything and keep it open.
#[derive(Clone, Default)]
struct Network {
    dials: Rc<Cell<usize>>,
    /// What the servers hold; clearing it ends all streams.
    held: Rc<RefCell<Vec<hbone::tunnel::Stream>>>,
}

impl Network {
    async fn dial(&self) -> Result<Client, String> {
        self.dials.set(self.dials.get() + 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (client, mut server) = pair(&Limits::default());
        let held = self.held.clone();
        tokio::task::spawn_local(async move {
            while let Some(request) = server.accept().await {
                held.borrow_mut().push(request.accept(&Headers::new()));
            }
        });
        Ok(client)
    }
}

#[test]
fn callers_share_one_dial_and_a_second_tunnel_opens_when_the_first_is_full() {
    run_paused(async {
        let network = Network::default();
        let limits = Limits::default();
        let pool: Pool<&str, String> = Pool::new(&limits);
        let mut open = Vec::new();
        let tasks: Vec<_> = (0..250)
            .map(|_| {
                let (pool, network) = (pool.clone(), network.clone());
                tokio::task::spawn_local(async move {
                    pool.connect(&"a", || network.dial(), "a:1", &Headers::new()).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            open.push(task.await.unwrap());
        }
        // 99 each: the control stream takes one of a hundred.
        assert_eq!(network.dials.get(), 3);
        assert_eq!(limits.hits.of(hbone::limits::Limit::ClientStreams), 2);
        assert_eq!(pool.counts(), Counts { keys: 1, tunnels: 3, streams: 250, dialing: 0 });
        open.clear();
        pool.connect(&"a", || network.dial(), "a:1", &Headers::new()).await.unwrap();
        assert_eq!(network.dials.get(), 3);
        pool.connect(&"b", || network.dial(), "a:1", &Headers::new()).await.unwrap();
        assert_eq!((network.dials.get(), pool.counts().keys), (4, 2));
    });
}

#[test]
fn a_failed_dial_fails_all_who_waited_and_the_next_tries_again() {
    run_paused(async {
        let pool: Pool<&str, String> = Pool::new(&Limits::default());
        let dials = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (pool, dials) = (pool.clone(), dials.clone());
                tokio::task::spawn_local(async move {
                    let dial = || async {
                        dials.set(dials.get() + 1);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        Err("connection refused".to_owned())
                    };
                    pool.connect(&"a", dial, "a:1", &Headers::new()).await.map(|_| ())
                })
            })
            .collect();
        for task in tasks {
            let err = task.await.unwrap().unwrap_err();
            assert!(matches!(&err, PoolError::Dial(text) if text == "connection refused"));
        }
        assert_eq!((dials.get(), pool.counts()), (1, Counts::default()));
        let network = Network::default();
        pool.connect(&"a", || network.dial(), "a:1", &Headers::new()).await.unwrap();
    });
}

#[test]
fn a_dial_that_is_given_up_is_taken_over() {
    run_paused(async {
        let pool: Pool<&str, String> = Pool::new(&Limits::default());
        let stuck = {
            let pool = pool.clone();
            tokio::task::spawn_local(async move {
                let never = || std::future::pending::<Result<Client, String>>();
                drop(pool.connect(&"a", never, "a:1", &Headers::new()).await);
            })
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        let network = Network::default();
        let waiting = {
            let (pool, network) = (pool.clone(), network.clone());
            tokio::task::spawn_local(async move {
                pool.connect(&"a", || network.dial(), "a:1", &Headers::new()).await.map(|_| ())
            })
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(network.dials.get(), 0);
        stuck.abort();
        waiting.await.unwrap().unwrap();
        assert_eq!(network.dials.get(), 1);
    });
}

/// Who waits gets the dial of one that gives up, not whoever comes first, which may be that one again.
#[test]
fn who_gives_a_dial_up_comes_again_behind_those_who_wait() {
    run_paused(async {
        let pool: Pool<&str, String> = Pool::new(&Limits::default());
        let network = Network::default();
        let hasty = {
            let pool = pool.clone();
            tokio::task::spawn_local(async move {
                loop {
                    let never = || std::future::pending::<Result<Client, String>>();
                    let soon = Duration::from_millis(1);
                    let _ = timeout(soon, pool.connect(&"a", never, "a:1", &Headers::new())).await;
                }
            })
        };
        tokio::time::sleep(Duration::from_micros(1500)).await;
        assert_eq!(pool.counts().dialing, 1);
        let headers = Headers::new();
        let patient = pool.connect(&"a", || network.dial(), "a:1", &headers);
        let opened = timeout(Duration::from_secs(1), patient).await.expect("its turn comes").unwrap();
        hasty.abort();
        drop(opened);
        assert_eq!((network.dials.get(), pool.counts().dialing), (1, 0));
    });
}

/// A dial that all have given up is none.
#[test]
fn a_dial_that_nobody_waits_for_is_forgotten() {
    run_paused(async {
        let pool: Pool<&str, String> = Pool::new(&Limits::default());
        let never = || std::future::pending::<Result<Client, String>>();
        let headers = Headers::new();
        let soon = timeout(Duration::from_secs(1), pool.connect(&"a", never, "a:1", &headers)).await;
        assert!(soon.is_err());
        assert_eq!(pool.counts(), Counts::default());
        let network = Network::default();
        pool.connect(&"a", || network.dial(), "a:1", &headers).await.unwrap();
    });
}

#[test]
fn evicted_and_idle_tunnels_take_no_more() {
    run_paused(async {
        let network = Network::default();
        let pool: Pool<&str, String> = Pool::new(&Limits::default());
        let opened = pool.connect(&"gone", || network.dial(), "a:1", &Headers::new()).await.unwrap();
        assert_eq!(pool.evict(|key| *key == "gone"), 1);
        assert_eq!(pool.counts(), Counts::default());
        // The stream that was open lives on; the next goes elsewhere.
        let _again = pool.connect(&"gone", || network.dial(), "a:1", &Headers::new()).await.unwrap();
        assert_eq!(network.dials.get(), 2);
        drop(opened);

        drop(pool.connect(&"idle", || network.dial(), "a:1", &Headers::new()).await.unwrap());
        tokio::time::sleep(Duration::from_secs(299)).await;
        assert_eq!(pool.release_idle(), 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(pool.release_idle(), 1);
        assert_eq!(pool.counts().keys, 1, "the one with a stream stays");
    });
}

#[test]
fn what_a_peak_opened_goes_soon_after_it() {
    run_paused(async {
        let network = Network::default();
        let pool: Pool<&str, String> = Pool::new(&Limits::default());
        let mut open = Vec::new();
        for _ in 0..250 {
            open.push(pool.connect(&"a", || network.dial(), "a:1", &Headers::new()).await.unwrap());
        }
        assert_eq!(pool.counts().tunnels, 3);
        drop(open);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(pool.release_idle(), 2);
        assert_eq!(pool.counts().tunnels, 1, "the last stays for who comes next");
    });
}
