//! Names for captured pods: services, headless services and pods are answered from what the controller told;
//! everything else goes, as it came, to the node's own name servers.

mod answer;
mod forward;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::fairness;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::answer::Asker;
pub(crate) use self::forward::Upstreams;
use super::dns_metrics::Labels;
use super::limits::Limit;
use super::pod::Pod;
use super::worker::Worker;
use crate::listeners::{Listeners, Slot};

/// The largest message over UDP without EDNS (RFC 1035, section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// The largest datagram that is taken.
const MAX_DATAGRAM: usize = 4096;
/// Queries of one pod under way at a time; further ones are dropped, and asked again by the client.
const MAX_QUERIES: usize = 512;
/// What it costs to answer a query, as [`fairness`] counts: about half of what it costs to open a connection.
const QUERY: u64 = 32 << 10;
/// How long a TCP client may be idle.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Pause after a failed receive or accept: what the system lacks does not come by trying at once.
const PAUSE: Duration = Duration::from_millis(20);

/// How a query came, which bounds the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

impl Over {
    /// The word of the metrics' label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Starts a pod's name servers and returns the means to end them.
pub(crate) fn start(worker: &Rc<Worker>, pod: &Arc<Pod>, listeners: &mut Listeners) -> Vec<AbortHandle> {
    let server = Rc::new(Server {
        worker: worker.clone(),
        pod: pod.clone(),
        places: Arc::new(Semaphore::new(MAX_QUERIES)),
    });
    let mut tasks = Vec::new();
    for slot in [Slot::DnsUdpV4, Slot::DnsUdpV6] {
        match listeners.take_udp(slot) {
            Ok(Some(socket)) => {
                tasks
                    .push(tokio::task::spawn_local(server.clone().serve_udp(Rc::new(socket))).abort_handle());
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, pod = %pod.name, "cannot serve DNS over UDP"),
        }
    }
    for slot in [Slot::DnsTcpV4, Slot::DnsTcpV6] {
        match listeners.take_tcp(slot) {
            Ok(Some(listener)) => {
                tasks.push(tokio::task::spawn_local(server.clone().serve_tcp(listener)).abort_handle());
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, pod = %pod.name, "cannot serve DNS over TCP"),
        }
    }
    tasks
}

/// The name server of one pod.
struct Server {
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    places: Arc<Semaphore>,
}

impl Server {
    /// Tells of a query that was dropped; its client asks again.
    fn no_place(&self) {
        if self.worker.agent.hits.hit_and_tell(Limit::DnsQueries) {
            tracing::warn!(pod = %self.pod.name, namespace = %self.pod.namespace, "{MAX_QUERIES} DNS queries of the pod are under way, dropping others");
        }
    }

