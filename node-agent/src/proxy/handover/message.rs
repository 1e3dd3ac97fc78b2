//! What two proxies say to each other. Fields are only ever added; what a version cannot understand of a connection, the
//! one before does not send.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use daemon::metrics::traffic::Reporter;
use hbone::connection::{Connection, ConnectionId, Parts, Progress};
use model::Identity;
use model::address::{AppAddress, NamespacedHostname, NextHop, PeerAddress};
use model::baggage::Baggage;
use model::mesh::Mesh;
use nix::sys::memfd::{MFdFlags, memfd_create};
use prost::Message;
use socket2::SockRef;

use super::super::Agent;
use super::super::finish;
use super::super::moves::{Detached, Given};
use super::super::pod::Pod;
use super::super::record::{Ends, Failure, Record, Travelling, flags};
use super::waves::Arriving;

/// The version of these messages, and the oldest understood.
pub(super) const VERSION: u32 = 1;
pub(super) const OLDEST_VERSION: u32 = 1;
/// Largest message. What an application has not taken travels in a file beside it.
pub(super) const LARGEST: usize = 32 << 10;
/// Most bytes in such a file, both directions: two stream windows and what was read ahead.
const LARGEST_REST: u64 = 64 << 20;

/// The successor's first word: it serves, and understands these versions.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) oldest: u32,
    #[prost(uint32, tag = "2")]
    pub(super) newest: u32,
    /// It says how many have gone on, to a predecessor that asks.
    #[prost(bool, tag = "3")]
    pub(super) counts: bool,
}

/// The successor's only other word, to a predecessor whose connections ask for it: so many carry bytes again, or have
/// ended. Sums, so that what is lost or late does no harm.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GoneOn {
    #[prost(uint64, tag = "1")]
    pub(super) connections: u64,
}

/// A connection. Descriptors: the application's socket; the other one, if `far`; a memory file, if there is a rest.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Passed {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) pod: String,
    #[prost(bool, tag = "3")]
    far: bool,
    #[prost(uint64, tag = "4")]
    sent: u64,
    #[prost(uint64, tag = "5")]
    delivered: u64,
    #[prost(bool, tag = "6")]
    near_ended: bool,
    #[prost(bool, tag = "7")]
    far_ended: bool,
    #[prost(bool, tag = "8")]
    far_end_delivered: bool,
    /// Bytes in the file for the application, and after them for the far side.
    #[prost(uint64, tag = "9")]
    residue: u64,
    #[prost(uint64, tag = "10")]
    unsent: u64,
    /// Where it was delivered, if policy judges it; otherwise empty, as all texts are that are not known.
    #[prost(string, tag = "11")]
    delivered_to: String,
    #[prost(message, optional, tag = "12")]
    record: Option<PassedRecord>,
    /// The predecessor hears how many have gone on.
    #[prost(bool, tag = "13")]
    pub(super) counted: bool,
}

/// What is said of it.
#[derive(Clone, PartialEq, Message)]
struct PassedRecord {
    /// Whether this is the server's end.
    #[prost(bool, tag = "1")]
    inbound: bool,
    #[prost(string, tag = "2")]
    peer: String,
    #[prost(string, tag = "3")]
    next_hop: String,
    #[prost(string, tag = "4")]
    authority: String,
    #[prost(string, tag = "5")]
    source: String,
    #[prost(string, tag = "6")]
    destination: String,
    #[prost(string, tag = "7")]
    source_identity: String,
    #[prost(string, tag = "8")]
    destination_identity: String,
    #[prost(string, tag = "9")]
    service_namespace: String,
    #[prost(string, tag = "10")]
    service_hostname: String,
    /// Cluster, namespace, workload, service, revision, region and zone, as the client said; none if it did not.
    #[prost(string, repeated, tag = "11")]
    baggage: Vec<String>,
    #[prost(uint64, tag = "12")]
    age_ms: u64,
    #[prost(uint64, tag = "13")]
    counted_sent: u64,
    #[prost(uint64, tag = "14")]
    counted_received: u64,
}

/// A connection taken apart for the successor. Until it has gone it can be put together again.
pub(super) struct Packed {
    bytes: Vec<u8>,
    pod: Arc<Pod>,
    record: Record,
    parts: Parts,
    far: Option<TcpStream>,
    rest: Option<OwnedFd>,
}

/// A connection that cannot be taken apart now; none if it is lost, which has been told of.
pub(super) struct Unpackable {
    pub(super) detached: Option<Box<Detached>>,
    pub(super) error: std::io::Error,
}

