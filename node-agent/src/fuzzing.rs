//! Doors for `fuzz/targets` to what reads strangers' bytes here; there with the feature `fuzzing` only.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::mesh::Mesh;
use model::workload::Workload;
use prost::Message;

use crate::private::saved::Saved;
use crate::proxy::journal::{self, compact};
use crate::proxy::{dns, handover};
use crate::redirect::cni;
use crate::socket::Packet;
use crate::{private::wire, zds};

/// A reply to a DNS query, `None` to what is none.
#[must_use]
pub fn dns(mesh: &Mesh, client: &Workload, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    dns::fuzz(mesh, client, query, if tcp { dns::Over::Tcp } else { dns::Over::Udp })
}

/// A request of ZDS with descriptors; whether it makes sense.
#[must_use]
pub fn zds(bytes: &[u8], fds: Vec<OwnedFd>) -> bool {
    zds::client::parse(Packet { bytes: bytes.to_vec(), fds }).is_ok()
}

/// A message of the private socket, as either end reads it; written again, if it is one.
#[must_use]
pub fn private(bytes: &[u8], from_proxy: bool) -> Option<Vec<u8>> {
    if from_proxy {
        wire::FromProxy::decode(bytes).ok().map(|message| message.encode_to_vec())
    } else {
        wire::ToProxy::decode(bytes).ok().map(|message| message.encode_to_vec())
    }
}

/// A connection as a predecessor hands it over, with what it holds; what is said of it written again.
///
/// # Errors
/// A text: what makes no sense.
pub fn handover(bytes: &[u8], rest: &[u8]) -> Result<Vec<u8>, String> {
    handover::message::fuzz(bytes, rest)
}

/// What a saved file has of something: kind, name, version, value.
pub type Part = (u8, String, String, Vec<u8>);

/// A saved state of one file: kind, name, version and value of what counts in the end, `None` if it is of no use.
#[must_use]
pub fn saved(bytes: &[u8]) -> Option<Vec<Part>> {
    let file = Saved::new().ok()?;
    file.write_at(bytes, 0).ok()?;
    let file = Arc::new(file);
    let before = content(std::slice::from_ref(&file))?;
    let end = file.length().ok()?;
    let compacted = compact::compact(&vec![(file, end)]).ok()?;
    let after = content(&[Arc::new(compacted.file)])?;
    assert_eq!(before, after, "written anew it says something else");
    Some(before)
}

fn content(files: &[Arc<Saved>]) -> Option<Vec<Part>> {
    let mut content = std::collections::BTreeMap::new();
    let read = journal::read(files, |entry| {
        let key = (entry.kind as u8, entry.name.to_owned());
        match entry.content {
            Some((version, value)) => drop(content.insert(key, (version.to_owned(), value.to_vec()))),
            None => drop(content.remove(&key)),
        }
    });
    read.ok()?;
    Some(content.into_iter().map(|((kind, name), (version, value))| (kind, name, version, value)).collect())
}

/// What a CNI plugin says; whether it makes sense.
#[must_use]
pub fn cni(bytes: &[u8]) -> bool {
    cni::fuzz(bytes)
}