    async fn serve_udp(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            // Before it is received, and for the ones dropped too: what comes meanwhile waits in the socket, where it is not
            // lost when this task ends and another proxy's goes on, or is dropped by the kernel.
            let waited = socket.readable().await;
            fairness::turn(&self.pod.account, QUERY).await;
            let (length, client) = match waited.and_then(|()| socket.try_recv_from(&mut datagram)) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    tracing::debug!(%error, "a DNS query was not received");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.no_place();
                continue;
            };
            let (server, socket, query) = (self.clone(), socket.clone(), datagram[..length].to_vec());
            tokio::task::spawn_local(async move {
                if let Some(reply) = server.answer(&query, client, Over::Udp).await {
                    // A client that has gone does not miss its answer.
                    let _ = socket.send_to(&reply, client).await;
                }
                drop(place);
            });
        }
    }

    async fn serve_tcp(self: Rc<Self>, listener: TcpListener) {
        loop {
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a DNS connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.no_place();
                continue;
            };
            // The account counts and tells of what it refuses; the client tries again.
            let Ok(descriptor) = self.pod.account.descriptors_for(1) else { continue };
            let server = self.clone();
            tokio::task::spawn_local(async move {
                fairness::turn(&server.pod.account, QUERY).await;
                if let Err(error) = server.serve_stream(stream, client).await {
                    tracing::debug!(%error, %client, "a DNS connection ended early");
                }
                drop((place, descriptor));
            });
        }
    }

    /// Answers queries of one TCP connection in turn, until it is idle.
    async fn serve_stream(&self, mut stream: TcpStream, client: SocketAddr) -> std::io::Result<()> {
        loop {
            let length = match timeout(TCP_IDLE, stream.read_u16()).await {
                Ok(Ok(length)) => length,
                Ok(Err(_)) | Err(_) => return Ok(()),
            };
            let mut query = vec![0; usize::from(length)];
            timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
            fairness::turn(&self.pod.account, QUERY).await;
            let Some(reply) = self.answer(&query, client, Over::Tcp).await else { return Ok(()) };
            let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
            let mut framed = Vec::with_capacity(reply.len() + 2);
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&reply);
            timeout(TCP_IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// The reply to a query, or `None` to something that is none.
    async fn answer(&self, bytes: &[u8], client: SocketAddr, over: Over) -> Option<Vec<u8>> {
        let _asked = self.pod.asked();
        let query = Message::from_vec(bytes)
            .ok()
            .filter(|query| query.metadata.message_type == MessageType::Query)?;
        let agent = &self.worker.agent;
        let asked = query.queries.first().map(|asked| asked.query_type());
        let labels = {
            let mesh = agent.state.read();
            Labels::of(asked, over, self.pod.workload(&mesh).map(|workload| &**workload))
        };
        agent.dns_metrics.request(&labels);
        let ours = query.metadata.op_code == OpCode::Query
            && query.queries.len() == 1
            && matches!(asked, Some(RecordType::A | RecordType::AAAA));
        if ours {
            let Some(workload) = agent.state.wait_for(|mesh| self.pod.workload(mesh).cloned()).await else {
                return encode(&failure(&query, ResponseCode::ServFail), &query, over);
            };
            let asker = Asker { client: &workload, domain: &agent.domain, turn: query.metadata.id };
            if agent.demand.is_on() {
                let names = answer::names(&asker, &query.queries[0]);
                agent.demand.names(&agent.state, &self.pod.uid, names).await;
            }
            let found = answer::answer(&agent.state.read(), &asker, &query.queries[0]);
            if let Some(records) = found {
                tracing::debug!(target: "dns", pod = %self.pod.name, %client, name = %query.queries[0].name(), "answered");
                return encode(&answer::reply(&query, records), &query, over);
            }
        }
        let told = |took, answered| agent.dns_metrics.upstream(&labels, took, answered);
        match forward::forward(&agent.upstreams, &self.pod, bytes, over, told).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::debug!(target: "dns", pod = %self.pod.name, %client, %error, "not forwarded");
                encode(&failure(&query, ResponseCode::ServFail), &query, over)
            }
        }
    }
}

/// What a query is answered with by this mesh and for this pod, for `fuzz/`: `None` to what is no query.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(
    mesh: &model::mesh::Mesh,
    client: &model::workload::Workload,
    bytes: &[u8],
    over: Over,
) -> Option<Vec<u8>> {
    let query =
        Message::from_vec(bytes).ok().filter(|query| query.metadata.message_type == MessageType::Query)?;
    let asker = Asker { client, domain: "mesh.test", turn: query.metadata.id };
    let Some(asked) = query.queries.first() else {
        return encode(&failure(&query, ResponseCode::ServFail), &query, over);
    };
    assert!(answer::names(&asker, asked).len() <= 16);
    let records = answer::answer(mesh, &asker, asked).unwrap_or_default();
    encode(&answer::reply(&query, records), &query, over)
}

fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut reply = answer::reply(query, Vec::new());
    reply.metadata.response_code = code;
    reply.metadata.authoritative = false;
    reply
}

/// Writes a reply, cut to what the client can take.
fn encode(reply: &Message, query: &Message, over: Over) -> Option<Vec<u8>> {
    let limit = match over {
        Over::Tcp => usize::from(u16::MAX),
        Over::Udp => {
            usize::from(query.edns.as_ref().map_or(PLAIN_UDP, |edns| edns.max_payload().max(PLAIN_UDP)))
        }
    };
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.truncate().to_vec().ok()
}
