//! The two tables that an index points into: the static one of RFC 7541 appendix A, and the dynamic one that
//! the peer's blocks fill.

use std::collections::VecDeque;

use super::FIELD_OVERHEAD;

/// RFC 7541 appendix A; index 1 is the first. Fields of one name stand together, which [`find`] relies on.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What the static table holds for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Name and value, at this index.
    Field(usize),
    /// Only the name, at this index.
    Name(usize),
    /// Neither.
    Nothing,
}

/// Looks a field up in the static table.
pub(super) fn find(name: &[u8], value: &[u8]) -> Found {
    let Some(first) = STATIC.iter().position(|(known, _)| known.as_bytes() == name) else {
        return Found::Nothing;
    };
    let mut same_name = STATIC[first..].iter().take_while(|(known, _)| known.as_bytes() == name);
    match same_name.position(|(_, known)| known.as_bytes() == value) {
        Some(offset) => Found::Field(first + offset + 1),
        None => Found::Name(first + 1),
    }
}

/// Where an entry's bytes lie: name, then value, without a gap.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Counted from the first byte that ever entered the table.
    at: u64,
    name: usize,
    value: usize,
}

/// The dynamic table: newest entry first, oldest evicted first (RFC 7541 §2.3.2, §4).
///
/// All entries share one buffer, so that an insertion allocates only while the table grows to its usual size;
/// a connection whose peer never indexes holds no memory for it.
#[derive(Debug, Default)]
pub(super) struct DynamicTable {
    /// Bytes of evicted entries, not yet reclaimed, then those of the live ones, oldest first.
    bytes: Vec<u8>,
    /// The position, counted as in [`Entry::at`], of `bytes[0]`.
    base: u64,
    /// Newest in front.
    entries: VecDeque<Entry>,
    /// Sum of the live entries with their overhead.
    size: usize,
    max_size: usize,
}

impl DynamicTable {
    pub(super) fn new(max_size: usize) -> Self {
        Self { max_size, ..Self::default() }
    }

    /// The field at `index`, 0 being the newest.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(index)?;
        let start = usize::try_from(entry.at - self.base).ok()?;
        let both = self.bytes.get(start..start + entry.name + entry.value)?;
        Some(both.split_at(entry.name))
    }

    /// Adds a field, evicting what it displaces. One larger than the whole table empties it, which is no error
    /// (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + FIELD_OVERHEAD;
        if size > self.max_size {
            self.evict_to(0);
            return;
        }
        self.evict_to(self.max_size - size);
        self.reclaim();
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push_front(Entry { at, name: name.len(), value: value.len() });
        self.size += size;
    }

    /// Changes the size that the entries may have together, in bytes, evicting what no longer fits.
    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_to(max_size);
        if max_size == 0 {
            self.entries.shrink_to_fit();
        }
    }

    /// The size that the entries may have together, in bytes.
    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.name + oldest.value + FIELD_OVERHEAD;
        }
        if self.entries.is_empty() {
            self.base += self.bytes.len() as u64;
            self.bytes = Vec::new();
        }
    }

    /// Moves the live bytes to the front once the dead outweigh them: each move is paid for by as many evicted
    /// bytes, and the buffer holds at most twice what the table may (its capacity, twice that).
    fn reclaim(&mut self) {
        let Some(oldest) = self.entries.back() else { return };
        let dead = usize::try_from(oldest.at - self.base).unwrap_or(0);
        if dead >= self.bytes.len() - dead && dead > 0 {
            self.bytes.drain(..dead);
            self.base += dead as u64;
        }
    }

    /// Bytes allocated for field text, for the tests of the bound above.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