impl Packed {
    pub(super) fn new(detached: Detached) -> Result<Self, Unpackable> {
        let Detached { pod, record, connection, far, given: _, arriving: _ } = detached;
        let luggage = record.luggage(connection.live());
        let parts = match connection.into_parts() {
            Ok(parts) => parts,
            Err(error) => {
                record.end(None, Some(&Failure::new(flags::CONNECT, &error)));
                far.iter().for_each(|far| finish::reset(&SockRef::from(far)));
                return Err(Unpackable { detached: None, error });
            }
        };
        let mut packed = Self { bytes: Vec::new(), pod, record, parts, far, rest: None };
        match rest(&packed.parts.residue, &packed.parts.unsent) {
            Ok(rest) => packed.rest = rest,
            Err(error) => return Err(Unpackable { detached: Some(Box::new(packed.unpack())), error }),
        }
        packed.bytes = packed.message(&luggage).encode_to_vec();
        Ok(packed)
    }

    fn message(&self, luggage: &Travelling) -> Passed {
        let Parts { id, residue, unsent, progress, far_end_delivered, .. } = &self.parts;
        Passed {
            id: id.to_bytes().to_vec(),
            pod: self.pod.uid.to_string(),
            far: self.far.is_some(),
            sent: progress.sent,
            delivered: progress.delivered,
            near_ended: progress.near_ended,
            far_ended: progress.far_ended,
            far_end_delivered: *far_end_delivered,
            residue: residue.len() as u64,
            unsent: unsent.len() as u64,
            delivered_to: text(luggage.ends.delivered.as_ref()),
            record: Some(PassedRecord::of(luggage)),
            counted: true,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let far = self.far.iter().map(AsFd::as_fd);
        let rest = self.rest.iter().map(AsFd::as_fd);
        std::iter::once(self.parts.socket.as_fd()).chain(far).chain(rest).collect()
    }

    /// It is the successor's: what is said of it from now on is said there.
    pub(super) fn gone(self) {
        self.record.leave();
    }

    /// It stays.
    pub(super) fn unpack(self) -> Detached {
        let Self { pod, record, parts, far, .. } = self;
        let connection = Connection::from_parts(parts, &pod.account);
        Detached { pod, record, connection, far, given: Given::No, arriving: None }
    }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A memory file with what is between the two sides, if anything is.
fn rest(residue: &[u8], unsent: &[u8]) -> std::io::Result<Option<OwnedFd>> {
    if residue.is_empty() && unsent.is_empty() {
        return Ok(None);
    }
    let mut file = File::from(memfd_create(c"lateen-connection", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(residue)?;
    file.write_all(unsent)?;
    Ok(Some(file.into()))
}

/// Reads a message; a text if it cannot be understood.
pub(super) fn read(bytes: &[u8]) -> Result<Passed, String> {
    Passed::decode(bytes).map_err(|error| error.to_string())
}

impl Passed {
    /// Puts the connection together, for a pod of this process, and takes its sockets.
    ///
    /// # Errors
    /// A text: what is missing or makes no sense. The sockets are where they were.
    pub(super) fn unpack(
        self,
        agent: &Arc<Agent>,
        pod: Arc<Pod>,
        fds: &mut Vec<OwnedFd>,
        arriving: Arriving,
    ) -> Result<Detached, String> {
        let id: [u8; 16] = self.id.as_slice().try_into().map_err(|_| "an id of another length")?;
        let sockets = 1 + usize::from(self.far);
        if fds.len() < sockets {
            return Err(format!("{} of {sockets} sockets", fds.len()));
        }
        let rest = (fds.len() > sockets).then(|| fds.remove(sockets));
        let (residue, unsent) = read_rest(rest, self.residue, self.unsent)?;
        let progress = self.progress()?;
        let delivered = optional(&self.delivered_to)?.map(AppAddress::new);
        let record = self.record.ok_or("no record")?.read(delivered, &agent.state.read())?;
        let mut sockets = fds.drain(..sockets).map(TcpStream::from);
        let socket = sockets.next().ok_or("no socket")?;
        let far = sockets.next();
        let id = ConnectionId::from_bytes(id);
        let parts =
            Parts { id, socket, residue, unsent, progress, far_end_delivered: self.far_end_delivered };
        Ok(Detached {
            record: Record::arrive(record, agent),
            connection: Connection::from_parts(parts, &pod.account),
            pod,
            far,
            given: Given::No,
            arriving: Some(arriving),
        })
    }
}

impl Passed {
    /// How far it has come.
    fn progress(&self) -> Result<Progress, String> {
        let received = self.delivered.checked_add(self.residue);
        Ok(Progress {
            sent: self.sent,
            received: received.ok_or("more bytes than can be counted")?,
            delivered: self.delivered,
            near_ended: self.near_ended,
            far_ended: self.far_ended,
        })
    }
}

/// Reads a message and what it says of a connection as a successor does, for `fuzz/`: all but the sockets. What was
/// understood is written again.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8], rest: &[u8]) -> Result<Vec<u8>, String> {
    let passed = read(bytes)?;
    let file =
        if rest.is_empty() { None } else { self::rest(rest, &[]).map_err(|error| error.to_string())? };
    let read = read_rest(file, passed.residue, passed.unsent)?;
    assert_eq!((read.0.len() as u64, read.1.len() as u64), (passed.residue, passed.unsent));
    passed.progress()?;
    let mesh = Mesh::new("".into(), None);
    let delivered = optional(&passed.delivered_to)?.map(AppAddress::new);
    let travelling = passed.record.clone().ok_or("no record")?.read(delivered, &mesh)?;
    Ok(PassedRecord::of(&travelling).encode_to_vec())
}

fn read_rest(file: Option<OwnedFd>, residue: u64, unsent: u64) -> Result<(Vec<u8>, Vec<u8>), String> {
    if residue == 0 && unsent == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    if residue.saturating_add(unsent) > LARGEST_REST {
        return Err(format!("it holds {residue} and {unsent} bytes"));
    }
    let mut file = File::from(file.ok_or("no file for what it holds")?);
    // The cursor is shared with who wrote it.
    file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
    let mut part = |len: u64| {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact(&mut bytes).map(|()| bytes).map_err(|error| error.to_string())
    };
    Ok((part(residue)?, part(unsent)?))
}

/// A value of a text that is empty where there is none.
fn optional<T: std::str::FromStr>(text: &str) -> Result<Option<T>, String> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{text:?} makes no sense")),
    }
}

impl PassedRecord {
    fn of(record: &Travelling) -> Self {
        let ends = &record.ends;
        let (service_namespace, service_hostname) = ends
            .service
            .as_ref()
            .map(|service| (service.key.namespace().to_owned(), service.key.hostname().to_owned()))
            .unwrap_or_default();
        Self {
            inbound: ends.reporter == Reporter::Destination,
            peer: record.peer.to_string(),
            next_hop: ends.next_hop.to_string(),
            authority: ends.authority.as_deref().unwrap_or_default().to_owned(),
            source: ends.source.as_ref().map(|workload| workload.uid.to_string()).unwrap_or_default(),
            destination: ends
                .destination
                .as_ref()
                .map(|workload| workload.uid.to_string())
                .unwrap_or_default(),
            source_identity: text(ends.source_identity.as_ref()),
            destination_identity: text(ends.destination_identity.as_ref()),
            service_namespace,
            service_hostname,
            baggage: ends.baggage.as_deref().map(fields).unwrap_or_default(),
            age_ms: u64::try_from(record.age.as_millis()).unwrap_or(u64::MAX),
            counted_sent: record.counted.0,
            counted_received: record.counted.1,
        }
    }

