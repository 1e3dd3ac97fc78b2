//! Tunnels by key, for one thread: who may share a tunnel with whom is the key's business.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::connection::Connection;
use crate::dial::{Dial, Dialing};
use crate::headers::Headers;
use crate::limits::{Hits, Limit, Limits};
use crate::tunnel::{Client, ConnectError, Opened};

/// Tunnels tried for one CONNECT before giving up: one may go away or fill up between checkout and use.
const TRIES: usize = 4;

/// Why no stream could be had.
#[derive(Debug, thiserror::Error)]
pub enum PoolError<E> {
    /// The dial failed: this caller's own, or the one it waited for.
    #[error("{0}")]
    Dial(E),
    /// The tunnel was there, the CONNECT failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// How full the pool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys with at least one tunnel or a dial under way.
    pub keys: usize,
    /// Tunnels that take streams.
    pub tunnels: usize,
    /// Streams on them.
    pub streams: usize,
    /// Dials under way.
    pub dialing: usize,
}

/// The tunnels of one thread by key, usually {source identity, accepted destination identities, destination
/// address, source address}; `E` is what a dial fails with. `!Send`; clones share the pool.
pub struct Pool<K, E> {
    entries: Rc<RefCell<HashMap<K, Entry<E>>>>,
    idle: std::time::Duration,
    surplus_idle: std::time::Duration,
    hits: Arc<Hits>,
}

struct Entry<E> {
    tunnels: Vec<Client>,
    dial: Dialing<E>,
}

/// What a checkout found.
enum Found<E> {
    Tunnel(Client),
    /// None with room: one is dialled, or about to be.
    Dial(Rc<Dial<E>>),
}

impl<K, E> Clone for Pool<K, E> {
    fn clone(&self) -> Self {
        Self {
            entries: Rc::clone(&self.entries),
            idle: self.idle,
            surplus_idle: self.surplus_idle,
            hits: Arc::clone(&self.hits),
        }
    }
}

impl<K, E> fmt::Debug for Pool<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("keys", &self.entries.borrow().len()).finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash, E: Clone> Pool<K, E> {
    /// An empty pool.
    pub fn new(limits: &Limits) -> Self {
        Self {
            entries: Rc::default(),
            idle: limits.pool_idle,
            surplus_idle: limits.pool_surplus_idle,
            hits: Arc::clone(&limits.hits),
        }
    }

    /// Opens a stream on a pooled tunnel of `key`; if there is none with room, `dial` makes one. One dial at a time
    /// per key: others wait for it. A tunnel that is gone, draining (GOAWAY) or full at checkout is passed over.
    ///
    /// `dial` connects, shakes hands, calls [`client`](crate::tunnel::client) and spawns the driver.
    ///
    /// # Errors
    /// [`PoolError::Dial`] with the dial's own error (cloned to those who waited), or the CONNECT's.
    pub async fn connect<F: Future<Output = Result<Client, E>>>(
        &self,
        key: &K,
        dial: impl Fn() -> F,
        authority: &str,
        headers: &Headers,
    ) -> Result<Opened, PoolError<E>> {
        self.ask(key, dial, async |client| client.connect(authority, headers).await).await
    }

    /// The same for a stream that goes on with a detached connection.
    ///
    /// # Errors
    /// As [`Pool::connect`], and those of [`Client::resume`].
    pub async fn resume<F: Future<Output = Result<Client, E>>>(
        &self,
        key: &K,
        dial: impl Fn() -> F,
        authority: &str,
        headers: &Headers,
        connection: &Connection,
    ) -> Result<Opened, PoolError<E>> {
        self.ask(key, dial, async |client| client.resume(authority, headers, connection).await).await
    }

