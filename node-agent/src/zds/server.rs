//! The redirector's end of ZDS: remembers which pods are captured, tells every proxy that connects, and answers
//! whoever enrols a pod with the proxy's acknowledgement.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use proto::zds::{
    AddWorkload, DelWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest, WorkloadResponse,
    ZdsHello, workload_request::Payload, workload_response,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

use super::{IO_TIME, MAX_MESSAGE};
use crate::{
    netns::NetnsFd,
    private::server::PrivateServer,
    seqpacket::{SeqListener, SeqPacket, in_time},
};

/// Requests that may wait for one proxy; enrolment waits beyond.
const QUEUE: usize = 64;
/// Connections accepted at once; then one every [`ACCEPT_EVERY`]: a proxy that crashes at each start must not
/// keep the redirector busy with snapshots.
const ACCEPT_BURST: u32 = 5;
const ACCEPT_EVERY: Duration = Duration::from_millis(200);

/// A captured pod, as a proxy is told of it.
#[derive(Clone, Debug)]
pub struct CapturedPod {
    /// Kubernetes uid.
    pub uid: String,
    /// Name, namespace and account.
    pub info: WorkloadInfo,
    /// Its network namespace.
    pub netns: NetnsFd,
}

/// Why a proxy did not take a pod on (or off).
#[derive(Debug, thiserror::Error)]
pub enum ZdsError {
    /// No proxy took it in time.
    #[error("no proxy has acknowledged the pod in time; look at the log of `node-agent proxy` on this node")]
    NoProxy,
    /// The proxy refused.
    #[error("the proxy refused the pod: {0}")]
    Refused(String),
}

/// Handle to the server; clones share it.
#[derive(Clone, Debug)]
pub struct ZdsServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Where our own proxies show themselves first; `None` admits every proxy.
    own: Option<PrivateServer>,
    /// Counts connections that have become usable, for those who wait for one.
    connected: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, CapturedPod>,
    /// Connected proxies, oldest first: additions go to the last, removals to all.
    proxies: Vec<Proxy>,
    next_id: u64,
}

#[derive(Clone, Debug)]
struct Proxy {
    id: u64,
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    payload: Payload,
    netns: Option<NetnsFd>,
    reply: oneshot::Sender<Result<(), String>>,
}

impl Default for ZdsServer {
    fn default() -> Self {
        Self::new()
    }
}

impl ZdsServer {
    /// A server that knows no pod yet, for any proxy.
    #[must_use]
    pub fn new() -> Self {
        Self::with(None)
    }

    /// The same for our own proxies, which are connected to `private` first. The listeners are held there: a
    /// proxy that opened its own beside them would share their connections with a queue that nobody empties.
    #[must_use]
    pub fn for_own(private: PrivateServer) -> Self {
        Self::with(Some(private))
    }

