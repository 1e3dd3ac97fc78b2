//! The streams of one connection, by id and by key.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::{Index, IndexMut};

/// A stream's place in its tunnel, stable until it is released. Keys are used again, ids never.
pub(crate) type Key = usize;

/// What the protocol knows of one stream.
#[derive(Debug)]
pub(crate) struct StreamState<T> {
    pub(crate) id: u32,
    // No window is above 2^31-1, nor so far below 0 (RFC 9113 §6.9.2).
    pub(crate) send_window: i32,
    pub(crate) receive_window: i32,
    pub(crate) uncredited: u32,
    /// What it may have sent and not been granted again at once.
    pub(crate) window: u32,
    /// What it was granted again so far; no more than the most that the type holds.
    pub(crate) carried: u32,
    /// Client: the answer came. Server: the answer was sent.
    pub(crate) answered: bool,
    pub(crate) local_ended: bool,
    pub(crate) remote_ended: bool,
    pub(crate) reset: bool,
    pub(crate) ext: T,
}

impl<T> StreamState<T> {
    /// Whether nothing may be sent or received on it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.reset || (self.local_ended && self.remote_ended)
    }
}

#[derive(Debug)]
pub(crate) struct Streams<T> {
    slab: slab::Slab<StreamState<T>>,
    /// Keys in half the room: a tunnel has far fewer streams.
    by_id: HashMap<u32, u32, BuildHasherDefault<IdHasher>>,
}

impl<T> Streams<T> {
    pub(crate) fn new() -> Self {
        Self { slab: slab::Slab::new(), by_id: HashMap::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|key| *key as Key)
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.slab.contains(key)
    }

    pub(crate) fn insert(&mut self, stream: StreamState<T>) -> Key {
        let id = stream.id;
        let key = self.slab.insert(stream);
        self.by_id.insert(id, key as u32);
        key
    }

    pub(crate) fn remove(&mut self, key: Key) -> StreamState<T> {
        let stream = self.slab.remove(key);
        self.by_id.remove(&stream.id);
        if self.slab.is_empty() {
            // An idle tunnel keeps nothing of the streams it had.
            self.slab = slab::Slab::new();
            self.by_id = HashMap::default();
        }
        stream
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut StreamState<T>)> {
        self.slab.iter_mut()
    }
}

impl<T> Index<Key> for Streams<T> {
    type Output = StreamState<T>;

    fn index(&self, key: Key) -> &StreamState<T> {
        &self.slab[key]
    }
}

impl<T> IndexMut<Key> for Streams<T> {
    fn index_mut(&mut self, key: Key) -> &mut StreamState<T> {
        &mut self.slab[key]
    }
}

/// Ids are the peer's to choose only upwards and at most 200 are known at once: multiplying spreads them well
/// enough, and a frame costs one lookup.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }
}
