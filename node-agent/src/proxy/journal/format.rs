//! The form of a saved state: files of batches of entries, of which later ones win. A batch counts whole or not at all.
//!
//! ```text
//! file:  HEADER batch*                        a batch that is cut off ends the file: its writer died over it
//! batch: length u32, entry*                   numbers with the low byte first
//! entry: kind u8, name u32+bytes              gone: kind | GONE
//!                 version u32+bytes, value u32+bytes
//! ```

use bytes::{Buf, Bytes};
use proto::type_url;

use crate::private::saved::Saved;

/// What a file begins with; the last byte is the form. Another form is not read: the controller is asked again.
pub(super) const HEADER: &[u8; 8] = b"lateen\0\x03";
/// Batches are begun anew at this size.
pub(super) const BATCH: usize = 1 << 20;
/// Marks an entry as one that says that something is gone.
const GONE: u8 = 0x80;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The mesh's settings.
    Settings = 1,
    /// A policy.
    Policy = 2,
    /// A workload or a service.
    Address = 3,
    /// All certificates, as the identity crate exports them.
    Certificates = 4,
    /// Everything that there was had been told once. Without it what was saved is only the beginning of it.
    Complete = 5,
    /// The same of a proxy that asks for workloads and services: there are more than it had asked for.
    CompleteOnDemand = 6,
}

impl Kind {
    /// What resources of a type are kept as, if they are kept.
    pub(crate) fn of(type_url: &str) -> Option<Self> {
        [Self::Settings, Self::Policy, Self::Address]
            .into_iter()
            .find(|kind| kind.type_url() == Some(type_url))
    }

    /// The type of a kind of resources.
    pub(crate) fn type_url(self) -> Option<&'static str> {
        match self {
            Self::Settings => Some(type_url::MESH_SETTINGS),
            Self::Policy => Some(type_url::AUTHORIZATION),
            Self::Address => Some(type_url::ADDRESS),
            Self::Certificates | Self::Complete | Self::CompleteOnDemand => None,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        let all = [
            Self::Settings,
            Self::Policy,
            Self::Address,
            Self::Certificates,
            Self::Complete,
            Self::CompleteOnDemand,
        ];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What is said of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    /// Its version and its encoded content; nothing if it is gone.
    pub(crate) content: Option<(&'a str, Bytes)>,
}

/// A saved state that nobody of this form has written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damaged {
    /// Of another form.
    #[error("it has another form")]
    Form,
    /// Not what its form says.
    #[error("it is damaged")]
    Content,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
}

/// Writes an entry and returns its size.
pub(super) fn put(buffer: &mut Vec<u8>, kind: Kind, name: &str, content: Option<(&str, &[u8])>) -> u64 {
    let before = buffer.len();
    buffer.push(kind as u8 | if content.is_none() { GONE } else { 0 });
    put_part(buffer, name.as_bytes());
    if let Some((version, value)) = content {
        put_part(buffer, version.as_bytes());
        put_part(buffer, value);
    }
    (buffer.len() - before) as u64
}

fn put_part(buffer: &mut Vec<u8>, bytes: &[u8]) {
    // None is longer: a resource has 8 MiB at most, an export of certificates 64.
    buffer.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// Begins a batch in a buffer; where it begins is for [`end`].
pub(super) fn begin(buffer: &mut Vec<u8>) -> usize {
    let start = buffer.len();
    buffer.extend([0; 4]);
    start
}

/// Ends the batch that began there.
pub(super) fn end(buffer: &mut [u8], start: usize) {
    let length = u32::try_from(buffer.len() - start - 4).unwrap_or(u32::MAX);
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Writes a batch that was read.
pub(super) fn put_batch(buffer: &mut Vec<u8>, batch: &[u8]) {
    put_part(buffer, batch);
}

/// The whole batches of a file between two places of it, each as it is needed.
pub(super) fn batches(
    file: &Saved,
    from: u64,
    end: u64,
) -> impl Iterator<Item = Result<Bytes, Damaged>> + use<'_> {
    let mut position = from;
    std::iter::from_fn(move || batch(file, &mut position, end).transpose())
}

fn batch(file: &Saved, position: &mut u64, end: u64) -> Result<Option<Bytes>, Damaged> {
    if *position == 0 {
        let mut header = [0; HEADER.len()];
        if end < header.len() as u64 {
            return Ok(None);
        }
        file.read_at(&mut header, 0)?;
        if header != *HEADER {
            return Err(Damaged::Form);
        }
        *position = header.len() as u64;
    }
    let mut length = [0; 4];
    let start = *position + length.len() as u64;
    if start > end {
        return Ok(None);
    }
    file.read_at(&mut length, *position)?;
    let length = u32::from_le_bytes(length);
    if u64::from(length) > end - start {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, start)?;
    *position = start + u64::from(length);
    Ok(Some(bytes.into()))
}

/// The entries of a batch.
pub(super) fn entries(batch: &Bytes) -> impl Iterator<Item = Result<Entry<'_>, Damaged>> {
    let mut rest = &batch[..];
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        rest = after;
        let read = entry(batch, first, &mut rest);
        if read.is_none() {
            rest = &[];
        }
        Some(read.ok_or(Damaged::Content))
    })
}

fn entry<'a>(batch: &'a Bytes, first: u8, rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let kind = Kind::from_number(first & !GONE)?;
    let name = std::str::from_utf8(part(rest)?).ok()?;
    if first & GONE != 0 {
        return Some(Entry { kind, name, content: None });
    }
    let version = std::str::from_utf8(part(rest)?).ok()?;
    Some(Entry { kind, name, content: Some((version, batch.slice_ref(part(rest)?))) })
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = rest.try_get_u32_le().ok()? as usize;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}
