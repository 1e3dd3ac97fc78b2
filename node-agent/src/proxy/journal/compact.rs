//! Reads a saved state, and writes it again without what has been replaced since.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, BATCH, Damaged, Entry, HEADER, Kind};
use crate::private::saved::{Saved, SavedError};

/// Files with the ends up to which they count, in order.
pub(crate) type Files = Vec<(Arc<Saved>, u64)>;

/// Why there is no new file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompactError {
    /// The old ones.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The new one.
    #[error(transparent)]
    Saved(#[from] SavedError),
}

/// A state in one file.
#[derive(Debug)]
pub(crate) struct Compacted {
    pub(crate) file: Saved,
    pub(super) end: u64,
    /// Entries in it.
    pub(super) entries: u64,
}

/// Shows every entry, in order.
pub(super) fn read(files: &Files, mut each: impl FnMut(Entry<'_>)) -> Result<(), Damaged> {
    for (file, end) in files {
        for batch in format::batches(file, 0, *end) {
            let batch = batch?;
            for entry in format::entries(&batch) {
                each(entry?);
            }
        }
    }
    Ok(())
}

/// Names by 128 bits of hash with secret keys: that two of a hundred thousand are taken for one will not happen, and
/// the names themselves would take as much memory as the mesh.
#[derive(Default)]
struct Last {
    keys: [RandomState; 2],
    places: HashMap<(u64, u64), u64>,
}

impl Last {
    fn key(&self, entry: &Entry<'_>) -> (u64, u64) {
        let [one, other] = self.keys.each_ref().map(|keys| keys.hash_one((entry.kind, entry.name)));
        (one, other)
    }
}

/// Writes what the files say in the end to a new one. Nothing is lost if it fails: the old ones stay.
pub(crate) fn compact(files: &Files) -> Result<Compacted, CompactError> {
    let mut last = Last::default();
    let mut settings: BTreeMap<String, (String, Bytes)> = BTreeMap::new();
    let mut place = 0;
    read(files, |entry| {
        place += 1;
        let key = last.key(&entry);
        match &entry.content {
            Some(_) => last.places.insert(key, place),
            None => last.places.remove(&key),
        };
        if entry.kind == Kind::Settings {
            match entry.content {
                Some((version, value)) => {
                    settings.insert(entry.name.to_owned(), (version.to_owned(), value));
                }
                None => drop(settings.remove(entry.name)),
            }
        }
    })?;
    let mut writer = Writer::new()?;
    // What is read later may depend on them.
    for (name, (version, value)) in &settings {
        writer.put(Kind::Settings, name, version, value)?;
    }
    place = 0;
    let mut failed = None;
    read(files, |entry| {
        place += 1;
        let is_last = last.places.get(&last.key(&entry)) == Some(&place);
        let Some((version, value)) = entry.content else { return };
        if is_last && entry.kind != Kind::Settings && failed.is_none() {
            failed = writer.put(entry.kind, entry.name, version, &value).err();
        }
    })?;
    failed.map_or_else(|| Ok(writer.finish()?), |error| Err(error.into()))
}

/// Writes a new file through a buffer of one batch.
struct Writer {
    done: Compacted,
    buffer: Vec<u8>,
    start: usize,
}

impl Writer {
    fn new() -> Result<Self, SavedError> {
        let mut buffer = HEADER.to_vec();
        let start = format::begin(&mut buffer);
        Ok(Self { done: Compacted { file: Saved::new()?, end: 0, entries: 0 }, buffer, start })
    }

    fn put(&mut self, kind: Kind, name: &str, version: &str, value: &[u8]) -> Result<(), SavedError> {
        format::put(&mut self.buffer, kind, name, Some((version, value)));
        self.done.entries += 1;
        if self.buffer.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SavedError> {
        format::end(&mut self.buffer, self.start);
        self.done.file.write_at(&self.buffer, self.done.end)?;
        self.done.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.start = format::begin(&mut self.buffer);
        Ok(())
    }

    fn finish(mut self) -> Result<Compacted, SavedError> {
        self.flush()?;
        Ok(self.done)
    }
}