    fn read(self, delivered: Option<AppAddress>, mesh: &Mesh) -> Result<Travelling, String> {
        let address = |text: &str| text.parse::<SocketAddr>().map_err(|_| format!("{text:?} is no address"));
        let identity = |text: &str| optional::<Identity>(text);
        let service = NamespacedHostname::new(&self.service_namespace, &self.service_hostname);
        let ends = Ends {
            reporter: if self.inbound { Reporter::Destination } else { Reporter::Source },
            source: mesh.workload(&self.source).cloned(),
            baggage: said(self.baggage),
            source_identity: identity(&self.source_identity)?,
            next_hop: NextHop::new(address(&self.next_hop)?),
            authority: Some(self.authority).filter(|text| !text.is_empty()).map(String::into_boxed_str),
            destination: mesh.workload(&self.destination).cloned(),
            destination_identity: identity(&self.destination_identity)?,
            service: mesh.service(&service).cloned(),
            delivered,
        };
        let peer = PeerAddress::new(address(&self.peer)?);
        let age = Duration::from_millis(self.age_ms);
        Ok(Travelling { peer, ends, age, counted: (self.counted_sent, self.counted_received) })
    }
}

fn fields(baggage: &Baggage) -> Vec<String> {
    let Baggage { cluster, namespace, workload, service, revision, region, zone } = baggage.clone();
    vec![cluster, namespace, workload, service, revision, region, zone]
}

fn said(fields: Vec<String>) -> Option<Box<Baggage>> {
    let [cluster, namespace, workload, service, revision, region, zone] = fields.try_into().ok()?;
    Some(Box::new(Baggage { cluster, namespace, workload, service, revision, region, zone }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_cannot_be_are_refused() {
        let passed = |delivered, residue| Passed { delivered, residue, ..Passed::default() };
        assert_eq!(passed(50, 4).progress().map(|progress| progress.received), Ok(54));
        assert!(passed(u64::MAX, 1).progress().is_err());
    }
}