    fn with(own: Option<PrivateServer>) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), own, connected: watch::Sender::new(0) }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a proxy is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.state().proxies.is_empty()
    }

    /// Remembers `pod` without telling anybody now: every proxy that connects from here on learns of it. For
    /// what is found at the redirector's own start.
    pub fn remember(&self, pod: CapturedPod) {
        self.state().pods.insert(pod.uid.clone(), pod);
    }

    /// Remembers `pod`, hands it to the newest proxy and waits for its acknowledgement. While there is no proxy,
    /// or it goes away meanwhile, waits for the next one.
    ///
    /// # Errors
    /// When the proxy refuses, or none has acknowledged by `deadline`. The pod stays remembered until
    /// [`remove`](Self::remove): its rules stand, so a later proxy must serve it.
    pub async fn add(&self, pod: CapturedPod, deadline: Instant) -> Result<(), ZdsError> {
        self.remember(pod.clone());
        timeout_at(deadline, self.add_to_newest(pod)).await.unwrap_or(Err(ZdsError::NoProxy))
    }

    async fn add_to_newest(&self, pod: CapturedPod) -> Result<(), ZdsError> {
        let mut connected = self.shared.connected.subscribe();
        loop {
            connected.mark_unchanged();
            let newest = self.state().proxies.last().cloned();
            if let Some(proxy) = newest {
                let add = AddWorkload { uid: pod.uid.clone(), workload_info: Some(pod.info.clone()) };
                match proxy.ask(Payload::Add(add), Some(pod.netns.clone())).await {
                    Some(answer) => return answer.map_err(ZdsError::Refused),
                    None => self.disconnect(proxy.id),
                }
            } else if connected.changed().await.is_err() {
                return Err(ZdsError::NoProxy);
            }
        }
    }

    /// Forgets a pod and tells all proxies; returns once each has acknowledged or had its time.
    pub async fn remove(&self, uid: &str) {
        let proxies = {
            let mut state = self.state();
            state.pods.remove(uid);
            state.proxies.clone()
        };
        for proxy in proxies {
            let answer = proxy.ask(Payload::Del(DelWorkload { uid: uid.to_owned() }), None).await;
            if let Some(Err(reason)) = answer {
                warn!(uid, reason, "the proxy could not let go of a pod");
            }
        }
    }

    /// Accepts proxies at `path` until dropped.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub fn serve(&self, path: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
        let listener = SeqListener::bind(path)?;
        Ok(self.clone().accept_all(listener))
    }

    async fn accept_all(self, listener: SeqListener) {
        let mut connections = tokio::task::JoinSet::new();
        let mut tokens = ACCEPT_BURST;
        loop {
            tokio::select! {
                () = sleep(ACCEPT_EVERY), if tokens < ACCEPT_BURST => tokens += 1,
                accepted = listener.accept(), if tokens > 0 => match accepted {
                    Ok(socket) => {
                        tokens -= 1;
                        connections.spawn(self.clone().serve_proxy(socket));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a proxy on the ZDS socket");
                        tokens = 0;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve_proxy(self, socket: SeqPacket) {
        let welcome = match self.admit(&socket) {
            Ok(()) => expect_hello(&socket).await,
            refused => refused,
        };
        if let Err(reason) = welcome {
            warn!(reason, "a client of the ZDS socket was turned away");
            return;
        }
        let (id, snapshot, mut requests) = self.connect();
        info!(pods = snapshot.len(), "a proxy has connected");
        let outcome = async {
            send_snapshot(&socket, snapshot).await?;
            relay(&socket, &mut requests).await
        };
        let reason = outcome.await.err().unwrap_or_default();
        self.disconnect(id);
        info!(reason, "a proxy has disconnected");
    }

    fn admit(&self, socket: &SeqPacket) -> Result<(), String> {
        let Some(own) = &self.shared.own else { return Ok(()) };
        let pid = socket.peer_pid().map_err(|error| error.to_string())?;
        if own.has_peer(pid) {
            return Ok(());
        }
        Err(format!(
            "process {pid} is not our own proxy; to let another one proxy (ztunnel), set FOREIGN_PROXY=true"
        ))
    }

    /// Takes the snapshot and joins the list of proxies in one step: what is added after it goes through the
    /// queue, behind it.
    fn connect(&self) -> (u64, Vec<CapturedPod>, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        let snapshot = state.pods.values().cloned().collect();
        state.proxies.push(Proxy { id, requests: sender });
        drop(state);
        self.shared.connected.send_modify(|count| *count += 1);
        (id, snapshot, receiver)
    }

    fn disconnect(&self, id: u64) {
        self.state().proxies.retain(|proxy| proxy.id != id);
    }
}

impl Proxy {
    /// Queues a request and waits for its answer; `None` when the connection ended before one came.
    async fn ask(&self, payload: Payload, netns: Option<NetnsFd>) -> Option<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { payload, netns, reply }).await.ok()?;
        answer.await.ok()
    }
}

async fn expect_hello(socket: &SeqPacket) -> Result<(), String> {
    let packet = in_time(IO_TIME, socket.receive(MAX_MESSAGE))
        .await
        .map_err(|_| format!("no hello within {} s", IO_TIME.as_secs()))?
        .map_err(|error| error.to_string())?
        .ok_or("closed before its hello")?;
    let hello =
        ZdsHello::decode(packet.bytes.as_slice()).map_err(|error| format!("not a ZDS hello: {error}"))?;
    if hello.version == Version::V1 as i32 {
        Ok(())
    } else {
        Err(format!("it speaks ZDS version {}, this agent only 1", hello.version))
    }
}

/// A pod that the proxy refuses does not stop the rest; it tries again by itself.
async fn send_snapshot(socket: &SeqPacket, snapshot: Vec<CapturedPod>) -> Result<(), String> {
    for pod in snapshot {
        let add = AddWorkload { uid: pod.uid.clone(), workload_info: Some(pod.info) };
        if let Err(reason) = exchange(socket, Payload::Add(add), Some(&pod.netns)).await? {
            warn!(uid = pod.uid, reason, "the proxy refused a pod of the snapshot");
        }
    }
    exchange(socket, Payload::SnapshotSent(SnapshotSent {}), None)
        .await?
        .map_err(|reason| format!("snapshot refused: {reason}"))
}

/// Passes requests on until the proxy is gone. Its going is noticed between requests by its end of the socket.
async fn relay(socket: &SeqPacket, requests: &mut mpsc::Receiver<Request>) -> Result<(), String> {
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return Ok(()) };
                let answer = exchange(socket, request.payload, request.netns.as_ref()).await?;
                let _ = request.reply.send(answer);
            }
            unasked = socket.receive(MAX_MESSAGE) => return match unasked {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("it spoke without being asked".into()),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

/// One request and its acknowledgement. The outer error ends the connection, the inner one is the proxy's.
async fn exchange(
    socket: &SeqPacket,
    payload: Payload,
    netns: Option<&NetnsFd>,
) -> Result<Result<(), String>, String> {
    let bytes = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
    if bytes.len() > MAX_MESSAGE {
        return Ok(Err(format!("its names need {} bytes, a ZDS message has {MAX_MESSAGE}", bytes.len())));
    }
    let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd()).collect();
    let answer = in_time(IO_TIME, async {
        socket.send(&bytes, &fds).await?;
        socket.receive(MAX_MESSAGE).await
    });
    let packet = answer
        .await
        .map_err(|_| format!("no acknowledgement within {} s", IO_TIME.as_secs()))?
        .map_err(|error| error.to_string())?
        .ok_or("closed before acknowledging")?;
    let response = WorkloadResponse::decode(packet.bytes.as_slice())
        .map_err(|error| format!("not an acknowledgement: {error}"))?;
    match response.payload {
        Some(workload_response::Payload::Ack(ack)) if ack.error.is_empty() => Ok(Ok(())),
        Some(workload_response::Payload::Ack(ack)) => Ok(Err(ack.error)),
        None => Err("an empty acknowledgement".into()),
    }
}
