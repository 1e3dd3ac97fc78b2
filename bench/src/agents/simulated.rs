//! One thread's agents: each connects, says what it has, takes what comes and connects again when it is told to.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use identity::control_plane::{ControlPlane, ControlPlaneSettings};
use identity::tls::{Tls, TlsSettings};
use prost::Message;
use proto::discovery::DeltaDiscoveryRequest;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::Channel;
use xds::delta::subscriber::{Delivery, Handler, Mode, Rejection, Subscriber, Subscription};
use xds::node::NodeInfo;

use super::CTRL;
use super::board::Board;

/// Agents that connect at a time: they have one address between them, which may have only so many handshakes under way.
const CONNECTING: usize = 24;
/// Requests of an agent that may wait.
const REQUESTS: usize = 16;
/// What they subscribe to.
const TYPES: [&str; 3] = [MESH_SETTINGS, AUTHORIZATION, ADDRESS];

/// What agents prove who they are with, and tell the controller by.
#[derive(Debug)]
pub(super) struct Credentials {
    /// Of each.
    pub(super) tokens: Vec<String>,
    /// File of the roots that sign the controller's certificate.
    pub(super) roots: PathBuf,
}

/// The node of an agent.
pub(super) fn node(number: u32) -> String {
    format!("node-{number}")
}

/// All of them, until dropped.
#[derive(Debug)]
pub(super) struct Agents {
    /// Counts how often they are to connect.
    round: watch::Sender<u32>,
    thread: Option<JoinHandle<()>>,
}

impl Agents {
    /// Starts them on a thread in the namespace of the caller.
    pub(super) fn start(credentials: &Credentials, board: &Board) -> io::Result<Self> {
        let settings = ControlPlaneSettings::new(format!("https://{CTRL}"), &credentials.roots);
        let control = ControlPlane::new(&Tls::new(TlsSettings::default()), &settings);
        let control = control.map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (round, rounds) = watch::channel(0);
        let board = board.clone();
        let tokens = credentials.tokens.clone();
        let all = async move {
            let connecting = Arc::new(Semaphore::new(CONNECTING));
            let mut running = tokio::task::JoinSet::new();
            for (number, token) in (0..).zip(tokens) {
                let agent = Agent {
                    token,
                    control: control.clone(),
                    connecting: connecting.clone(),
                    board: board.clone(),
                    rounds: rounds.clone(),
                };
                running.spawn(agent.run(number));
            }
            // They end when nobody is left who could tell them to connect again.
            running.join_all().await;
        };
        let thread =
            std::thread::Builder::new().name("agents".to_owned()).spawn(move || runtime.block_on(all))?;
        Ok(Self { round, thread: Some(thread) })
    }

    /// All of them lose their connections, and connect again.
    pub(super) fn reconnect(&self) {
        self.round.send_modify(|round| *round += 1);
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let (closed, _) = watch::channel(0);
        drop(std::mem::replace(&mut self.round, closed));
        if let Some(thread) = self.thread.take() {
            // It has said what went wrong.
            let _ = thread.join();
        }
    }
}

struct Agent {
    token: String,
    control: ControlPlane,
    connecting: Arc<Semaphore>,
    board: Board,
    rounds: watch::Receiver<u32>,
}

/// Takes everything, and decodes nothing.
struct Taken;

impl Handler for Taken {
    fn apply(&mut self, _: &Delivery) -> Vec<Rejection> {
        Vec::new()
    }
}

impl Agent {
    async fn run(mut self, number: u32) {
        let info = NodeInfo::new("ztunnel", None, &format!("agent-{number}"), "istio-system");
        let all =
            |type_url: &str| Subscription { type_url: type_url.into(), mode: Mode::All, required: true };
        let mut subscriber = Subscriber::new(info.on_node(&node(number)).to_wire(), TYPES.map(all));
        loop {
            self.rounds.borrow_and_update();
            match self.connection(&mut subscriber).await {
                Ok(true) => {}
                Ok(false) => return,
                // Who is missing is missed.
                Err(error) => return eprintln!("bench: agent {number}: {error}"),
            }
        }
    }

    /// One connection; whether there is to be another.
    async fn connection(
        &mut self,
        subscriber: &mut Subscriber,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let connecting = self.connecting.clone().acquire_owned().await?;
        let channel = self.control.connect().await?;
        let (requests, outbound) = mpsc::channel(REQUESTS);
        for request in subscriber.connect() {
            self.send(&requests, request).await?;
        }
        let mut request = Request::new(ReceiverStream::new(outbound));
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        let mut client = AggregatedDiscoveryServiceClient::<Channel>::new(channel);
        let mut responses = client.delta_aggregated_resources(request).await?.into_inner();
        let mut connecting = Some(connecting);
        let (mut answered, mut told) = (HashSet::new(), false);
        loop {
            let response = tokio::select! {
                changed = self.rounds.changed() => return Ok(changed.is_ok()),
                response = responses.message() => response?.ok_or("the controller ended the stream")?,
            };
            drop(connecting.take());
            self.board.received(response.encoded_len());
            let news = told && !(response.resources.is_empty() && response.removed_resources.is_empty());
            if !response.nonce.ends_with("/more") {
                answered.insert(response.type_url.clone());
            }
            let answer = subscriber.receive(response, &mut Taken)?;
            self.send(&requests, answer).await?;
            if news {
                self.board.heard();
            }
            if !told && answered.len() == TYPES.len() {
                told = true;
                self.board.told();
            }
        }
    }

    async fn send(
        &self,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        request: DeltaDiscoveryRequest,
    ) -> Result<(), mpsc::error::SendError<DeltaDiscoveryRequest>> {
        self.board.sent(request.encoded_len());
        requests.send(request).await
    }
}