    async fn ask<F: Future<Output = Result<Client, E>>>(
        &self,
        key: &K,
        dial: impl Fn() -> F,
        ask: impl AsyncFn(Client) -> Result<Opened, ConnectError>,
    ) -> Result<Opened, PoolError<E>> {
        let mut tries = 0;
        loop {
            let client = match self.checkout(key) {
                Found::Tunnel(client) => client,
                Found::Dial(under_way) => {
                    match self.dial(key, &under_way, &dial).await.map_err(PoolError::Dial)? {
                        Some(client) => client,
                        None => continue,
                    }
                }
            };
            tries += 1;
            match ask(client).await {
                // Nothing was done yet: another tunnel may be asked.
                Err(ConnectError::AtCapacity | ConnectError::TunnelGone { unseen: true, .. })
                    if tries < TRIES => {}
                result => return Ok(result?),
            }
        }
    }

    fn checkout(&self, key: &K) -> Found<E> {
        let mut entries = self.entries.borrow_mut();
        if !entries.contains_key(key) {
            entries.insert(key.clone(), Entry { tunnels: Vec::new(), dial: Dialing::default() });
        }
        let entry = entries.get_mut(key).expect("inserted above if it was not there");
        entry.tunnels.retain(Client::usable);
        if let Some(client) = entry.tunnels.iter().find(|client| client.capacity() > 0) {
            return Found::Tunnel(client.clone());
        }
        if !entry.dial.is_under_way() && !entry.tunnels.is_empty() {
            self.hits.hit(Limit::ClientStreams);
        }
        Found::Dial(entry.dial.join())
    }

    /// Takes part in a dial: the tunnel, if it is this caller who has made it.
    async fn dial<F: Future<Output = Result<Client, E>>>(
        &self,
        key: &K,
        under_way: &Dial<E>,
        dial: impl Fn() -> F,
    ) -> Result<Option<Client>, E> {
        let result = under_way.take_part(dial).await;
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(key) {
            entry.tunnels.extend(result.as_ref().ok().cloned().flatten());
            if !entry.is_used() {
                entries.remove(key);
            }
        }
        result
    }

    /// Drains every tunnel whose key `gone` names (its endpoint was deleted, its certificate replaced): no new
    /// streams, running ones finish. A dial under way is not stopped: its tunnel is drained by the next call.
    /// Returns how many.
    pub fn evict(&self, mut gone: impl FnMut(&K) -> bool) -> usize {
        let mut evicted = 0;
        self.entries.borrow_mut().retain(|key, entry| {
            if gone(key) {
                evicted += entry.tunnels.len();
                entry.tunnels.drain(..).for_each(|client| client.drain());
            }
            entry.is_used()
        });
        evicted
    }

    /// Drains tunnels unused for `pool_idle`, and those beside another tunnel of their key for `pool_surplus_idle`
    /// already. Call it every few seconds. Returns how many.
    pub fn release_idle(&self) -> usize {
        let now = Instant::now();
        let mut released = 0;
        self.entries.borrow_mut().retain(|_, entry| {
            entry.tunnels.retain(Client::usable);
            let mut left = entry.tunnels.len();
            entry.tunnels.retain(|client| {
                let most = if left > 1 { self.surplus_idle } else { self.idle };
                let unused = client.idle_since().is_some_and(|since| now.duration_since(since) >= most);
                if unused {
                    client.drain();
                    released += 1;
                    left -= 1;
                }
                !unused
            });
            entry.is_used()
        });
        released
    }

    /// How full it is.
    pub fn counts(&self) -> Counts {
        let entries = self.entries.borrow();
        let mut counts = Counts::default();
        for entry in entries.values().filter(|entry| entry.is_used()) {
            counts.keys += 1;
            counts.dialing += usize::from(entry.is_dialled());
            for client in entry.tunnels.iter().filter(|client| client.usable()) {
                counts.tunnels += 1;
                counts.streams += client.streams();
            }
        }
        counts
    }
}

impl<E> Entry<E> {
    fn is_used(&self) -> bool {
        !self.tunnels.is_empty() || self.is_dialled()
    }

    fn is_dialled(&self) -> bool {
        self.dial.is_under_way()
    }
}
